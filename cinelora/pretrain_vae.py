"""Train the small video autoencoder on clips made on the fly.

In: a folder for checkpoints, a budget. Out: `vae.safetensors`, `vae.csv` there; `measure_statistics` gives the
per-channel mean and spread of the latents, which belong in its config. How to run: `python -m cinelora.pretrain`.
Legend: B clips, F=17 frames, H, W pixels; video float (B, 3, F, H, W) in -1..1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan

from cinelora import wan
from cinelora.pretrain_loop import Budget, average, optimisers, rank, train, world
from cinelora.seeds import counter_seed, generator
from cinelora.synthetic import make_clip
from cinelora.wholeclip import decode_pixels, encode_moments, stock, whole_clip

CONFIG: dict[str, Any] = {
    "z_dim": 16,
    "base_dim": 24,
    "decoder_base_dim": 24,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "is_residual": True,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
PEAK = 2e-3
TRAIN_SEED, HELDOUT_SEED = 7, 1007  # no study uses either
FILM_SHARE = 0.25  # film clips of the training seed: the autoencoder must hold them, the denoiser never sees them
SHUFFLED_SHARE = 0.15  # with colour channels permuted, so that colours outside the palette are held too
CROP = 32  # pixels, until WHOLE_FROM of the time; then whole pictures
WHOLE_FROM = 0.72
BATCH = {False: 4, True: 2}  # clips per process and step, crops and whole pictures
KL_WEIGHT, EDGE_WEIGHT = 2e-4, 0.5


def build(seed: int) -> Any:
    """An untrained autoencoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(counter_seed(seed, "vae"))
        return AutoencoderKLWan(**CONFIG)


def clips(step: int, count: int, crop: int | None) -> np.ndarray:
    """Fresh training clips of this step and process, uint8 (count, F, H, W, 3)."""
    out = []
    for slot in range(count):
        index = (step * 64 + slot) * 64 + rank()
        random = np.random.default_rng(counter_seed(TRAIN_SEED, "augment", index))
        clip, _ = make_clip("film" if random.uniform() < FILM_SHARE else "source", TRAIN_SEED, index)
        if random.uniform() < SHUFFLED_SHARE:
            clip = clip[..., random.permutation(3)]
        if crop is not None:
            top, left = random.integers(0, clip.shape[1] - crop + 1), random.integers(0, clip.shape[2] - crop + 1)
            clip = clip[:, top : top + crop, left : left + crop]
        out.append(clip)
    return np.stack(out)


def edges(video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbours across and down."""
    return video[..., 1:] - video[..., :-1], video[..., 1:, :] - video[..., :-1, :]


def loss(vae: Any, video: torch.Tensor, noise_seed: int) -> torch.Tensor:
    """Absolute error of pixels and of edges, and a slight pull of the latents to the normal."""
    with torch.autocast(video.device.type, dtype=torch.bfloat16):
        mean, logvar = encode_moments(vae, video.contiguous(memory_format=torch.channels_last_3d))
        mean, logvar = mean.float(), logvar.float()
        noise = torch.randn(mean.shape, generator=generator(noise_seed, "posterior")).to(mean)
        output = decode_pixels(vae, mean + torch.exp(0.5 * logvar) * noise)
    output = output.float()
    pixel = F.l1_loss(output, video)
    edge = sum((a - b).abs().mean() for a, b in zip(edges(output), edges(video), strict=True))
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return pixel + EDGE_WEIGHT * edge + KL_WEIGHT * divergence


def frame_psnr(truth: np.ndarray, made: np.ndarray) -> np.ndarray:
    """PSNR in dB of each frame, (N, F), of uint8 (N, F, H, W, 3)."""
    error = np.square(truth.astype(np.float32) - made.astype(np.float32)).mean(axis=(2, 3, 4))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-3))


@torch.no_grad()
def reconstruct(vae: Any, frames: np.ndarray, batch: int = 8) -> np.ndarray:
    """uint8 (N, F, H, W, 3) through a whole-clip autoencoder and back, at the posterior's mean."""
    out = []
    for start in range(0, len(frames), batch):
        video = wan.pixels(frames[start : start + batch]).to(vae.device)
        out.append(wan.to_uint8(decode_pixels(vae, encode_moments(vae, video)[0])))
    return np.concatenate(out)


def heldout(domain: str, count: int) -> np.ndarray:
    """Clips that training never makes, uint8 (count, F, H, W, 3)."""
    return np.stack([make_clip(domain, HELDOUT_SEED, i)[0] for i in range(count)])


def scores(vae: Any, count: int = 12) -> dict[str, float]:
    """Mean PSNR of both domains and the drift over time (last four frames less frames 2 to 5), in dB."""
    out = {}
    for domain in ("source", "film"):
        frames = heldout(domain, count)
        by_frame = frame_psnr(frames, reconstruct(vae, frames)).mean(0)
        out[f"{domain}_db"] = float(by_frame.mean())
        out[f"{domain}_drift_db"] = float(by_frame[-4:].mean() - by_frame[1:5].mean())
    return out


def train_vae(folder: Path, budget: Budget, seed: int, device: str) -> Any:
    """Train (or resume) the autoencoder; returns it with the stock forward."""
    vae = whole_clip(build(seed)).to(device)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)

    def loss_of(step: int, progress: float) -> torch.Tensor:
        whole = progress >= WHOLE_FROM
        video = wan.pixels(clips(step, BATCH[whole], None if whole else CROP)).to(device)
        return loss(vae, video, counter_seed(seed, "vae-noise", step, rank()))

    train("vae", vae, optimisers(vae, PEAK), loss_of, lambda: scores(vae), folder, budget)
    return stock(vae).eval().requires_grad_(False)


@torch.no_grad()
def measure_statistics(vae: Any, batches: int = 16, batch: int = 8) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over training source clips, on all processes together."""
    whole_clip(vae)
    total = torch.zeros(16, device=vae.device)
    square = torch.zeros(16, device=vae.device)
    for number in range(rank(), batches, world()):
        frames = np.stack([make_clip("source", TRAIN_SEED, -1 - number * batch - i)[0] for i in range(batch)])
        mean, _ = encode_moments(vae, wan.pixels(frames).to(vae.device))
        total += mean.mean(dim=(0, 2, 3, 4)) / batches
        square += mean.square().mean(dim=(0, 2, 3, 4)) / batches
    average([total, square], 0.0)
    total, square = total * world(), square * world()
    stock(vae)
    return total.tolist(), (square - total.square()).sqrt().tolist()
