"""Train one adapter on cached encodings: the loop, its log and its checkpoints.

In: a resident transformer, encodings, a TrialSpec. Out: the trained engine and a TrainSummary; on disk
`train.csv` (step, loss, heldout_loss, grad_norm, learning_rate, seconds) and `checkpoints/`.
Every worker of the gang runs this in step; worker 0 writes. "Step" is an optimiser step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cinelora import checkpoint, dist, flow, lora, zero
from cinelora.config import Method, Schedule, TrainConfig, TrialConfig
from cinelora.encode import Encodings
from cinelora.layout import TrialFolder
from cinelora.records import TrialSpec
from cinelora.seeds import window_indices
from cinelora.trainlog import TrainLog
from cinelora.wan import TORCH_DTYPE
from cinelora.windows import Window, WindowPlan

Report = Callable[[str, int, int, float | None], None]  # stage, done, total, loss
Mirror = Callable[[dict[str, float | None], int], None]  # a row of train.csv, step
HELDOUT_BATCH = 8  # windows at a time; fixed, so the loss does not depend on the gang


class NonFiniteLoss(RuntimeError):
    """Training diverged; what was computed until then stays on disk."""


@dataclass
class Trained:
    """A live engine with its adapter attached, and what its training says."""

    engine: Any
    parameters: lora.NamedParameters
    steps: int
    train_loss: float | None
    heldout_loss: float | None
    other_loss: float | None
    seconds: float  # wall time of the loop in this run: steps, held-out losses, checkpoints
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


@dataclass(frozen=True)
class Batch:
    """Model inputs and target of some windows, on the device in the model's dtype (target float32)."""

    inputs: dict[str, torch.Tensor]
    target: torch.Tensor


def make_batch(
    encodings: Encodings, windows: list[Window], noise: torch.Tensor, times: list[float], dtype: torch.dtype
) -> Batch:
    """Noisy latents and conditions of N windows at times t; noise (N, 16, T, h, w)."""
    device = dist.device_name()
    clean = encodings.stack(windows, "latents")
    t = torch.tensor(times, dtype=torch.float32)
    noisy = torch.cat([flow.noised(clean, noise, t), encodings.stack(windows, "condition")], dim=1)
    inputs = {
        "hidden_states": noisy.to(device, dtype),
        "timestep": (t * flow.MODEL_TIME).to(device),
        "encoder_hidden_states": encodings.texts([w.caption for w in windows]).to(device, dtype),
        "encoder_hidden_states_image": encodings.stack(windows, "image").to(device, dtype),
    }
    return Batch(inputs, flow.velocity(clean, noise).to(device))


def training_batch(config: TrialConfig, encodings: Encodings, plan: WindowPlan, step: int, slots: range) -> Batch:
    """The windows, noise and times of these slots of one step: functions of (seed, step, slot) alone."""
    picks = window_indices(config.seed, step, config.train.batch_size, len(plan.train))
    windows = [plan.train[picks[slot]] for slot in slots]
    shape = tuple(encodings.stack(windows[:1], "latents").shape[1:])
    noise = torch.stack([flow.draw_noise(shape, config.seed, "noise", step, slot) for slot in slots])
    times = [flow.draw_time(config.train, config.seed, step, slot) for slot in slots]
    return make_batch(encodings, windows, noise, times, TORCH_DTYPE[config.model.dtype])


def my_micro_batches(train: TrainConfig) -> list[range]:
    """This worker's slots of a step, cut into micro-batches."""
    share, micro = train.batch_size // dist.world_size(), zero.micro_batch(train, dist.world_size())
    first = dist.rank() * share
    return [range(start, start + micro) for start in range(first, first + share, micro)]


def predict(model: Any, batch: Batch) -> torch.Tensor:
    return model(**batch.inputs, return_dict=False)[0]


@torch.no_grad()
def heldout_loss(model: Any, config: TrialConfig, encodings: Encodings, windows: Sequence[Window]) -> float:
    """Mean flow loss on the first `train.heldout_windows` of `windows`, at five fixed times.

    The noise is keyed by window and time: the same for all trials of a study.

    Batches are dealt to workers round robin; a worker without one repeats the first and does not count it,
    because ZeRO-3 needs every worker in every forward.
    """
    windows = windows[: config.train.heldout_windows]
    chunks = [list(windows[i : i + HELDOUT_BATCH]) for i in range(0, len(windows), HELDOUT_BATCH)]
    jobs = [(chunk, t) for chunk in chunks for t in flow.HELDOUT_TIMES]
    total = torch.zeros(2, dtype=torch.float64)
    for turn in range(math.ceil(len(jobs) / dist.world_size())):
        mine = turn * dist.world_size() + dist.rank()
        chunk, t = jobs[mine if mine < len(jobs) else 0]
        shape = tuple(encodings.stack(chunk[:1], "latents").shape[1:])
        noise = torch.stack([flow.draw_noise(shape, "heldout", w.window_id, str(t)) for w in chunk])
        batch = make_batch(encodings, chunk, noise, [t] * len(chunk), TORCH_DTYPE[config.model.dtype])
        losses = flow.sample_losses(predict(model, batch), batch.target).double().cpu()
        if mine < len(jobs):
            total += torch.stack([losses.sum(), torch.tensor(float(len(losses)), dtype=torch.float64)])
    total = dist.sum_over_workers(total)
    return float(total[0] / total[1])


