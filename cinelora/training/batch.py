"""Inputs of the denoiser (noisy latents, times, conditions) for some windows, and the velocity it should predict.

In: encodings, windows, a config. Out: a Batch on the device. A training batch is a function of (seed, step, slot)
alone, so it is the same for every rank, gang size and micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from cinelora import distributed
from cinelora.core.config import TrialConfig
from cinelora.core.seeds import draw_noise, share_of, window_indices
from cinelora.data.encodings import NO_CAPTION
from cinelora.data.windows import WindowPlan
from cinelora.training import flow
from cinelora.wan.encoding import Conditions, Encodings
from cinelora.wan.loading import TORCH_DTYPE
from cinelora.wan.sampler import predict_velocity

MASK_CHANNELS = 4


@dataclass(frozen=True)
class Batch:
    """What the model sees of N samples, on the device in the model's dtype, and the float32 velocity it should find.

    `noisy` latents and `target` are (N, 16, T, h, w), `times` (N,) in 0..1000.
    """

    noisy: torch.Tensor
    times: torch.Tensor
    conditions: Conditions
    target: torch.Tensor

    def losses(self, model: Any) -> torch.Tensor:
        """Flow loss of each sample, (N,), in float32."""
        return flow.sample_losses(predict_velocity(model, self.noisy, self.times, self.conditions), self.target)


def make_batch(
    clean: torch.Tensor, conditions: Conditions, noise: torch.Tensor, times: list[float], dtype: torch.dtype
) -> Batch:
    """From N clean latents (N, 16, T, h, w), noise of that shape, and times t in (0, 1)."""
    device, t = distributed.device_name(), torch.tensor(times, dtype=torch.float32)
    return Batch(
        flow.noised(clean, noise, t).to(device, dtype),
        (t * flow.MODEL_TIME).to(device),
        conditions.to(device, dtype),
        flow.velocity(clean, noise).to(device),
    )


def training_batch(config: TrialConfig, encodings: Encodings, plan: WindowPlan, step: int, slots: range) -> Batch:
    """The windows, noise and times of these slots of one step: functions of (seed, step, slot) alone."""
    train, seed = config.train, config.seed
    picks = window_indices(seed, step, train.batch_size, len(plan.train))
    windows = [plan.train[picks[slot]] for slot in slots]
    dropped = [share_of(seed, "caption", step, slot) < train.caption_dropout for slot in slots]
    captions = [NO_CAPTION if drop else w.caption for w, drop in zip(windows, dropped, strict=True)]
    clean, conditions = encodings.latents(windows), encodings.conditions(windows, captions)
    if share_of(seed, "stills", step) < train.stills:  # a whole step, since a batch has one shape
        assert encodings.grey is not None
        clean, conditions = as_stills(clean, conditions, encodings.grey)
    shape = tuple(clean.shape[1:])
    noise = torch.stack([draw_noise(shape, seed, "noise", step, slot) for slot in slots])
    times = [flow.draw_time(train, seed, step, slot) for slot in slots]
    return make_batch(clean, conditions, noise, times, TORCH_DTYPE[config.model.dtype])


def as_stills(clean: torch.Tensor, conditions: Conditions, grey: torch.Tensor) -> tuple[torch.Tensor, Conditions]:
    """The first frames alone; the condition is a grey frame with mask 0, else there would be nothing to learn.

    The VAE is causal, so the first latent encodes the first frame; `grey` (16, 1, h, w) encodes a grey one. The caption
    and the image tokens stay.
    """
    first = clean[:, :, :1]
    frame = torch.cat([torch.zeros_like(first[:, :MASK_CHANNELS]), grey.expand_as(first)], dim=1)
    return first, replace(conditions, frame=frame)


T = TypeVar("T")


def prefetch(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of `jobs`, in order; one thread works at most one job ahead.

    What a job raises is raised where its result is due.
    """
    with ThreadPoolExecutor(1, "prefetch") as thread:
        waiting: list[Future[T]] = []
        for job in jobs:
            waiting.append(thread.submit(job))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        for last in waiting:
            yield last.result()
