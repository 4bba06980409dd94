"""Generate the held-out clips from cached conditions with the adapter in place.

In: the denoiser (an engine under ZeRO, or the bare transformer), VAE, encodings, held-out windows.
Out: uint8 frames (F, H, W, 3) of each window, as WanImageToVideoPipeline generates them from the same noise (bit for
bit at batch size 1). The batches are the same for every rank, seed and gang size, because batching moves latents by
about 3e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinelora import distributed
from cinelora.core.config import SampleConfig, TrialConfig
from cinelora.core.seeds import draw_noise
from cinelora.data.windows import Window
from cinelora.wan.acceleration import step_cache
from cinelora.wan.attention import as_chosen
from cinelora.wan.encoding import Conditions, Encodings, decode_video
from cinelora.wan.loading import TORCH_DTYPE, load_scheduler


def starting_noise(encodings: Encodings, windows: list[Window], seed: int) -> torch.Tensor:
    """Noise (N, 16, T, h, w) by (sampling seed, window): the same for the base and every adapter."""
    shape = tuple(encodings.latents(windows[:1]).shape[1:])
    return torch.stack([draw_noise(shape, seed, "sample", w.window_id) for w in windows])


def predict_velocity(model: Any, noisy: torch.Tensor, times: torch.Tensor, conditions: Conditions) -> torch.Tensor:
    """Velocity (N, 16, T, h, w) at noisy latents of that shape and times (N,) in 0..1000."""
    with as_chosen(model):
        return model(
            hidden_states=torch.cat([noisy.to(conditions.frame.dtype), conditions.frame], dim=1),
            timestep=times,
            encoder_hidden_states=conditions.text,
            encoder_hidden_states_image=conditions.image,
            return_dict=False,
        )[0]


@torch.no_grad()
def denoise(
    model: Any,
    folder: Path,
    sample: SampleConfig,
    noise: torch.Tensor,
    conditions: Conditions,
    negative: torch.Tensor | None,
    on_step: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Integrate noise (N, 16, T, h, w) to clean latents of that shape and dtype; `folder`: of the base model.

    `negative`: text states of the negative prompt, None without guidance. Guidance is v_negative + g (v - v_negative):
    two passes a step as in the stock pipeline, or both as one batch where `sample.batched_guidance` says so.
    """
    latents, scheduler = noise, load_scheduler(folder, sample.scheduler, sample.shift)
    scheduler.set_timesteps(sample.steps, device=latents.device)
    batched = negative is not None and sample.batched_guidance
    if negative is not None:
        unguided = replace(conditions, text=negative.to(conditions.text))
        if batched:
            both = ((getattr(each, name) for each in (unguided, conditions)) for name in ("frame", "image", "text"))
            conditions = Conditions(*(torch.cat(list(pair)) for pair in both))
    with step_cache(model, sample) as cached:

        def velocity(time: torch.Tensor, seen: Conditions, name: str) -> torch.Tensor:
            states = torch.cat([latents, latents]) if batched else latents
            with cached(name):
                return predict_velocity(model, states, time.expand(len(states)), seen)

        for time in scheduler.timesteps:
            predicted = velocity(time, conditions, "cond")
            if negative is not None:
                without, predicted = predicted.chunk(2) if batched else (velocity(time, unguided, "uncond"), predicted)
                predicted = without + sample.guidance * (predicted - without)
            latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
            on_step()
    return latents


def batches(windows: list[Window], size: int) -> list[list[Window]]:
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def generate(
    model: Any,
    vae: Any,
    model_folder: Path,
    config: TrialConfig,
    encodings: Encodings,
    windows: list[Window],
    todo: Sequence[int],
    report: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, list[Window], np.ndarray]]:
    """Yield (batch, its windows, frames (N, F, H, W, 3)) of this worker's share of the batches `todo`.

    `todo`: indices into `batches(windows, ..)`, the same on all workers. `report` sees (batches done, of how many)
    after each batch, `on_step` sees them after each step of the sampler.
    """
    sample, device = config.sample, distributed.device_name()
    chunks = batches(windows, sample.batch_size)
    share = distributed.deal(todo, config.model.sequence_workers)
    for turn, (index, counts) in enumerate(share, start=1):
        chunk = chunks[index]
        negative = encodings.texts([sample.negative_prompt] * len(chunk)) if sample.guidance > 1 else None
        latents = denoise(
            model,
            model_folder,
            sample,
            starting_noise(encodings, chunk, sample.seed).to(device),
            encodings.conditions(chunk).to(device, TORCH_DTYPE[config.model.dtype]),
            negative,
            partial(on_step, turn - 1, len(share)),
        )
        if counts:
            yield index, chunk, decode_video(vae, latents)
        report(turn, len(share))
