"""What the denoiser is asked: noisy latents, times and conditions of some windows, and the velocity it should find.

In: encodings, windows, a config. Out: a Batch on the device. A training batch is a function of (seed, step, slot)
alone, so it is the same for every rank, gang size and micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cinelora import dist, flow
from cinelora.config import TrialConfig
from cinelora.encode import Encodings
from cinelora.seeds import window_indices
from cinelora.wan import TORCH_DTYPE
from cinelora.windows import Window, WindowPlan


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


def predict(model: Any, batch: Batch) -> torch.Tensor:
    return model(**batch.inputs, return_dict=False)[0]
