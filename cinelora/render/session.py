"""Render clips of one base with many adapters, from the same picture, text and noise.

In: a `RenderJob` that `cinelora/render/__main__.py` has checked. Out: the clips as mp4, and how well the seams of long
ones hold. In a group of processes all call this alike and the first writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cinelora import distributed
from cinelora.core.cli import Progress
from cinelora.core.config import TrialConfig
from cinelora.core.seeds import draw_noise
from cinelora.data.video import write_mp4
from cinelora.features.nets import NETS, open_net
from cinelora.features.nets.frames import Frames
from cinelora.render.contact_sheet import shown_frames
from cinelora.render.long_clips import changes, continuity, long_clip, window_count
from cinelora.wan.attention import use_deterministic
from cinelora.wan.encoding import Conditions, condition_latents, decode_video, encode_image, encode_text, pixels
from cinelora.wan.loading import TORCH_DTYPE, load_image_encoder, load_text_encoder, load_transformer, load_vae
from cinelora.wan.lora import AdapterSwitch
from cinelora.wan.options import SHARDED, Parallel
from cinelora.wan.parallel import spread
from cinelora.wan.sampler import denoise

LATENTS = 16  # channels
NET = "mnv2"  # behind tdelta


@dataclass(frozen=True)
class RenderJob:
    """What to render. `files`: by name of the clip the adapters that are added to the base, none for the bare base."""

    folder: Path  # of the base
    config: TrialConfig
    files: Mapping[str, tuple[Path, ...]]
    keyframe: Frames  # (H, W, 3)
    prompt: str
    frames: int
    overlap: int
    seed: int
    mode: Parallel
    net: Path | None  # weights of NET
    out: Path


@dataclass(frozen=True)
class RenderedClip:
    """What the table, the record and the contact sheet show of a clip."""

    seconds: float  # to render it
    continuity: dict[str, dict[str, Any]]  # by measure: `long_clips.continuity`
    pictures: Frames  # `shown_frames` of it
    steps: NDArray[np.float64]  # mean absolute pixel change of each step (T - 1,), levels


def render_clips(job: RenderJob) -> dict[str, RenderedClip]:
    """Render and write every clip."""
    data = job.config.data
    progress, done = Progress("windows", quiet=distributed.rank() != 0), count(1)
    total = len(job.files) * window_count(job.frames, data.frames, job.overlap)
    net = open_net(NET, job.net, device=distributed.device_name()).net if job.net else None
    rendered = {}
    with open_base(job) as (adapters, window):

        def counted(index: int, picture: Frames) -> Frames:
            frames = window(index, picture)
            progress("rendered", next(done), total)
            return frames

        for name, files in job.files.items():
            started = time.perf_counter()
            adapters.use(files)
            clip = long_clip(counted, job.keyframe, job.frames, data.frames, job.overlap)
            seconds = time.perf_counter() - started
            features = {NET: NETS[NET].extract(net, clip[None])[0]} if net is not None else {}
            steps = changes(clip, features)
            held = continuity(steps, data.frames, job.overlap)
            rendered[name] = RenderedClip(seconds, held, clip[shown_frames(len(clip))], steps["pixels"])
            if distributed.rank() == 0:
                write_mp4(job.out / f"{name}.mp4", clip, data.fps)
    return rendered


@contextmanager
def open_base(job: RenderJob) -> Iterator[tuple[AdapterSwitch, Callable[[int, Frames], Frames]]]:
    """The base, loaded once with all adapters on it, and the function that renders one window.

    A window (F, H, W, 3) comes from its number and a picture (H, W, 3); its noise depends on seed and number alone.
    """
    device, folder, config = distributed.device_name(), job.folder, job.config
    model = config.model
    text, negative = _encode_texts(job)  # first, so that the text encoder is freed before the denoiser is loaded
    # FSDP moves each block's share to the GPU, so that none has to hold the whole
    place = "cpu" if job.mode in SHARDED else device
    # model.compile is left out: a few clips do not pay for it
    transformer = load_transformer(folder, model.dtype, place, model.short_text, model.attention)
    use_deterministic(transformer, config)
    adapters = AdapterSwitch(transformer, chain.from_iterable(job.files.values()))
    encoder, vae = load_image_encoder(folder, device), load_vae(folder, device)

    def window(index: int, picture: Frames) -> Frames:
        frame = condition_latents(vae, pixels(picture[None, None])[:, :, 0], config.data.frames)
        seen = Conditions(frame, encode_image(*encoder, picture), text).to(device, TORCH_DTYPE[model.dtype])
        noise = draw_noise((LATENTS, *frame.shape[2:]), job.seed, "render", index)[None].to(device)
        latents = denoise(transformer, folder, config.sample, noise, seen, negative)
        return np.asarray(decode_video(vae, latents)[0])

    with spread(transformer, job.mode):
        yield adapters, window


def _encode_texts(job: RenderJob) -> tuple[torch.Tensor, torch.Tensor | None]:
    """States (1, 512, D) of the prompt and, under guidance, of the negative prompt, cut where the trials cut it."""
    tokenizer, encoder = load_text_encoder(job.folder, distributed.device_name(), job.config.model.text_dtype)
    text, sample = encode_text(tokenizer, encoder, job.prompt), job.config.sample
    return text, encode_text(tokenizer, encoder, sample.negative_prompt, cut=True) if sample.guidance > 1 else None
