"""One trial from start to result: train, generate, score. The same code in a warm gang and in a process of its own.

In: a Job, filled encodings, a resident base. Out: everything in the trial's folder, with `result.json` written last.
Every worker of a gang runs this in step; worker 0 writes.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cinelora import distributed
from cinelora.core.config import Method, TrialConfig
from cinelora.core.files import write_json
from cinelora.core.records import TrialResult
from cinelora.data.windows import WindowPlan
from cinelora.features.results import ClipScore, drop_parts, write_set_scores
from cinelora.metrics import catalogue
from cinelora.training.checkpoint import StopSign
from cinelora.training.engine import build_engine, full_parameters, release
from cinelora.training.heldout import window_losses
from cinelora.training.loop import Report, Trained, train
from cinelora.trial import provenance
from cinelora.trial.job import Job
from cinelora.trial.resident import SPENT, ResidentModel
from cinelora.trial.scoring import generate_and_score, memorised, write_scored
from cinelora.trial.tracking import Tracker
from cinelora.wan import lora
from cinelora.wan.encoding import Encodings, grey_latent
from cinelora.wan.loading import write_weight_norms
from cinelora.wan.parallel import shared_tokens

HELDOUT_LOSS = "heldout_loss"  # a clip score like any other, so it is compared in pairs
TRACKED_CLIPS = 2  # videos a trial shows in W&B


def checked_adapter(parameters: lora.NamedParameters) -> tuple[dict[str, torch.Tensor], str]:
    """The full adapter and its hash. Raises RuntimeError if the workers of the gang disagree on it.

    Training on a wrong sub-group raises no error by itself: every worker then holds another adapter.
    """
    state = full_parameters(parameters)
    hashes = distributed.gather_objects(lora.adapter_hash(state))
    if len(set(hashes)) != 1:
        raise RuntimeError(f"workers ended with different adapters: {', '.join(h[:12] for h in hashes)}")
    return state, hashes[0]


def peak_memory_gib() -> float:
    """Of this process: device memory on a GPU, resident memory elsewhere."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _open_model(
    job: Job,
    base: ResidentModel,
    plan: WindowPlan,
    encodings: Encodings,
    report: Report,
    tracker: Tracker,
    stop: StopSign,
) -> tuple[Any, Trained | None]:
    """(what to call for a velocity, the training behind it)."""
    spec, config = job.spec, job.spec.config
    if config.method is not Method.base:
        folder = job.study.trial(spec.trial_id)
        trained = train(base.transformer, spec, encodings, plan, folder, report, tracker.log, stop)
        return trained.engine, trained
    if config.zero.stage == 3:  # the base may only fit sharded: an adapter at its zero start is the base exactly
        parameters = lora.attach(base.transformer, config.lora, config.seed)
        engine = build_engine(base.transformer, parameters, config.train, config.zero, config.model)
        return engine, Trained(engine, parameters, 0, None, 0.0, None)
    return base.transformer, None


def _grey(base: ResidentModel, config: TrialConfig) -> torch.Tensor:
    return grey_latent(base.vae, config.data.height, config.data.width)


