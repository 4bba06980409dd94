"""Train one adapter on cached encodings: the loop, its log and its checkpoints.

In: a resident transformer, encodings, a TrialSpec. Out: a Trained with the live engine; on disk
`train.csv` (step, loss, heldout_loss, grad_norm, learning_rate, seconds) and `checkpoints/`.
Every worker of the gang runs this in step; worker 0 writes. "Step" is an optimiser step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from cinelora import distributed
from cinelora.core.config import Method, Schedule, TrainConfig, TrialConfig
from cinelora.core.paths import TrialFolder
from cinelora.core.records import TrialSpec
from cinelora.data.windows import WindowPlan
from cinelora.training import checkpoint
from cinelora.training.batch import Batch, prefetch, training_batch
from cinelora.training.checkpoint import Stopped, StopSign
from cinelora.training.clock import clock
from cinelora.training.engine import (
    backward,
    build_engine,
    gather_state,
    load_parameters,
    local_gradient_norm,
    micro_batch,
    release,
    restore_state,
)
from cinelora.training.heldout import window_losses
from cinelora.training.log import Mirror, TrainLog
from cinelora.wan import lora
from cinelora.wan.acceleration import checkpoint_blocks
from cinelora.wan.attention import as_chosen
from cinelora.wan.encoding import Encodings

Report = Callable[[str, int, int, float | None], None]  # stage, done, total, loss


class NonFiniteLoss(RuntimeError):
    """Training diverged; the log and the checkpoints so far stay on disk."""


@dataclass
class Trained:
    """A live engine with its adapter attached, and the figures of its training."""

    engine: Any
    parameters: lora.NamedParameters
    steps: int
    train_loss: float | None
    seconds: float  # of the loop (steps, held-out losses, checkpoints) but compiling, and `seconds_before`
    seconds_before: float  # of the steps that earlier runs of the trial did
    seconds_per_step: float | None

    @property
    def trainable_parameters(self) -> int:
        return sum(getattr(p, "ds_numel", p.numel()) for _, p in self.parameters)


def learning_rate(train: TrainConfig, step: int) -> float:
    """Rate of 0-based step `step`: linear warm-up, then constant, or linear or cosine decay to 0."""
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    done = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    factor = {
        Schedule.constant: 1.0,
        Schedule.linear: 1 - done,
        Schedule.cosine: 0.5 * (1 + math.cos(math.pi * done)),
    }[train.schedule]
    return train.learning_rate * factor


def my_micro_batches(train: TrainConfig, group: distributed.DataGroup) -> list[range]:
    """The slots of a step that a data group computes, in micro-batches."""
    share, micro = train.batch_size // group.count, micro_batch(train, group.count)
    first = group.index * share
    return [range(start, start + micro) for start in range(first, first + share, micro)]


def prepare(transformer: Any, spec: TrialSpec, folder: TrialFolder) -> tuple[Any, lora.NamedParameters, int]:
    """(engine, its parameters, steps done): with an adapter attached, from the last checkpoint if there is one."""
    config = spec.config
    if config.method is Method.full:
        parameters = sorted(transformer.requires_grad_(True).named_parameters())
    else:
        parameters = lora.attach(transformer, config.lora, config.seed)
    path = distributed.gather_objects(checkpoint.latest(folder.checkpoints))[0]  # all resume from the same one
    state, done = checkpoint.load(path, spec.trial_id) if path else ({}, 0)
    if state:
        load_parameters(parameters, state)
    engine = build_engine(transformer, parameters, config.train, config.zero, config.model)
    checkpoint_blocks(transformer, config.train.checkpointing, config.train.checkpointed_blocks, config.zero.stage)
    if state:
        restore_state(engine, parameters, state, done)
    return engine, parameters, done


def optimiser_step(
    engine: Any, config: TrialConfig, batches: Iterator[Batch], step: int, stop: bool
) -> tuple[float, bool]:
    """This worker's micro-batches of one step; (mean loss of the gang, whether any worker has seen the stop sign).

    Workers may see the sign at different times, so they agree on it when they sum the loss. The engine averages the
    gradients of all workers, but those of workers that share tokens are parts of a sum: hence the factor.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate(config.train, step)
    total = torch.tensor([0.0, float(stop)], dtype=torch.float64)  # loss, stop
    sharers = config.model.sequence_workers
    mine = distributed.data_group(sharers)
    count = len(my_micro_batches(config.train, mine))
    for turn in range(count):
        loss = next(batches).losses(engine).mean()
        with as_chosen(engine):
            backward(engine, loss * sharers, last=turn == count - 1)  # the step itself is the caller's
        total[0] += loss.detach().double().cpu() * mine.leads
    loss_sum, stops = distributed.sum_over_workers(total).tolist()
    return loss_sum / (count * mine.count), stops > 0


