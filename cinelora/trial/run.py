"""One trial from start to result: train, evaluate, generate, score. The same code in a gang and in a single process.

In: a Job, filled encodings, a resident model. Out: everything in the trial's folder, with `result.json` written last.
Every worker of a gang runs this in step; worker 0 writes.
"""

from __future__ import annotations

import resource
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cinelora import distributed
from cinelora.adopt.attach import save_as_own
from cinelora.adopt.read import read_adapter
from cinelora.core.cli import UserError
from cinelora.core.config import Method
from cinelora.core.files import write_json
from cinelora.core.records import TrialResult
from cinelora.features.results import Scored, drop_parts, merged, write_scored, write_set_scores
from cinelora.metrics import catalogue
from cinelora.training.checkpoint import StopSign
from cinelora.training.clock import clock, compiling_apart
from cinelora.training.engine import build_engine, full_parameters, release
from cinelora.training.heldout import window_losses
from cinelora.training.log import Mirror
from cinelora.training.loop import Report, Trained, train
from cinelora.trial import provenance
from cinelora.trial.job import Job
from cinelora.trial.resident import SPENT, ResidentModel
from cinelora.trial.scoring import generate_and_score, memorised
from cinelora.trial.tracking import Tracker
from cinelora.wan import lora
from cinelora.wan.attention import use_deterministic
from cinelora.wan.encoding import Encodings, grey_latent
from cinelora.wan.loading import write_weight_norms
from cinelora.wan.parallel import shared_tokens

State = tuple[dict[str, torch.Tensor], str]  # an adapter by parameter name, and its hash
HELDOUT_LOSS = "heldout_loss"  # a clip score like any other, so that trials are compared clip by clip
TRACKED_CLIPS = 2  # videos a trial shows in W&B


def run_trial(job: Job, resident: ResidentModel, report: Report) -> TrialResult:
    """Run the trial to its result, resuming from its last checkpoint. All workers of the gang call this together.

    Worker 0 writes the result; those of the others lack the adapter's size and the overhead.
    Raises NonFiniteLoss, Stopped, RuntimeError (workers disagree), UserError (no deterministic kernel), and whatever
    the disk raises.
    """
    spec, config, started = job.spec, job.spec.config, time.perf_counter()
    folder, plan, transformer = job.folder, job.windows(), resident.transformer
    has_model = config.method.has_model
    provenance.begin(job, use_deterministic(transformer, config) if has_model else None)
    _reset_peak_memory()
    stills = config.train.stills and has_model
    grey = grey_latent(resident.vae, config.data.height, config.data.width) if stills else None
    encodings = Encodings(job.encodings, grey=grey)
    result, trained, stop = None, None, StopSign(job.study.stop, folder.stop)
    workers = config.model.sequence_workers
    with shared_tokens(transformer, workers), compiling_apart(transformer, report) as compiling:
        tracker = Tracker(spec, job.tracking, job.study_name, job.study.wandb, active=distributed.rank() == 0)
        try:
            if distributed.rank() == 0 and has_model:
                write_weight_norms(job.study.weight_norms(spec.fingerprints["model"]), transformer)
            if config.first and has_model:
                lora.load_adapter(transformer, job.study.trial(config.first).adapter_file)
            adapter = _adopted(transformer, job) if config.method is Method.adapter else ({}, "")
            model, trained = _open_model(transformer, job, encodings, report, tracker.log, stop)
            started -= trained.seconds_before if trained else 0.0  # the trial's cost is that of all its runs
            seconds, begun = {"train": trained.seconds if trained else 0.0}, clock()

            def evaluating(done: int, total: int) -> None:
                report("evaluate", done, total, None)

            losses, other = (
                window_losses(model, config, encodings, windows if has_model else [], evaluating)
                for windows in (plan.heldout, plan.other)
            )
            seconds["evaluate"] = clock() - begun
            if trained and trained.steps:
                adapter = _gathered_adapter(trained.parameters)
            sampled = generate_and_score(job, resident, model, plan, encodings, adapter[1], report, stop)
            own, of_clips, earlier = sampled
            seconds, started = seconds | of_clips | compiling, started - earlier
            scored = merged(distributed.gather_objects(own), [window.window_id for window in plan.heldout])
            scored.values |= ({HELDOUT_LOSS: losses} if has_model else {}) | memorised(job.reference, scored)
            result = _result(job, trained, losses, other, adapter, len(scored.clip_ids), seconds)
            if distributed.rank() == 0:
                result = _write(job, result, adapter[0], scored, tracker, started)
            return result
        finally:
            tracker.finish(result)
            if trained is not None:
                release(trained.engine, trained.parameters)
            lora.detach(transformer)
            if config.method is Method.full:
                resident.key = SPENT


