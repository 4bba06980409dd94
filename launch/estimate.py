"""What a sweep will cost, told before it starts and held against the truth at its end.

In: a study's settings, its ledger, its plan. Out: seconds of each open trial, and lines to read. Loads no Ray.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.records import TrialSpec, read_json
from cinelora.core.studyconfig import ClusterConfig, Prune, StudyConfig
from cinelora.data.encodings import WINDOWS_FILE, encoding_folder
from cinelora.wan.checkpoint import config_folder
from launch.engine.run import task_for, workers
from launch.memoryplan import Demand, demand, memory_lines
from launch.wording import clock
from sweeps.cost import PEAK_TFLOPS, Model, Work, assumed, fitted, in_total, pace
from sweeps.flops import IMAGE_TOKENS, TEXT_TOKENS, Denoiser
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.scheduling.scheduler import Infeasible, Node, Shape
from sweeps.scheduling.simulate import makespan, simulate

MEGA = 1e6
SIZED = 20  # finished trials whose folders are measured
SHORT_TEXT = 33  # tokens left of the text where its padding is counted instead of computed


@dataclass(frozen=True)
class CostPlan:
    """`seconds`: of each open trial on its gang; empty where nothing is known. `whole`: of the sweep on `nodes`."""

    seconds: dict[str, float]
    model: Model | None
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
        hours=in_total(seconds, counts, study.cluster.gpus_per_worker),
        whole=whole if seconds else None,
        infeasible=infeasible,
        bytes_needed=sum(sizes) / len(sizes) * len(pending) if sizes else None,
        told=(*memory_lines(study, [_demand(study, spec) for spec in pending]), *_pace(study, pending, model)),
    )


def _demand(study: StudyConfig, spec: TrialSpec) -> Demand:
    text, image = _tokens(config_folder(spec.config.model, Path(study.cache_dir)), spec.config.model.short_text)
    return demand(study, spec, text, image, _heldout(study, spec))


def _pace(study: StudyConfig, pending: list[TrialSpec], model: Model | None) -> list[str]:
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


def work_of(study: StudyConfig, spec: TrialSpec) -> Work:
    """The arithmetic of a trial, from the config of its base and the window plan of its data."""
    return Work.of(spec.config, net_of(study, spec), _heldout(study, spec), workers(study.cluster, spec))


@cache
def _denoiser(folder: Path, short_text: bool) -> Denoiser:
    return Denoiser.of(read_json(folder / "transformer" / "config.json"), *_tokens(folder, short_text))


def _tokens(folder: Path, short_text: bool) -> tuple[int, int]:
    """Of text and of image, that cross-attention reads."""
    vision = read_json(folder / "image_encoder" / "config.json")
    side = vision["image_size"] // vision["patch_size"] if "image_size" in vision else 0
    return SHORT_TEXT if short_text else TEXT_TOKENS, side * side + 1 if side else IMAGE_TOKENS


def _assumed(cluster: ClusterConfig) -> Model | None:
    if not cluster.device:
        return None
    if cluster.device not in PEAK_TFLOPS:
        raise UserError(
            f"cluster.device={cluster.device}: not known; there are {', '.join(PEAK_TFLOPS)}, or leave it empty"
        )
    return assumed(PEAK_TFLOPS[cluster.device] * max(1.0, cluster.gpus_per_worker))


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
    misfits: dict[Shape, str] = {}
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