def my_batches(config: TrialConfig, encodings: Encodings, plan: WindowPlan, steps: range) -> Iterator[Batch]:
    """This worker's micro-batches of these steps, in order."""
    slots = my_micro_batches(config.train, distributed.data_group(config.model.sequence_workers))
    return prefetch(partial(training_batch, config, encodings, plan, step, micro) for step in steps for micro in slots)


def train(
    transformer: Any,
    spec: TrialSpec,
    encodings: Encodings,
    plan: WindowPlan,
    folder: TrialFolder,
    report: Report,
    mirror: Mirror,
    stop: StopSign,
) -> Trained:
    """Run the loop from the last checkpoint to `train.steps`; `mirror` sees every row of the log.

    Raises NonFiniteLoss when the loss is NaN or infinite, Stopped after the checkpoint once `stop` returns true.
    """
    config, settings = spec.config, spec.config.train
    engine, parameters, done = prepare(transformer, spec, folder)
    begun = clock()
    log = TrainLog(folder.train_csv, done, write=distributed.rank() == 0, mirror=mirror)
    before = log.seconds
    watched = plan.heldout[: settings.heldout_windows]
    batches = my_batches(config, encodings, plan, range(done, settings.steps))

    def heldout_loss(finished: int, loss: float | None) -> float:
        """Each pass is a sign of life in the progress of the step."""
        losses = window_losses(
            engine, config, encodings, watched, lambda *_: report("train", finished, settings.steps, loss)
        )
        return float(losses.mean())

    if done == 0:
        heldout = heldout_loss(0, None)
        log.write(0, None, heldout, None, learning_rate(settings, 0), 0.0)
    for step in range(done, settings.steps):
        started = clock()
        loss, stopping = optimiser_step(engine, config, batches, step, stop())
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"step {step + 1}: loss is {loss}; lower train.learning_rate={settings.learning_rate}")
        norm = local_gradient_norm(parameters) if config.zero.stage == 0 else None
        engine.step()
        norm = norm if norm is not None else engine.get_global_grad_norm()
        elapsed = clock() - started
        finished = step + 1

        # once in a while: held-out loss (all workers)
        now = None
        if finished % settings.heldout_every == 0 or finished == settings.steps:
            now = heldout_loss(finished, loss)
        log.write(finished, loss, now, norm, learning_rate(settings, step), round(elapsed, 6))
        report("train", finished, settings.steps, loss)

        # once in a while, and before leaving: checkpoint (all workers gather, worker 0 writes)
        if stopping or finished % settings.checkpoint_every == 0 or finished == settings.steps:
            state = gather_state(engine, parameters)
            if distributed.rank() == 0:
                checkpoint.save(folder.checkpoints, state, finished, spec.trial_id)
        if stopping:
            release(engine, parameters)  # the next trial gets the base unchanged
            raise Stopped(f"stopped after step {finished} of {settings.steps}")
    last = log.mean_last_tenth(settings.steps)
    seconds = before + clock() - begun
    return Trained(engine, parameters, settings.steps, last, seconds, before, log.median_seconds)
