"""Train the small denoiser and its text encoder on encoded synthetic clips.

In: a trained autoencoder, steps, a state folder. Out: `denoiser.safetensors` (weights, AdamW moments, step, moving
average), `denoiser.csv`. Loss: flow matching with uniform times; one caption in twelve is dropped, so that
guidance works. Every worker encodes its own clips once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cinelora import distributed
from cinelora.core.cli import Progress
from cinelora.core.files import whole_file
from cinelora.core.seeds import draw_noise
from cinelora.data.synthetic import STUDIED, make_caption, make_clip
from cinelora.smallbase.model import image_tower, new_denoiser, new_vae, tokenizer
from cinelora.smallbase.optimiser import Training, TrainingLog, decayed, random_for
from cinelora.smallbase.vae import encode_moments, whole_clip
from cinelora.training import flow
from cinelora.wan.attention import use_short_text
from cinelora.wan.encoding import Conditions, pixels
from cinelora.wan.sampler import predict_velocity

PEAK_RATE = 1.5e-3
BATCH = 16  # clips per worker and step
TOKENS = 48  # of a caption in pretraining; the longest has fewer
DROPPED = 1 / 12  # of the captions
AVERAGE = 0.999  # decay of the moving average that is shipped
TRAIN_SEED, HELDOUT_SEED = 500, 900
HELDOUT_CLIPS = 64


@dataclass
class Clips:
    """N encoded clips; latents (N, 16, 5, 8, 8) and conditions (N, 20, ..) normalised, text as ids (N, TOKENS)."""

    latents: torch.Tensor
    condition: torch.Tensor
    image: torch.Tensor
    ids: torch.Tensor
    lengths: torch.Tensor

    def to(self, device: str) -> Clips:
        return Clips(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def pick(self, index: torch.Tensor) -> Clips:
        return Clips(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


Predict = Callable[[Clips, torch.Tensor, torch.Tensor], torch.Tensor]  # clips, noisy latents, times -> velocity


@torch.no_grad()
def encode_raw(path: Path, vae: Any, domain: str, seed: int, indices: range) -> dict[str, torch.Tensor]:
    """Unnormalised `latents` and `gray` (first frame, then mid-grey) and `first` frames uint8, kept in a file."""
    if path.exists():
        return load_file(path)
    progress = Progress("clips", quiet=distributed.rank() != 0)
    parts: dict[str, list[torch.Tensor]] = {"latents": [], "gray": [], "first": []}
    for start in range(0, len(indices), 8):
        frames = np.stack([make_clip(domain, seed, i)[0] for i in indices[start : start + 8]])
        video = pixels(frames)
        gray = torch.zeros_like(video)
        gray[:, :, 0] = video[:, :, 0]
        parts["latents"].append(encode_moments(vae, video)[0])
        parts["gray"].append(encode_moments(vae, gray)[0])
        parts["first"].append(torch.from_numpy(frames[:, 0]))
        progress(f"encoding {domain}", start + len(frames), len(indices))
    raw = {name: torch.cat(tensors) for name, tensors in parts.items()}
    with whole_file(path) as temporary:
        save_file(raw, temporary)
    return raw


def prepare(
    raw: dict[str, torch.Tensor], stats: tuple[list[float], list[float]], captions: list[str], words: list[str]
) -> Clips:
    """Normalise by the latents' (mean, standard deviation) per channel, add the mask, run the tower, tokenise."""
    mean, std = (torch.tensor(value).view(1, -1, 1, 1, 1) for value in stats)
    gray = (raw["gray"] - mean) / std
    mask = torch.zeros_like(gray[:, :4])
    mask[:, :, 0] = 1
    processor, tower = image_tower()
    images = []
    with torch.no_grad():
        for start in range(0, len(gray), 64):
            batch = [Image.fromarray(frame.numpy()) for frame in raw["first"][start : start + 64]]
            inputs = processor(images=batch, return_tensors="pt")
            images.append(tower(**inputs, output_hidden_states=True).hidden_states[-2])
    encoded = tokenizer(words)(captions, padding="max_length", max_length=TOKENS, return_tensors="pt")
    lengths = encoded["attention_mask"].sum(1)
    return Clips(
        (raw["latents"] - mean) / std, torch.cat([mask, gray], 1), torch.cat(images), encoded["input_ids"], lengths
    )