def _open_model(
    transformer: Any, job: Job, encodings: Encodings, report: Report, mirror: Mirror, stop: StopSign
) -> tuple[Any, Trained | None]:
    """(what predicts velocities, its training or None for the bare base); without a model there is neither."""
    config = job.spec.config
    if not config.method.has_model:
        return None, None
    if config.method.trains:
        trained = train(transformer, job.spec, encodings, job.windows(), job.folder, report, mirror, stop)
        return trained.engine, trained
    if config.zero.stage == 3:  # the base may only fit sharded: an adapter at its zero start is the base exactly
        own = lora.parameters_of(transformer, lora.OWN)
        parameters = own or lora.attach(transformer, config.lora, config.seed)
        transformer.requires_grad_(False)
        for _, parameter in parameters:
            parameter.requires_grad_(True)
        engine = build_engine(transformer, parameters, config.train, config.zero, config.model)
        return engine, Trained(engine, parameters, 0, None, 0.0, 0.0, None)
    return transformer, None


def _adopted(transformer: Any, job: Job) -> State:
    """Put the file of the trial on the base, by way of the trial's own folder. UserError: it has changed since."""
    config = job.spec.config
    if distributed.rank() == 0:
        adapter = read_adapter(Path(config.adapter), transformer.config, config.adapter_alpha or None)
        if (adapter.sha256, adapter.lora) != (config.adapter_sha256, config.lora):  # alpha may lie beside the file
            raise UserError(f"{config.adapter}: has changed since it was planned; run the same command again")
        save_as_own(job.folder.adapter, adapter)
    distributed.gather_objects(None)  # it is written
    lora.load_adapter(transformer, job.folder.adapter_file, lora.OWN)
    state = {name: parameter.data for name, parameter in lora.parameters_of(transformer, lora.OWN)}
    return state, lora.adapter_hash(state)


def _gathered_adapter(parameters: lora.NamedParameters) -> State:
    """The full adapter and its hash. RuntimeError if workers disagree on it, as after training on a wrong sub-group."""
    state = full_parameters(parameters)
    hashes = distributed.gather_objects(lora.adapter_hash(state))
    if len(set(hashes)) != 1:
        raise RuntimeError(f"workers ended with different adapters: {', '.join(h[:12] for h in hashes)}")
    return state, hashes[0]


def _result(
    job: Job,
    trained: Trained | None,
    losses: NDArray[np.float64],
    other: NDArray[np.float64],
    adapter: State,
    clips: int,
    seconds: dict[str, float],
) -> TrialResult:
    """What every worker knows. `losses`, `other`: (N,), of the held-out windows and of those of the split "other"."""
    spec, config = job.spec, job.spec.config
    adapts, (state, digest) = config.method.adapts, adapter
    adopted = sum(tensor.numel() for tensor in state.values()) if config.method is Method.adapter else 0
    return TrialResult(
        trial_id=spec.trial_id,
        method=config.method.value,
        arm=config.arm,
        rank=config.rank,
        alpha=config.lora.effective_alpha if adapts else 0.0,
        scale=config.lora.scale if adapts else 0.0,
        scaling=config.lora.scaling.value,
        targets=config.lora.targets.value,
        learning_rate=0.0 if config.method in (Method.adapter, Method.clips) else config.train.learning_rate,
        seed=config.seed,
        steps=trained.steps if trained else 0,
        trainable_parameters=trained.trainable_parameters if trained and config.method.trains else adopted,
        adapter_bytes=0,
        adapter_sha256=digest,
        train_loss=trained.train_loss if trained else None,
        heldout_loss=float(losses.mean()) if len(losses) else None,
        other_loss=float(other.mean()) if len(other) else None,
        clips=clips,
        seconds=seconds,
        seconds_per_step=trained.seconds_per_step if trained else None,
        peak_memory_gib=_peak_memory_gib(),
        world_size=distributed.world_size(),
        restarts=job.restarts,
        protocol=catalogue.protocol(config.score, config.data, spec.fingerprints, config.sample),
        unavailable=catalogue.unavailable(config.score) if config.sample.clips else {},
        versions=provenance.versions(),
    )


def _reset_peak_memory() -> None:
    """A worker runs many trials, and the peak of each is its own. Not possible everywhere: then that of all so far."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)


def _peak_memory_gib() -> float:
    """Of this process since `_reset_peak_memory`: device memory on a GPU, resident memory elsewhere."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    with suppress(OSError):  # Linux
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _write(
    job: Job, result: TrialResult, state: dict[str, torch.Tensor], scored: Scored, tracker: Tracker, started: float
) -> TrialResult:
    """Adapter, features, scores and, last, the result with its size on disk and the overhead since `started`."""
    folder, config = job.folder, job.spec.config
    size = lora.save_adapter(folder.adapter, state, config.lora) if config.method is Method.lora else 0
    size += folder.adapter_file.stat().st_size if config.method is Method.adapter else 0
    if config.method is Method.full:  # not kept, but what a user of it would have to keep
        size = result.trainable_parameters * getattr(torch, config.model.dtype.value).itemsize
    write_scored(folder, scored)
    write_set_scores(folder, job.reference)
    shown = scored.clip_ids[: TRACKED_CLIPS * config.sample.clips]
    tracker.scores(scored.values, [folder.sample(clip) for clip in shown])
    overhead = time.perf_counter() - started - sum(result.seconds.values())
    result = replace(result, adapter_bytes=size, seconds=result.seconds | {"overhead": overhead})
    provenance.finish(folder)
    write_json(folder.result, result.to_json())
    for path in (folder.failed, folder.stop):
        path.unlink(missing_ok=True)
    drop_parts(folder)
    return result
