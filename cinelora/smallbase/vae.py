"""Train the small video autoencoder on varied synthetic clips, drawn as needed, always 17 frames long.

In: steps, a state folder. Out: `vae.safetensors` (weights, AdamW moments, step) and `vae.csv` there; the weights.
Loss: absolute and squared error, absolute error of the differences between neighbouring pixels and frames, and the
KL divergence of the latents from the standard normal. Crops first, whole pictures at the end. An autoencoder trained
on 9 frames drifted in colour after the ninth, so the log has the PSNR of the worst frame as well as the mean.
Training runs the causal network over the whole clip at once, equal to the chunks of `AutoencoderKLWan` to 1e-5 and
faster: every layer is causal, so only the layers that change the frame rate need their first frame set apart.
Legend: B clips, F = 4n+1 frames, H, W pixels; video float (B, 3, F, H, W) in -1..1, latents (B, 16, n+1, H/8, W/8).
"""

from __future__ import annotations

import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from numpy.typing import NDArray

from cinelora.data.synthetic import STUDIED, make_clip
from cinelora.smallbase.model import new_vae
from cinelora.smallbase.optimiser import Training, TrainingLog, decayed, random_for
from cinelora.wan.encoding import pixels


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


def encode_moments(vae: Any, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log-variance of the posterior, each (B, 16, T, h, w), not normalised."""
    moments = vae.quant_conv(vae.encoder(patchify(video, patch_size=vae.config.patch_size)))
    mean, logvar = moments.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def decode_pixels(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Video (B, 3, F, H, W) of latents that are not normalised; not clamped, so that gradients pass."""
    video = vae.decoder(vae.post_quant_conv(latents), first_chunk=True)
    return unpatchify(video, patch_size=vae.config.patch_size)


PEAK_RATE = 3e-3
TRAIN_SEED, HELDOUT_SEED = 1000, 77
HELDOUT_CLIPS = 16  # per domain
FILM_SHARE = 0.3  # the autoencoder must hold dim and framed pictures; the denoiser sees no film
CROP = 32  # pixels a side
WHOLE_FROM = 0.85  # of the steps; whole pictures from then on
CROPS, WHOLES = 8, 2  # clips per worker and step
SQUARE, EDGES, KL = 2.0, 0.3, 1e-4  # weights; that of the absolute error is 1


def draw_batch(random: np.random.Generator, whole: bool) -> NDArray[np.uint8]:
    """Training clips uint8 (B, F, H, W, 3), mirrored at random, cut to CROP unless `whole`."""
    clips = []
    for _ in range(WHOLES if whole else CROPS):
        domain = "varied film" if random.random() < FILM_SHARE else "varied"
        clip, _ = make_clip(domain, TRAIN_SEED, int(random.integers(1 << 30)))
        if not whole:
            top, left = (int(random.integers(0, side - CROP + 1)) for side in clip.shape[1:3])
            clip = clip[:, top : top + CROP, left : left + CROP]
        down, across = random.choice((-1, 1), 2)
        clips.append(clip[:, ::down, ::across])
    return np.stack(clips)


def vae_loss(vae: Any, video: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The loss that the head of this file describes; `noise` is standard normal in the latents' shape."""
    with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):  # slower than float32 on most CPUs
        mean, logvar = encode_moments(vae, video)
        decoded = decode_pixels(vae, mean + torch.exp(0.5 * logvar) * noise)
    error, mean, logvar = decoded.float() - video, mean.float(), logvar.float()
    edges = sum(error.diff(dim=axis).abs().mean() for axis in (-1, -2, -3))
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    square = error.square().mean()
    return error.abs().mean() + SQUARE * square + EDGES * edges + KL * divergence


@torch.no_grad()
def frame_psnr(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """dB of each frame, mean over clips, (F,), of video through a whole-clip autoencoder and back."""
    squares = []
    for part in video.split(8):
        decoded = decode_pixels(vae, encode_moments(vae, part)[0]).clamp(-1, 1)
        squares.append(((decoded - part) / 2).square().mean((1, 3, 4)))
    return (-10 * torch.log10(torch.cat(squares).clamp_min(1e-8))).mean(0)


def measure(vae: Any, heldout: dict[str, torch.Tensor]) -> dict[str, float]:
    """Mean PSNR, and that of the worst frame, of each domain."""
    found: dict[str, float] = {}
    for domain, video in heldout.items():
        by_frame = frame_psnr(vae, video)
        found |= {f"{domain}_db": float(by_frame.mean()), f"{domain}_worst_frame_db": float(by_frame.min())}
    return found


def train_vae(state: Path, steps: int, seed: int) -> dict[str, torch.Tensor]:
    """Train, or resume, up to `steps`; returns the weights, on the CPU."""
    vae = whole_clip(new_vae())
    training = Training(state / "vae.safetensors", list(vae.named_parameters()), betas=(0.9, 0.99), decay=1e-4)
    vae.to(training.device)
    heldout = {}
    for domain in STUDIED:
        clips = np.stack([make_clip(domain, HELDOUT_SEED, i)[0] for i in range(HELDOUT_CLIPS)])
        heldout[domain] = pixels(clips).to(training.device)
    log = TrainingLog(state / "vae.csv", training.step, steps)
    for step in range(training.step, steps):
        random = random_for(seed, "vae", step, training.worker)
        video = pixels(draw_batch(random, whole=step >= WHOLE_FROM * steps))
        shape = (len(video), 16, (video.shape[2] - 1) // 4 + 1, video.shape[3] // 8, video.shape[4] // 8)
        noise = torch.from_numpy(random.standard_normal(shape)).float()
        loss = vae_loss(vae, video.to(training.device), noise.to(training.device))
        training.update(loss, decayed(PEAK_RATE, step, steps, warmup=60, hold=0.4))
        log.tick(step + 1, loss.item(), partial(measure, vae, heldout))
        training.checkpoint(step + 1, steps)
    return {name: tensor.detach().cpu() for name, tensor in vae.state_dict().items()}
