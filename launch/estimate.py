"""What a sweep will cost, told before it starts and held against the truth at its end.

In: a study's settings, its ledger, its plan. Out: seconds of each open trial, and lines to read. Loads no Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import ClusterConfig, Offload, Prune, StudyConfig, TrialConfig, video_tokens
from cinelora.core.files import read_json
from cinelora.core.records import TrialSpec
from cinelora.data.encodings import WINDOWS_FILE, encoding_folder
from cinelora.metrics.feature_nets import configured
from cinelora.wan.checkpoint import config_folder
from launch.wording import clock
from sweeps.cost import (
    GPUS,
    IMAGE_TOKENS,
    TEXT_TOKENS,
    CostModel,
    Denoiser,
    Workload,
    assumed,
    fitted,
    gpu_hours,
    pace,
)
from sweeps.ledger import Ledger
from sweeps.memory import BytesByPart, Sizes, encoding, footprint, peak_gib
from sweeps.plan import Plan
from sweeps.scheduling.scheduler import GangShape, Infeasible, Node
from sweeps.scheduling.simulate import makespan, simulate
from sweeps.scheduling.tasks import task_for, workers

# ~ Whether every open trial fits the card it is planned for, told before anything starts, and what would make it fit.
# ~
# ~ In: a study's settings, its open trials, the configs of their base. Out: lines to read, or UserError naming the
# ~ nearest
# ~ setting that fits. Without `cluster.device`, or on CPUs, nothing is told and nothing refused. Loads no torch.

RESERVED_GIB = 2.0  # for the driver's context, cuBLAS, cuDNN, NCCL and the allocator's gaps; assumed
MOST_WORKERS = 8  # that a remedy asks for: one node
LEAST_FRAMES = 5
Overrides = dict[str, Any]  # "group.field" -> value, as typed on the command line


@dataclass(frozen=True)
class Place:
    """What a worker has: GiB of a card, and the share of it that is the worker's."""

    device: str
    share: float

    @property
    def gib(self) -> float:
        return GPUS[self.device].gib * self.share - RESERVED_GIB

    def __str__(self) -> str:
        return self.device if self.share == 1 else f"{self.share:.2g} of {self.device}"


