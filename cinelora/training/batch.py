"""What the denoiser is asked: noisy latents, times and conditions of some windows, and the velocity it should find.

In: encodings, windows, a config. Out: a Batch on the device. A training batch is a function of (seed, step, slot)
alone, so it is the same for every rank, gang size and micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from cinelora import distributed
from cinelora.core.config import TrialConfig
from cinelora.core.seeds import draw_noise, share_of, window_indices
from cinelora.data.encodings import NO_CAPTION
from cinelora.data.windows import Window, WindowPlan
from cinelora.training import flow
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import TORCH_DTYPE

MASK_CHANNELS = 4


@dataclass(frozen=True)
class Samples:
    """Clean latents (N, 16, T, h, w) and what the model is told of them: condition (N, 20, T, h, w), image, text."""

    clean: torch.Tensor
    condition: torch.Tensor
    image: torch.Tensor
    text: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Model inputs and target of some windows, on the device in the model's dtype (target float32)."""

    inputs: dict[str, torch.Tensor]
    target: torch.Tensor


def read_samples(encodings: Encodings, windows: list[Window], captions: list[str] | None = None) -> Samples:
    """Windows with their own captions, or with these."""
    return Samples(
        encodings.stack(windows, "latents"),
        encodings.stack(windows, "condition"),
        encodings.stack(windows, "image"),
        encodings.texts(captions or [w.caption for w in windows]),
    )


def as_stills(samples: Samples, grey: torch.Tensor) -> Samples:
    """Their first frames alone. The model sees no first frame, else there is nothing to learn: mask 0, grey.

    The VAE is causal, so the first latent is the encoding of the first frame; `grey` (16, 1, h, w) is that of a grey
    one. What is left of the frame is its caption and its image tokens.
    """
    first = samples.clean[:, :, :1]
    condition = torch.cat([torch.zeros_like(first[:, :MASK_CHANNELS]), grey.expand_as(first)], dim=1)
    return replace(samples, clean=first, condition=condition)


def make_batch(samples: Samples, noise: torch.Tensor, times: list[float], dtype: torch.dtype) -> Batch:
    """Noisy latents and conditions of N samples at times t; noise like the clean latents."""
    device = distributed.device_name()
    t = torch.tensor(times, dtype=torch.float32)
    noisy = torch.cat([flow.noised(samples.clean, noise, t), samples.condition], dim=1)
    inputs = {
        "hidden_states": noisy.to(device, dtype),
        "timestep": (t * flow.MODEL_TIME).to(device),
        "encoder_hidden_states": samples.text.to(device, dtype),
        "encoder_hidden_states_image": samples.image.to(device, dtype),
    }
    return Batch(inputs, flow.velocity(samples.clean, noise).to(device))


def training_batch(config: TrialConfig, encodings: Encodings, plan: WindowPlan, step: int, slots: range) -> Batch:
    """The windows, noise and times of these slots of one step: functions of (seed, step, slot) alone."""
    train, seed = config.train, config.seed
    picks = window_indices(seed, step, train.batch_size, len(plan.train))
    windows = [plan.train[picks[slot]] for slot in slots]
    dropped = [share_of(seed, "caption", step, slot) < train.caption_dropout for slot in slots]
    captions = [NO_CAPTION if drop else w.caption for w, drop in zip(windows, dropped, strict=True)]
    samples = read_samples(encodings, windows, captions)
    if share_of(seed, "stills", step) < train.stills:  # a whole step, since a batch has one shape
        assert encodings.grey is not None
        samples = as_stills(samples, encodings.grey)
    shape = tuple(samples.clean.shape[1:])
    noise = torch.stack([draw_noise(shape, seed, "noise", step, slot) for slot in slots])
    times = [flow.draw_time(train, seed, step, slot) for slot in slots]
    return make_batch(samples, noise, times, TORCH_DTYPE[config.model.dtype])


def predict(model: Any, batch: Batch) -> torch.Tensor:
    return model(**batch.inputs, return_dict=False)[0]


# ~ Do the next piece of work while the present one is in use, in order.

T = TypeVar("T")


def ahead(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of `jobs`; one thread is at most one job ahead. What a job raises is raised where it is due."""
    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting = None
        for job in jobs:
            coming = thread.submit(job)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