def encode_clips(
    state: Path, vae_state: dict[str, torch.Tensor], count: int, words: list[str]
) -> tuple[Clips, dict[str, Clips], tuple[list[float], list[float]]]:
    """This worker's training clips, held-out clips by domain, and the latent mean and standard deviation of rank 0."""
    vae = whole_clip(new_vae())
    vae.load_state_dict(vae_state)
    vae.requires_grad_(False)
    rank, workers = distributed.rank(), distributed.world_size()
    own = range(rank, count, workers)
    raw = encode_raw(state / f"clips-{rank}-of-{workers}-{count}.safetensors", vae, "source", TRAIN_SEED, own)
    channels = (0, 2, 3, 4)
    own_stats = (raw["latents"].mean(channels).tolist(), raw["latents"].std(channels).tolist())
    stats = distributed.gather_objects(own_stats)[0]
    clips = prepare(raw, stats, [make_caption("source", TRAIN_SEED, i) for i in own], words)
    heldout = {}
    for domain in STUDIED:
        indices = range(HELDOUT_CLIPS)
        raw = encode_raw(state / f"heldout-{domain}-{rank}.safetensors", vae, domain, HELDOUT_SEED, indices)
        heldout[domain] = prepare(raw, stats, [make_caption(domain, HELDOUT_SEED, i) for i in indices], words)
    return clips, heldout, stats


def velocity(transformer: Any, text: Any, clips: Clips, noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """The denoiser's prediction for noisy latents at times (B,)."""
    mask = (torch.arange(TOKENS, device=noisy.device)[None] < clips.lengths[:, None]).long()
    states = text(clips.ids, mask).last_hidden_state * mask[..., None]
    return predict_velocity(
        transformer, noisy, times * flow.MODEL_TIME, Conditions(clips.condition, clips.image, states)
    )


def without_caption(clips: Clips, dropped: torch.Tensor) -> Clips:
    """The empty prompt (its end token alone) where `dropped` (B,) is true."""
    ids, lengths = clips.ids.clone(), clips.lengths.clone()
    ids[dropped] = 0
    ids[dropped, 0] = 1
    lengths[dropped] = 1
    return Clips(clips.latents, clips.condition, clips.image, ids, lengths)


@torch.no_grad()
def heldout_losses(predict: Predict, clips: Clips) -> dict[str, float]:
    """Flow loss at five times with fixed noise."""
    noise = draw_noise(tuple(clips.latents.shape), "pretrain", "heldout").to(clips.latents)
    out = {}
    for time in flow.HELDOUT_TIMES:
        times = torch.full((len(noise),), time, device=noise.device)
        predicted = predict(clips, flow.noised(clips.latents, noise, times), times)
        out[f"t{time}"] = float(flow.sample_losses(predicted, flow.velocity(clips.latents, noise)).mean())
    return out


def is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether Muon trains it: the weights inside the blocks; neither embeddings nor modulation."""
    inside = ".block" in name and "scale_shift" not in name and "relative" not in name
    return inside and parameter.ndim == 2


def train_denoiser(
    state: Path, clips: Clips, heldout: dict[str, Clips], steps: int, seed: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Train, or resume, up to `steps`; returns the averaged weights of transformer and text encoder."""
    transformer, text = new_denoiser()
    use_short_text(transformer)
    named = [(f"transformer.{n}", p) for n, p in transformer.named_parameters()]
    named += [(f"text.{n}", p) for n, p in text.named_parameters()]
    training = Training(
        state / "denoiser.safetensors", named, betas=(0.9, 0.98), decay=0.01, average=AVERAGE, is_matrix=is_matrix
    )
    transformer.to(training.device), text.to(training.device)
    heldout = {name: held.to(training.device) for name, held in heldout.items()}
    log = TrainingLog(state / "denoiser.csv", training.step, steps)

    def predict(batch: Clips, noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return velocity(transformer, text, batch, noisy, times)

    def measure() -> dict[str, float]:
        training.swap_average()
        out = {f"{name}_{k}": v for name, held in heldout.items() for k, v in heldout_losses(predict, held).items()}
        training.swap_average()
        return out

    for step in range(training.step, steps):
        random = random_for(seed, "denoiser", step, training.worker)
        batch = clips.pick(torch.from_numpy(random.integers(0, len(clips.latents), BATCH)))
        noise = torch.from_numpy(random.standard_normal(tuple(batch.latents.shape))).float().to(training.device)
        times = torch.from_numpy(random.random(BATCH)).float().to(training.device)
        batch = without_caption(batch, torch.from_numpy(random.random(BATCH) < DROPPED)).to(training.device)
        noisy = flow.noised(batch.latents, noise, times)
        loss = flow.sample_losses(predict(batch, noisy, times), flow.velocity(batch.latents, noise)).mean()
        training.update(loss, decayed(PEAK_RATE, step, steps, warmup=100, hold=0.4))
        log.tick(step + 1, loss.item(), measure)
        training.checkpoint(step + 1, steps)
    training.swap_average()
    states = [{n: t.detach().cpu() for n, t in part.state_dict().items()} for part in (transformer, text)]
    return states[0], states[1]