def run_trial(
    job: Job, base: ResidentModel, report: Report, clock: Callable[[], float] = time.perf_counter
) -> TrialResult:
    """Run the trial to its result, resuming from its last checkpoint. Every worker returns the same result.

    Raises NonFiniteLoss, Stopped, RuntimeError (workers disagree), and whatever the disk raises.
    """
    spec, started = job.spec, clock()
    folder, plan = job.study.trial(spec.trial_id), job.windows()
    provenance.begin(job)
    order = [window.window_id for window in plan.heldout]
    encodings = Encodings(job.encodings, grey=_grey(base, spec.config) if spec.config.train.stills else None)
    tracker = Tracker(spec, job.tracking, job.study_name, job.study.wandb, active=distributed.rank() == 0)
    result, trained, stop, shared = None, None, StopSign(job.study.stop, folder.stop), ExitStack()
    try:
        shared.enter_context(shared_tokens(base.transformer, spec.config.model.sequence_workers))
        if distributed.rank() == 0:
            write_weight_norms(job.study.weight_norms(spec.fingerprints["model"]), base.transformer)
        if spec.config.first:
            lora.stack(base.transformer, job.study.trial(spec.config.first).adapter)
        model, trained = _open_model(job, base, plan, encodings, report, tracker, stop)
        seconds = {"train": trained.seconds if trained else 0.0}
        begun = clock()
        losses = window_losses(model, spec.config, encodings, plan.heldout)
        other = window_losses(model, spec.config, encodings, plan.other)
        seconds["evaluate"] = clock() - begun
        state, digest = checked_adapter(trained.parameters) if trained and trained.steps else ({}, "")
        mine, seconds["generate"], seconds["score"] = generate_and_score(
            job, base, model, plan, encodings, digest, report, stop
        )
        scored = mine.merge(distributed.gather_objects(mine), order)
        scored.rows += [ClipScore(name, HELDOUT_LOSS, loss) for name, loss in zip(order, losses, strict=True)]
        scored.rows += memorised(job.reference, scored)
        result = describe(job, trained, (losses, other), digest, len(scored.clip_ids), seconds)
        if distributed.rank() == 0:
            is_lora = spec.config.method is Method.lora
            size = lora.save_adapter(folder.adapter, state, spec.config.lora) if is_lora else 0
            write_scored(folder, scored)
            write_set_scores(folder, job.reference)
            tracker.scores(scored.rows, [folder.sample(clip) for clip in scored.clip_ids[:TRACKED_CLIPS]])
            seconds["overhead"] = clock() - started - sum(seconds.values())
            result = TrialResult(**{**result.to_json(), "adapter_bytes": size, "seconds": seconds})
            provenance.finish(folder)
            write_json(folder.result, result.to_json())
            for over in (folder.failed, folder.stop):
                over.unlink(missing_ok=True)
            drop_parts(folder)
        return result
    finally:
        tracker.finish(result)
        if trained is not None:
            release(trained.engine, trained.parameters)
        lora.detach(base.transformer)
        shared.close()
        if spec.config.method is Method.full:
            base.key = SPENT


def describe(
    job: Job,
    trained: Trained | None,
    losses: tuple[NDArray[np.float64], NDArray[np.float64]],
    digest: str,
    clips: int,
    seconds: dict[str, float],
) -> TrialResult:
    """The result record; `losses` are those of the held-out windows and of the split "other", which may be empty.

    Bytes on disk and overhead are filled in by the worker that writes.
    """
    spec, config = job.spec, job.spec.config
    is_lora = config.method is Method.lora
    return TrialResult(
        trial_id=spec.trial_id,
        method=config.method.value,
        arm=config.arm,
        rank=config.lora.rank if is_lora else 0,
        alpha=config.lora.effective_alpha if is_lora else 0.0,
        scale=config.lora.scale if is_lora else 0.0,
        scaling=config.lora.scaling.value,
        targets=config.lora.targets.value,
        learning_rate=config.train.learning_rate,
        seed=config.seed,
        steps=trained.steps if trained else 0,
        trainable_parameters=trained.trainable_parameters if trained and config.method is not Method.base else 0,
        adapter_bytes=0,
        adapter_sha256=digest,
        train_loss=trained.train_loss if trained else None,
        heldout_loss=float(losses[0].mean()),
        other_loss=float(losses[1].mean()) if len(losses[1]) else None,
        clips=clips,
        seconds=seconds,
        seconds_per_step=trained.seconds_per_step if trained else None,
        peak_memory_gib=peak_memory_gib(),
        world_size=distributed.world_size(),
        restarts=job.restarts,
        protocol=catalogue.protocol(config.score, config.data, spec.fingerprints, config.sample),
        unavailable=catalogue.unavailable(config.score),
        versions=provenance.versions(),
    )
