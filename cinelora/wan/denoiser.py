"""One pass of the denoiser, bare or inside an engine, as training, evaluation and generation call it.

In: noisy latents, times, and the Conditions of N clips. Out: the velocity that the model predicts.
Legend: N clips; T latent frames of h x w latent pixels; S image tokens; D width of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Conditions:
    """What the denoiser sees of N clips besides their noisy latents. The dtype is the one it computes in.

    Attributes:
        frame: mask and first frame (N, 20, T, h, w), see `cinelora.wan.encoding.condition_latents`.
        image: image tokens of the first frame (N, S, D).
        text: states of the caption (N, 512, D).
    """

    frame: torch.Tensor
    image: torch.Tensor
    text: torch.Tensor

    def to(self, device: str, dtype: torch.dtype) -> Conditions:
        return Conditions(*(each.to(device, dtype) for each in (self.frame, self.image, self.text)))


def predict_velocity(model: Any, noisy: torch.Tensor, times: torch.Tensor, conditions: Conditions) -> torch.Tensor:
    """Velocity (N, 16, T, h, w) at noisy latents of that shape and times (N,) in 0..1000."""
    return model(
        hidden_states=torch.cat([noisy.to(conditions.frame.dtype), conditions.frame], dim=1),
        timestep=times,
        encoder_hidden_states=conditions.text,
        encoder_hidden_states_image=conditions.image,
        return_dict=False,
    )[0]