@dataclass(frozen=True)
class Demand:
    """A trial as planned, with what its memory follows from."""

    config: TrialConfig
    workers: int
    share: float
    sizes: Sizes
    parts: dict[str, Any]  # configs of the other parts of the base
    heldout: int
    nets: float

    def phases(self) -> dict[str, BytesByPart]:
        own = footprint(self.sizes, self.parts["vae"], self.config, self.workers, self.heldout, self.nets)
        return encoding(self.config, self.parts) | own

    def worst(self) -> tuple[float, str]:
        """(GiB, phase) of the highest peak."""
        return max((peak_gib(parts), phase) for phase, parts in self.phases().items())

    def fits(self, device: str) -> bool:
        return self.worst()[0] <= Place(device, self.share).gib

    def changed(self, overrides: Overrides) -> Demand | None:
        """With these settings; None where they contradict each other or cannot be shared out."""
        config, count, share = self.config, self.workers, self.share
        for name, value in overrides.items():
            group, field = name.split(".")
            if group == "cluster":
                count, share = (value, share) if field == "workers_per_trial" else (count, value)
                continue
            old = getattr(config, group)
            try:
                config = replace(config, **{group: replace(old, **{field: value})})
            except ValueError:
                return None
        sharers = config.model.sequence_workers
        whole = not count % sharers and not config.train.batch_size % max(1, count // sharers)
        tokens = not video_tokens(config.data) % sharers and not self.sizes.heads % sharers
        return replace(self, config=config, workers=count, share=share) if whole and tokens else None


def demand(study: StudyConfig, spec: TrialSpec, text_tokens: int, image_tokens: int, heldout: int) -> Demand:
    folder = config_folder(spec.config.model, Path(study.cache_dir))
    read = {name: read_json(folder / name / "config.json") for name in ("vae", "text_encoder", "image_encoder")}
    files = [Path(path) for path in configured(spec.config.score).values()]
    return Demand(
        config=spec.config,
        workers=workers(study.cluster, spec),
        share=min(1.0, study.cluster.gpus_per_worker),
        sizes=Sizes.of(read_json(folder / "transformer" / "config.json"), text_tokens, image_tokens),
        parts=read | {"image_encoder": read["image_encoder"].get("vision_config") or read["image_encoder"]},
        heldout=heldout,
        nets=float(sum(file.stat().st_size for path in files for file in (path, *path.rglob("*")) if file.is_file())),
    )


def memory_lines(study: StudyConfig, demands: Sequence[Demand]) -> list[str]:
    """What to print under the plan. Raises UserError if a trial cannot fit."""
    device = study.cluster.device
    if not demands or device not in GPUS or study.cluster.gpus_per_worker == 0:
        return []
    largest = max(demands, key=lambda each: each.worst()[0])
    if not largest.fits(device):
        raise UserError(_refusal(device, largest))
    peaks: dict[str, float] = {}
    for each in demands:
        for phase, parts in each.phases().items():
            peaks[phase] = max(peaks.get(phase, 0.0), peak_gib(parts))
    place = Place(device, largest.share)
    told = ", ".join(f"{phase} {gib:.1f}" for phase, gib in peaks.items())
    return [f"memory of a worker at its peak: {told} GiB, of {place.gib:.1f} that {place} leaves"]


def _refusal(device: str, largest: Demand) -> str:
    need, phase = largest.worst()
    place, config = Place(device, largest.share), largest.config
    what = f"rank {config.lora.rank} on {config.lora.targets.value}, {config.data.frames} frames of "
    what += f"{config.data.width}x{config.data.height}"
    text = f"cluster.device={device}: {what} need {need:.1f} GiB to {phase}, {place} leaves {place.gib:.1f}; "
    found = nearest(device, largest)
    if found is None:
        return f"{text}no setting of this trial fits, take a card with more memory"
    return text + "set " + " ".join(f"{name}={_typed(value)}" for name, value in found.items())


def _typed(value: Any) -> str:
    """As on the command line."""
    return str(getattr(value, "value", value)).lower()


def nearest(device: str, start: Demand) -> Overrides | None:
    """The fewest of the settings below, in their order, with which it fits; None if not even all of them are enough."""
    taken: Overrides = {}
    for option in _options(start):
        tried = taken | option
        changed = start.changed(tried)
        if changed is None:
            continue
        taken = tried
        if changed.fits(device):
            return _without_idle(device, start, taken)
    return None


def _options(start: Demand) -> Iterator[Overrides]:
    """From what costs time alone to what changes the clips."""
    config = start.config
    yield {"train.gradient_checkpointing": True, "train.checkpointed_blocks": 0}
    for name, size in (
        ("train.micro_batch", config.train.micro_batch),
        ("sample.batch_size", config.sample.batch_size),
    ):
        while size > 1:
            size //= 2
            yield {name: size}
    if config.sample.batched_guidance:
        yield {"sample.batched_guidance": False}
    if start.share < 1:
        yield {"cluster.gpus_per_worker": 1}
    yield {"zero.stage": max(1, config.zero.stage), "zero.offload": Offload.optimizer}
    yield {"zero.stage": 3, "zero.offload": Offload.weights}
    more = [count for count in (2, 4, 8) if start.workers < count <= MOST_WORKERS]
    for count in (start.workers, *more):
        yield {"zero.stage": 3, "cluster.workers_per_trial": count}
    for sharers in (2, 4, 8):
        if sharers > config.model.sequence_workers:
            yield {"model.sequence_workers": sharers}
    for frames in range(config.data.frames - 4, LEAST_FRAMES - 1, -4):
        yield {"data.frames": frames}


def _without_idle(device: str, start: Demand, taken: Overrides) -> Overrides:
    """Those settings without which it would not fit; what is as it was anyway is left out."""
    kept = dict(taken)
    for name in taken:
        fewer = {other: value for other, value in kept.items() if other != name}
        changed = start.changed(fewer)
        if changed is not None and changed.fits(device):
            kept = fewer
    return kept


MEGA = 1e6
SIZED = 20  # finished trials whose folders are measured
SHORT_TEXT = 33  # tokens left of the text where its padding is counted instead of computed


@dataclass(frozen=True)
class CostPlan:
    """`seconds`: of each open trial on its gang; empty where nothing is known. `whole`: of the sweep on `nodes`."""

    seconds: dict[str, float]
    model: CostModel | None
    hours: float
    whole: float | None
    infeasible: tuple[str, ...]
    bytes_needed: float | None
    told: tuple[str, ...] = ()  # on memory and pace


def cost_plan(study: StudyConfig, ledger: Ledger, plan: Plan) -> CostPlan:
    """What is still to run. Raises UserError for a device that nobody knows, or that cannot hold a trial."""
    done = [(spec, result) for spec in plan.trials if (result := ledger.result(spec.trial_id)) is not None]
    pending = ledger.pending(plan, study.prune is not Prune.off)
    works = {spec.trial_id: work_of(study, spec) for spec in plan.trials}
    model = fitted((works[spec.trial_id], result) for spec, result in done) or _assumed(study.cluster)
    seconds = {spec.trial_id: model.rates.seconds(works[spec.trial_id]) for spec in pending} if model else {}
    whole, infeasible = _makespan(study.cluster, pending, seconds)
    sizes = [_size(ledger.folder.trial(spec.trial_id).root) for spec, _ in done[:SIZED]]
    counts = {spec.trial_id: workers(study.cluster, spec) for spec in pending}
    return CostPlan(
        seconds=seconds,
        model=model,
        hours=gpu_hours(seconds, counts, study.cluster.gpus_per_worker),
        whole=whole if seconds else None,
        infeasible=infeasible,
        bytes_needed=sum(sizes) / len(sizes) * len(pending) if sizes else None,
        told=(*memory_lines(study, [_demand(study, spec) for spec in pending]), *_pace(study, pending, model)),
    )


def _demand(study: StudyConfig, spec: TrialSpec) -> Demand:
    text, image = _tokens(config_folder(spec.config.model, Path(study.cache_dir)), spec.config.model.short_text)
    return demand(study, spec, text, image, _heldout(study, spec))


def _pace(study: StudyConfig, pending: list[TrialSpec], model: CostModel | None) -> list[str]:
    """Seconds a step and a clip, from the fastest trial to the slowest."""
    if model is None or not pending:
        return []
    found = [pace(spec.config, net_of(study, spec), model.rates, workers(study.cluster, spec)) for spec in pending]
    spans = [sorted({f"{value:.3g}" for value in values}, key=float) for values in zip(*found, strict=True)]
    step, clip = ("..".join(dict.fromkeys((span[0], span[-1]))) for span in spans)
    return [f"pace: {step} s a step, {clip} s a clip"]


def net_of(study: StudyConfig, spec: TrialSpec) -> Denoiser:
    return _denoiser(config_folder(spec.config.model, Path(study.cache_dir)), spec.config.model.short_text)


def _heldout(study: StudyConfig, spec: TrialSpec) -> int:
    """Windows held out of its training."""
    marks = spec.fingerprints
    folder = encoding_folder(Path(study.cache_dir), marks["data"], marks["model"], spec.config.model.text_dtype)
    return len(read_json(folder / WINDOWS_FILE)["heldout"])


def work_of(study: StudyConfig, spec: TrialSpec) -> Workload:
    """The arithmetic of a trial, from the config of its base and the window plan of its data."""
    return Workload.of(spec.config, net_of(study, spec), _heldout(study, spec), workers(study.cluster, spec))


@cache
def _denoiser(folder: Path, short_text: bool) -> Denoiser:
    return Denoiser.of(read_json(folder / "transformer" / "config.json"), *_tokens(folder, short_text))


def _tokens(folder: Path, short_text: bool) -> tuple[int, int]:
    """Of text and of image, that cross-attention reads."""
    vision = read_json(folder / "image_encoder" / "config.json")
    side = vision["image_size"] // vision["patch_size"] if "image_size" in vision else 0
    return SHORT_TEXT if short_text else TEXT_TOKENS, side * side + 1 if side else IMAGE_TOKENS


def _assumed(cluster: ClusterConfig) -> CostModel | None:
    if not cluster.device:
        return None
    if cluster.device not in GPUS:
        raise UserError(f"cluster.device={cluster.device}: not known; there are {', '.join(GPUS)}, or leave it empty")
    return assumed(GPUS[cluster.device].tflops * max(1.0, cluster.gpus_per_worker))


def nodes_of(cluster: ClusterConfig) -> list[Node]:
    """This machine, or the nodes that the settings describe; none where they do not."""
    if not cluster.address:
        return [Node("this machine", os.cpu_count() or 1, 0)]
    size = cluster.cpus_per_node, cluster.gpus_per_node
    return [Node(f"node {index}", *size) for index in range(cluster.nodes)]


def _makespan(
    cluster: ClusterConfig, specs: list[TrialSpec], seconds: dict[str, float]
) -> tuple[float | None, tuple[str, ...]]:
    """Seconds of the sweep in simulated time, and one line for each gang that does not fit."""
    nodes = nodes_of(cluster)
    if not nodes:
        return None, ()
    tasks = [task_for(cluster, spec, seconds.get(spec.trial_id, 1.0)) for spec in specs]
    misfits: dict[GangShape, str] = {}
    for shape, task in {task.shape: task for task in tasks}.items():
        try:
            simulate([task], nodes)
        except Infeasible as error:
            misfits[shape] = str(error)
    return makespan(simulate([task for task in tasks if task.shape not in misfits], nodes)), tuple(misfits.values())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def lines(study: StudyConfig, cost: CostPlan) -> list[str]:
    """What to print under the plan."""
    cluster, told = study.cluster, [f"cannot run on this cluster: {text}" for text in cost.infeasible]
    told += cost.told
    if not cost.seconds:
        known = "set cluster.device, or finish a trial, to learn the cost" if cost.model is None else ""
        return [*told, *([known] if known else [])]
    unit = "GPU-hours" if cluster.gpus_per_worker else "worker-hours"
    text = f"cost: {cost.hours:.3g} {unit}"
    if cost.whole is not None:
        text += f", {clock(cost.whole)} on {_cluster(cluster)}"
    if cluster.price_per_gpu_hour and cluster.gpus_per_worker:
        text += f", {cost.hours * cluster.price_per_gpu_hour:.2f} at {cluster.price_per_gpu_hour:g} a GPU-hour"
    if cost.bytes_needed is not None:
        text += f", {cost.bytes_needed / MEGA:.0f} MB of disk"
    assert cost.model is not None
    return [*told, f"{text} ({cost.model.source})"]


def _cluster(cluster: ClusterConfig) -> str:
    nodes = nodes_of(cluster)
    return f"{len(nodes)} x ({nodes[0].cpus} CPU, {nodes[0].gpus} GPU)" if cluster.address else "this machine"
