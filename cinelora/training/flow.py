"""Rectified flow as Wan2.1 is trained: pure tensor maths, no I/O, no device moves.

Shapes: B samples, C=16 latent channels, T latent frames, H, W latent rows and columns.
x_t = (1 - t) x_0 + t noise, target v = noise - x_0, the model is given 1000 t
(Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206, section 3).
"""

from __future__ import annotations

import torch

from cinelora.core.config import TimestepDistribution, TrainConfig
from cinelora.core.seeds import generator

MODEL_TIME = 1000.0  # the model's time unit
HELDOUT_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def shift_time(u: float, shift: float) -> float:
    """s(u) = shift u / (1 + (shift - 1) u), u in [0, 1] (arXiv 2403.03206, equation 23)."""
    return shift * u / (1 + (shift - 1) * u)


def draw_time(config: TrainConfig, seed: int, step: int, slot: int) -> float:
    """t in (0, 1) of sample `slot` of optimiser step `step`, by the configured distribution and shift."""
    random = generator(seed, "timestep", step, slot)
    if config.timestep is TimestepDistribution.uniform:
        u = float(torch.rand((), generator=random, dtype=torch.float64))
    else:
        normal = torch.randn((), generator=random, dtype=torch.float64)
        u = float(torch.sigmoid(config.logit_mean + config.logit_std * normal))
    return shift_time(u, config.shift)


def noised(clean: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """x_t for clean, noise (B, C, T, H, W) and times (B,)."""
    t = times.view(-1, 1, 1, 1, 1)
    return (1 - t) * clean + t * noise


def velocity(clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The regression target noise - x_0."""
    return noise - clean


def sample_losses(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each sample, (B,), in float32."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)
