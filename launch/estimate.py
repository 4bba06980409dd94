"""Estimate time, cost and memory of a sweep before it starts.

In: a study's settings, its ledger, its plan, the configs of the base models. Out: seconds of each open trial, of the
whole sweep, and lines to print; or UserError where a trial cannot fit its GPU, naming the nearest setting that fits.
Time follows from finished trials or, without any, from `cluster.device` (`sweeps/cost.py`); memory from the configs
alone (`sweeps/memory.py`). Without `cluster.device`, or on CPUs, memory is not checked. Loads neither torch nor Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError, clock, number
from cinelora.core.config import (
    AUTO,
    Checkpointing,
    ClusterConfig,
    ModelConfig,
    Offload,
    Prune,
    StudyConfig,
    TrialConfig,
)
from cinelora.core.files import read_json
from cinelora.core.records import TrialSpec
from cinelora.data.encodings import WINDOWS_FILE, encoding_folder
from cinelora.metrics.feature_nets import configured
from cinelora.wan.checkpoint import BUILTIN, config_folder
from launch.preflight import check_compiled, check_division, check_sharing
from sweeps.cost import GPUS, CostModel, Rates, Workload, assumed, fitted, gpu_hours
from sweeps.denoiser import IMAGE_TOKENS, TEXT_TOKENS, Denoiser
from sweeps.ledger import Ledger
from sweeps.memory import SHARDED, BytesByPart, encoder_memory, footprint, peak_gib
from sweeps.plan import Plan
from sweeps.scheduling.cluster import GangShape, Infeasible, Node
from sweeps.scheduling.simulate import makespan, simulate
from sweeps.scheduling.tasks import task_for, workers

SHORT_TEXT = 33  # text tokens that cross-attention reads where the padding is counted instead of computed
SIZED = 20  # finished trials whose folders are measured
RESERVED_GIB = 2.0  # for the driver's context, cuBLAS, cuDNN, NCCL and the allocator's gaps; assumed
SHARE = 0.25  # of a GPU, for a trial of a built-in model
MOST_WORKERS = 8  # that a remedy proposes: one node
LEAST_FRAMES = 5
MARGIN = 1.03  # on the memory of compiled blocks, which is predicted within 3 %
Overrides = dict[str, Any]  # "group.field" -> value, as typed on the command line


@dataclass(frozen=True)
class Estimate:
    """`seconds`: of each open trial on its gang, `silence`: the longest between two of its reports; `makespan`: seconds
    of the sweep. Where the speed is not known, `seconds` are those of an H100, which order the trials alone, `silence`
    is empty.
    """

    seconds: dict[str, float]
    silence: dict[str, float]
    makespan: float | None
    lines: tuple[str, ...]  # to print under the plan
    hours: float | None = None  # GPU-hours, or worker-hours without GPUs


def estimate(study: StudyConfig, ledger: Ledger, plan: Plan, other: CostModel | None = None) -> Estimate:
    """What is still to run; `other`: another cost model, of a study of the same kind. Raises UserError for an unknown
    device, or one that cannot hold a trial."""
    pending = ledger.pending(plan, study.prune is not Prune.off)
    model = best_fitted(cost_model(study, ledger, plan), other)
    done = [spec for spec in plan.trials if ledger.is_done(spec.trial_id)]
    demands = {spec.trial_id: demand_of(study, spec) for spec in pending}
    work = {trial_id: demand.work() for trial_id, demand in demands.items()}
    seconds = {trial_id: model.rates.seconds(each) if model else each.seconds for trial_id, each in work.items()}
    silence = {trial_id: model.rates.silence(each) for trial_id, each in work.items()} if model else {}
    whole, misfits = sweep_seconds(study.cluster, pending, seconds)
    lines = [f"cannot run on this cluster: {text}" for text in misfits]
    lines += memory_lines(study, list(demands.values()))
    if pending and not any(spec.config.method.has_model for spec in pending):
        lines.append("cost not estimated: no model runs, clips are read and scored on the processor")
    elif pending and model is None:
        lines.append("cost unknown: set cluster.device, or let one trial finish")
    elif pending and model is not None:
        sizes = [_folder_bytes(ledger.folder.trial(spec.trial_id).root) for spec in done[:SIZED]]
        disk = f", {sum(sizes) / len(sizes) * len(pending) / 1e6:.0f} MB of disk" if sizes else ""
        least = "at least " * any(each.clips and not model.clips for each in work.values())
        cost = least + cost_text(study.cluster, gpu_hours(seconds, work, study.cluster.gpus), whole)
        lines += [_pace(model.rates, work.values()), f"cost: {cost}{disk} ({model.source})"]
    hours = gpu_hours(seconds, work, study.cluster.gpus) if model or not pending else None
    return Estimate(seconds, silence, whole if model else None, tuple(lines), hours)


def best_fitted(*models: CostModel | None) -> CostModel | None:
    """The one fitted to the most trials, if need be without clips; of equal ones the first."""
    return max(models, key=lambda each: (each.trials * each.clips, each.trials) if each else (-1, -1))


def cost_model(study: StudyConfig, ledger: Ledger, plan: Plan) -> CostModel | None:
    """Fitted to the finished trials, else from `cluster.device`, else None."""
    trials = [spec for spec in plan.trials if spec.config.method.has_model]
    done = [(spec, result) for spec in trials if (result := ledger.result(spec.trial_id)) is not None]
    return fitted((demand_of(study, spec).work(), result) for spec, result in done) or assumed(study.cluster)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# Time and cost.


def sweep_seconds(
    cluster: ClusterConfig, specs: list[TrialSpec], seconds: dict[str, float]
) -> tuple[float | None, tuple[str, ...]]:
    """Seconds of the sweep in simulated time, and one line for each gang that does not fit."""
    nodes = _nodes(cluster)
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


def _nodes(cluster: ClusterConfig) -> list[Node]:
    """This machine, or the nodes that the settings describe; none where they do not."""
    if not cluster.address:
        return [Node("this machine", os.cpu_count() or 1, local_gpus())]
    return [Node(f"node {index}", cluster.cpus_per_node, cluster.gpus_per_node) for index in range(cluster.nodes)]


def local_gpus(devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs of this machine that a process may use, counted without their libraries."""
    there = len(list(devices.glob("nvidia[0-9]*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        there if visible is None else min(there, len([name for name in visible.split(",") if name not in ("", "-1")]))
    )


def settle_gpus(cluster: ClusterConfig, models: Iterable[ModelConfig]) -> tuple[ClusterConfig, tuple[str, ...]]:
    """With `gpus_per_worker=auto` as a number, and a line about it where this machine has GPUs.

    None without a GPU here or with an address; a share for built-in models, which are small; a whole one for others.
    """
    if cluster.gpus_per_worker != AUTO:
        return cluster, ()
    gpus: float
    there = 0 if cluster.address else local_gpus()
    gang = max(cluster.workers_per_trial, *cluster.workers_by_rank.values(), 0)
    if not there:
        return replace(cluster, gpus_per_worker=0.0), ()
    if not all(model.path.startswith(BUILTIN) for model in models):
        gpus, why = 1.0, "a model that is not built in takes a whole GPU"
    elif gang == 1 and not cluster.workers_by_rank:
        gpus, why = SHARE, "trials of a small built-in model share a GPU"
    elif gang <= there:
        gpus, why = 1.0, "workers of one trial cannot share a GPU"
    else:
        gpus, why = 0.0, f"a trial of {gang} workers would take {gang} GPUs"
    text = f"cluster.gpus_per_worker=auto: {gpus:g}, since {why}; GPUs of this machine: {there}"
    return replace(cluster, gpus_per_worker=gpus), (text,)


def cost_text(cluster: ClusterConfig, hours: float, whole: float | None) -> str:
    """e.g. `12.5 GPU-hours, 1:35:00 on 2 x (64 CPU, 8 GPU), 25.00 at 2 per GPU-hour`; `whole`: seconds of the sweep."""
    text = f"{number(hours)} {'GPU-hours' if cluster.gpus else 'worker-hours'}"
    if whole is not None:
        size = f"{cluster.nodes} x ({cluster.cpus_per_node} CPU, {cluster.gpus_per_node} GPU)"
        text += f", {clock(whole)} on {size if cluster.address else 'this machine'}"
    if cluster.price_per_gpu_hour and cluster.gpus:
        price = hours * cluster.price_per_gpu_hour
        text += f", {price:{',.0f' if price >= 1000 else '.2f'}} at {cluster.price_per_gpu_hour:g} per GPU-hour"
    return text


def _pace(rates: Rates, work: Iterable[Workload]) -> str:
    """Seconds per step and, where there are clips, per clip, from the fastest trial to the slowest."""
    spans = [
        sorted({f"{value:.3g}" for value in values}, key=float) for values in zip(*map(rates.pace, work), strict=True)
    ]
    step, clip = ("..".join(dict.fromkeys((span[0], span[-1]))) for span in spans)
    return f"pace: {step} s per step" + f", {clip} s per clip" * (clip != "0")


# Checkpointing: the fastest setting that fits.


def settle_checkpointing(study: StudyConfig, plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    """The plan with each `train.checkpointing=auto` settled, and lines to print about it.

    No trial's id changes, nor a bit of a result where blocks are eager; compiled ones round differently.
    """
    device, trials, found = study.cluster.device, [], dict[Checkpointing, set[int]]()
    known: dict[str, tuple[Checkpointing, int]] = {}  # one for all seeds
    for spec in plan.trials:
        config = spec.config
        if config.method.trains and config.train.checkpointing is Checkpointing.auto:
            alike = repr((replace(config, seed=0), spec.fingerprints))
            if alike not in known:
                known[alike] = fastest_checkpointing(device, demand_of(study, spec))
            kind, blocks = known[alike]
            train = replace(config.train, checkpointing=kind, checkpointed_blocks=blocks)
            spec = replace(spec, config=replace(config, train=train))
            found.setdefault(kind, set()).add(blocks)
        trials.append(spec)
    why = f"the fastest that fits {device}" if device else "the least memory, since cluster.device is not set"
    lines = []
    for kind, counts in found.items():
        some = "..".join(map(str, sorted({min(counts), max(counts)})))
        lines.append(f"train.checkpointing=auto: {kind.value}{f' in the first {some} blocks' * (some != '0')}, {why}")
    return replace(plan, trials=tuple(trials)), tuple(lines)


def fastest_checkpointing(device: str, demand: Demand) -> tuple[Checkpointing, int]:
    """(kind, number of blocks, 0: all): the most whole blocks that fit beside those that keep attention, else `all`."""
    if device not in GPUS or demand.cluster.gpus == 0:
        return Checkpointing.all, 0
    kind = Checkpointing.all if demand.config.zero.stage == SHARDED else Checkpointing.attention
    blocks = [*range(1, demand.sizes.layers), 0]
    for option in [(Checkpointing.none, 0), *((kind, count) for count in blocks)]:
        changed = demand.changed({"train.checkpointing": option[0], "train.checkpointed_blocks": option[1]})
        if changed is not None and changed.worst()[0] * MARGIN <= demand.available_gib(device):
            return option
    return Checkpointing.all, 0


# Memory: whether every open trial fits the GPU it is planned for, and what would make it fit.


@dataclass(frozen=True)
class Demand:
    """A trial as planned, with what its time and its memory follow from."""

    config: TrialConfig
    cluster: ClusterConfig
    sizes: Denoiser
    parts: dict[str, Any]  # configs of the base's "vae", "text_encoder" and "image_encoder"
    heldout: int  # windows
    nets: float  # bytes of the feature nets

    @property
    def workers(self) -> int:
        return workers(self.cluster, self.config)

    @property
    def share(self) -> float:
        """Of a GPU that one worker has, 0..1."""
        return min(1.0, self.cluster.gpus)

    def work(self) -> Workload:
        return Workload.of(self.config, self.sizes, self.heldout, self.workers)

    def phases(self) -> dict[str, BytesByPart]:
        own = footprint(self.sizes, self.parts["vae"], self.config, self.workers, self.heldout, self.nets)
        return encoder_memory(self.config, self.parts) | own

    def worst(self) -> tuple[float, str]:
        """(GiB, phase) of the highest peak."""
        return max((peak_gib(parts), phase) for phase, parts in self.phases().items())

    def available_gib(self, device: str) -> float:
        return GPUS[device].gib * self.share - RESERVED_GIB

    def fits(self, device: str) -> bool:
        return self.worst()[0] <= self.available_gib(device)

    def changed(self, overrides: Overrides) -> Demand | None:
        """With these settings; None where they contradict each other or cannot be divided among the workers."""
        config, cluster = self.config, self.cluster
        try:
            for name, value in overrides.items():
                group, field = name.split(".")
                if group == "cluster":
                    cluster = replace(cluster, **{field: value})
                else:
                    config = replace(config, **{group: replace(getattr(config, group), **{field: value})})
            check_compiled(config)
            check_division(config, cluster)
            check_sharing(config, self.sizes.heads)
        except (ValueError, UserError):
            return None
        return replace(self, config=config, cluster=cluster)


@cache
def _parts(folder: Path) -> dict[str, Any]:
    """Configs of the parts of a base model."""
    names = ("transformer", "vae", "text_encoder", "image_encoder")
    parts = {name: read_json(folder / name / "config.json") for name in names}
    vision = parts["image_encoder"]
    return parts | {"image_encoder": vision.get("vision_config") or vision}


def demand_of(study: StudyConfig, spec: TrialSpec) -> Demand:
    """Of a planned trial, whose data set has been listed."""
    config, cache_dir, prints = spec.config, Path(study.cache_dir), spec.fingerprints
    parts = _parts(config_folder(config.model, cache_dir))
    vision, text = parts["image_encoder"], SHORT_TEXT if config.model.short_text else TEXT_TOKENS
    image = (vision["image_size"] // vision["patch_size"]) ** 2 + 1 if "image_size" in vision else IMAGE_TOKENS
    sizes = Denoiser.of(parts["transformer"], text, image)
    encodings = encoding_folder(cache_dir, prints["data"], prints["model"], config.model.text_dtype)
    heldout = len(read_json(encodings / WINDOWS_FILE)["heldout"])
    files = [Path(path) for path in configured(config.score).values()]
    nets = sum(path.stat().st_size if path.is_file() else _folder_bytes(path) for path in files)
    return Demand(config, study.cluster, sizes, parts, heldout, float(nets))


def memory_lines(study: StudyConfig, demands: Sequence[Demand]) -> list[str]:
    """Peak memory by phase, over all trials. Raises UserError if a trial cannot fit."""
    device = study.cluster.device
    if not demands or device not in GPUS or study.cluster.gpus == 0:
        return []
    largest = max(demands, key=lambda each: each.worst()[0])
    gpu = device if largest.share == 1 else f"{largest.share:.2g} of {device}"
    available = f"{largest.available_gib(device):.1f} available on {gpu}"
    if not largest.fits(device):
        need, phase = largest.worst()
        config, found = largest.config, nearest(device, largest)
        typed = [f"{name}={str(getattr(value, 'value', value)).lower()}" for name, value in (found or {}).items()]
        raise UserError(
            f"cluster.device={device}: rank {config.lora.rank} on {config.lora.targets.value}, {config.data.frames} "
            f"frames of {config.data.width}x{config.data.height} need {need:.1f} GiB in phase {phase}, {available}; "
            + (f"set {' '.join(typed)}" if found else "no setting of this trial fits, take a GPU with more memory")
        )
    peaks: dict[str, float] = {}
    for each in demands:
        for phase, parts in each.phases().items():
            peaks[phase] = max(peaks.get(phase, 0.0), peak_gib(parts))
    text = ", ".join(f"{phase} {gib:.1f}" for phase, gib in peaks.items())
    return [f"peak memory of a worker, GiB: {text}; {available}"]


def nearest(device: str, start: Demand) -> Overrides | None:
    """The fewest of the remedies, in their order, with which the trial fits; None if not even all are enough."""
    taken: Overrides = {}
    for option in _remedies(start):
        changed = start.changed(taken | option)
        if changed is None:
            continue
        taken |= option
        if changed.fits(device):
            for name in list(taken):  # without those that are not needed
                fewer = {other: value for other, value in taken.items() if other != name}
                changed = start.changed(fewer)
                taken = fewer if changed is not None and changed.fits(device) else taken
            return taken
    return None


def _remedies(start: Demand) -> Iterator[Overrides]:
    """Settings that need less memory: first those that only cost time, last those that change the clips."""
    config = start.config
    for kind in [Checkpointing.attention] * (config.zero.stage < SHARDED) + [Checkpointing.all]:
        yield {"train.checkpointing": kind, "train.checkpointed_blocks": 0}
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
    sharded: Overrides = {"zero.stage": SHARDED} | dict.fromkeys(["model.compile"] * config.model.compile, False)
    yield sharded | {"zero.offload": Offload.weights}
    for count in (start.workers, *(count for count in (2, 4, 8) if start.workers < count <= MOST_WORKERS)):
        yield sharded | {"cluster.workers_per_trial": count}
    for sharers in (2, 4, 8):
        if sharers > config.model.sequence_workers:
            yield {"model.sequence_workers": sharers}
    for frames in range(config.data.frames - 4, LEAST_FRAMES - 1, -4):
        yield {"data.frames": frames}