def heldout_and_other_loss(
    model: Any, config: TrialConfig, encodings: Encodings, plan: WindowPlan
) -> tuple[float, float | None]:
    """(loss on held-out windows, loss on the split "other" or None where the dataset has none)."""
    other = heldout_loss(model, config, encodings, plan.other) if plan.other else None
    return heldout_loss(model, config, encodings, plan.heldout), other


def unfreeze(transformer: Any) -> lora.NamedParameters:
    """Every weight of the denoiser, to be trained without an adapter."""
    transformer.requires_grad_(True)
    return sorted(transformer.named_parameters())


def prepare(transformer: Any, spec: TrialSpec, folder: TrialFolder) -> tuple[Any, lora.NamedParameters, int]:
    """Attach the adapter and build its engine, from the last checkpoint if there is one: (.., steps done)."""
    config = spec.config
    if config.method is Method.full:
        parameters = unfreeze(transformer)
    else:
        parameters = lora.attach(transformer, config.lora, config.seed)
    path = dist.gather_objects(checkpoint.latest(folder.checkpoints))[0]  # one worker's view for all
    state, done = checkpoint.load(path, spec.trial_id) if path else ({}, 0)
    if state:
        zero.load_parameters(parameters, state)
    engine = zero.build_engine(transformer, parameters, config.train, config.zero, config.model.dtype)
    if config.train.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    else:
        transformer.disable_gradient_checkpointing()  # the trial before may have had it
    if state:
        zero.restore_state(engine, parameters, state, done)
    return engine, parameters, done


def optimiser_step(engine: Any, config: TrialConfig, encodings: Encodings, plan: WindowPlan, step: int) -> float:
    """One whole step over this worker's micro-batches; returns the mean loss of the gang."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate(config.train, step)
    total = torch.zeros(1, dtype=torch.float64)
    slots = my_micro_batches(config.train)
    for micro in slots:
        batch = training_batch(config, encodings, plan, step, micro)
        loss = flow.sample_losses(predict(engine, batch), batch.target).mean()
        engine.backward(loss)
        total += loss.detach().double().cpu()
        if micro != slots[-1]:
            engine.step()  # accumulates; the last one, which updates, is the caller's
    return float(dist.sum_over_workers(total)) / (len(slots) * dist.world_size())


def train(
    transformer: Any,
    spec: TrialSpec,
    encodings: Encodings,
    plan: WindowPlan,
    folder: TrialFolder,
    report: Report,
    mirror: Mirror,
) -> Trained:
    """Run the loop from the last checkpoint to `train.steps`; `mirror` sees every row of the log.

    Raises NonFiniteLoss when the loss is NaN or infinite.
    """
    config, settings = spec.config, spec.config.train
    engine, parameters, done = prepare(transformer, spec, folder)
    begun = time.perf_counter()
    log = TrainLog(folder.train_csv, done, write=dist.rank() == 0, mirror=mirror)
    heldout = log.last_heldout
    if done == 0:
        heldout = heldout_loss(engine, config, encodings, plan.heldout)
        log.write(0, None, heldout, None, learning_rate(settings, 0), 0.0)
    for step in range(done, settings.steps):
        started = time.perf_counter()
        loss = optimiser_step(engine, config, encodings, plan, step)
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"step {step + 1}: loss is {loss}; lower train.learning_rate={settings.learning_rate}")
        norm = zero.local_gradient_norm(parameters) if config.zero.stage == 0 else None
        engine.step()
        norm = norm if norm is not None else engine.get_global_grad_norm()
        elapsed = time.perf_counter() - started
        finished = step + 1

        # once in a while: held-out loss (all workers)
        now = None
        if finished % settings.heldout_every == 0 or finished == settings.steps:
            now = heldout = heldout_loss(engine, config, encodings, plan.heldout)
        log.write(finished, loss, now, norm, learning_rate(settings, step), elapsed)
        report("train", finished, settings.steps, loss)

        # once in a while: checkpoint (all workers gather, worker 0 writes)
        if finished % settings.checkpoint_every == 0 or finished == settings.steps:
            state = zero.gather_state(engine, parameters)
            if dist.rank() == 0:
                checkpoint.save(folder.checkpoints, state, finished, spec.trial_id)
    other = heldout_loss(engine, config, encodings, plan.other) if plan.other else None
    last = log.mean_last_tenth(settings.steps)
    seconds = time.perf_counter() - begun
    return Trained(engine, parameters, settings.steps, last, heldout, other, seconds, log.median_seconds)
