"""The Wan autoencoder on a whole clip at once, equal to the chunks of `AutoencoderKLWan` (to 1e-5) and faster to train.

In: an AutoencoderKLWan, video (B, 3, F=4n+1, H, W) in -1..1 or latents (B, 16, n+1, H/8, W/8). Out: latents or video.
The stock class runs one latent frame after another with a cache; every layer is causal, so one pass over the clip
is the same function: only the layers that change the frame rate need their first frame set apart.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify


def _resample(self: Any, x: torch.Tensor, feat_cache: Any = None, feat_idx: Any = None) -> torch.Tensor:
    """WanResample over all frames: the first frame never passes the temporal convolution."""
    if self.mode == "upsample3d" and x.shape[2] > 1:
        later = self.time_conv(x[:, :, 1:])
        b, _, t, h, w = later.shape
        later = later.reshape(b, 2, -1, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, -1, 2 * t, h, w)
        x = torch.cat([x[:, :, :1], later], dim=2)
    b, _, t, _, _ = x.shape
    x = self.resample(x.transpose(1, 2).flatten(0, 1))
    x = x.unflatten(0, (b, t)).transpose(1, 2)
    if self.mode == "downsample3d" and t > 1:
        x = torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)
    return x


def whole_clip(vae: Any) -> Any:
    """Make `encode_moments` and `decode_pixels` work on this autoencoder; its own `encode` no longer does."""
    for module in vae.modules():
        if isinstance(module, WanResample):
            module.__dict__["forward"] = types.MethodType(_resample, module)
    return vae


def stock(vae: Any) -> Any:
    """Undo `whole_clip`."""
    for module in vae.modules():
        if isinstance(module, WanResample):
            module.__dict__.pop("forward", None)
    return vae


def encode_moments(vae: Any, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log-variance of the posterior, each (B, 16, T, h, w), not normalised."""
    moments = vae.quant_conv(vae.encoder(patchify(video, patch_size=vae.config.patch_size)))
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def decode_pixels(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Video (B, 3, F, H, W) of latents that are not normalised; not clamped, so that gradients pass."""
    video = vae.decoder(vae.post_quant_conv(latents), first_chunk=True)
    return unpatchify(video, patch_size=vae.config.patch_size)
