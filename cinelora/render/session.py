"""Clips of one base with many adapters, from the same picture, text and noise: what `cinelora/render/__main__.py` runs.

In: a `RenderJob`, already checked. Out: the clips, and how well the seams of long ones hold. In a
group of processes all run this alike and the first writes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cinelora import distributed
from cinelora.core.config import TrialConfig
from cinelora.core.seeds import draw_noise
from cinelora.data.video import write_mp4
from cinelora.features.nets import NETS, open_net
from cinelora.render.contact_sheet import shown
from cinelora.render.long_clips import Continuity, changes, continuity, long_shot, window_count
from cinelora.wan.attention import use_attention
from cinelora.wan.denoiser import Conditions
from cinelora.wan.encoding import condition_latents, decode_video, encode_image, encode_text, pixels
from cinelora.wan.loading import (
    TORCH_DTYPE,
    load_image_encoder,
    load_scheduler,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from cinelora.wan.lora import AdapterSwitch
from cinelora.wan.options import SHARDED, Parallel
from cinelora.wan.parallel import spread
from cinelora.wan.sampler import denoise

Frames = NDArray[np.uint8]
LATENTS = 16  # channels
NET = "mnv2"  # behind tdelta


@dataclass(frozen=True)
class RenderJob:
    """What to render. `files`: adapters that lie on one another, by name of the clip; none is the bare base."""

    folder: Path  # of the base
    config: TrialConfig
    files: Mapping[str, tuple[Path, ...]]
    keyframe: Frames
    prompt: str
    frames: int
    overlap: int
    seed: int
    mode: Parallel
    net: Path | None  # weights of NET
    out: Path


@dataclass(frozen=True)
class RenderedClip:
    """Seconds it took, its change from frame to frame by measure, and what the contact sheet shows of it."""

    seconds: float
    held: Mapping[str, Continuity]
    pictures: Frames
    steps: NDArray[np.float64]


def render_clips(job: RenderJob) -> dict[str, RenderedClip]:
    """Make and write every clip."""
    window, rate = job.config.data.frames, job.config.data.fps
    progress = Progress(len(job.files) * window_count(job.frames, window, job.overlap), distributed.rank() == 0)
    net = open_net(NET, job.net, device=distributed.device_name()).net if job.net else None
    rendered = {}
    with open_session(job) as session:
        for name, files in job.files.items():
            progress.clip, started = name, time.perf_counter()
            made = session.render_clip(job, files, progress.window)
            seconds = time.perf_counter() - started
            features = {NET: NETS[NET].extract(net, made[None])[0]} if net is not None else {}
            steps = changes(made, features)
            held = continuity(steps, window, job.overlap)
            rendered[name] = RenderedClip(seconds, held, made[shown(len(made))], steps["pixels"])
            if distributed.rank() == 0:
                write_mp4(job.out / f"{name}.mp4", made, rate)
    return rendered


@dataclass
class RenderSession:
    """A resident base with adapters, the encoders that windows need, and the text."""

    folder: Path
    config: TrialConfig
    adapters: AdapterSwitch
    vae: Any
    image_encoder: tuple[Any, Any]
    text: torch.Tensor
    negative: torch.Tensor | None

    def render_clip(self, job: RenderJob, files: Sequence[Path], told: Callable[[], None]) -> Frames:
        """The clip of these adapters; `told` is called after each window."""
        self.adapters.use(files)

        def window(index: int, picture: Frames) -> Frames:
            made = self.window(picture, job.seed, index)
            told()
            return made

        return long_shot(window, job.keyframe, job.frames, self.config.data.frames, job.overlap)

    def window(self, picture: Frames, seed: int, index: int) -> Frames:
        """One window from a picture; its noise hangs on seed and index alone."""
        device, sample = distributed.device_name(), self.config.sample
        frame = condition_latents(self.vae, pixels(picture[None, None])[:, :, 0], self.config.data.frames)
        conditions = Conditions(frame, encode_image(*self.image_encoder, picture), self.text)
        noise = draw_noise((LATENTS, *frame.shape[2:]), seed, "render", index)[None]
        latents = denoise(
            self.adapters.transformer,
            load_scheduler(self.folder, sample.scheduler, sample.shift),
            sample,
            noise.to(device),
            conditions.to(device, TORCH_DTYPE[self.config.model.dtype]),
            self.negative,
        )
        return np.asarray(decode_video(self.vae, latents)[0])


@contextmanager
def open_session(job: RenderJob) -> Iterator[RenderSession]:
    """The base, loaded once with all adapters on it. The text encoder is freed before the denoiser is loaded."""
    device, model, folder = distributed.device_name(), job.config.model, job.folder
    text, negative = encode_texts(folder, job.config, job.prompt)
    # FSDP moves each block's share to the GPU, so that none has to hold the whole
    place = "cpu" if job.mode in SHARDED else device
    transformer = load_transformer(folder, model.dtype, place, model.short_text)
    if model.attention:  # model.compile is left out: a few clips do not pay for it
        use_attention(transformer, model.attention, TORCH_DTYPE[model.dtype])
    adapters = AdapterSwitch(transformer)
    adapters.load(chain.from_iterable(job.files.values()))
    encoder, vae = load_image_encoder(folder, device), load_vae(folder, device)
    with spread(transformer, job.mode):
        yield RenderSession(folder, job.config, adapters, vae, encoder, text, negative)


def encode_texts(folder: Path, config: TrialConfig, prompt: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """States (1, 512, D) of the prompt and, under guidance, of the negative prompt."""
    tokenizer, encoder = load_text_encoder(folder, distributed.device_name(), config.model.text_dtype)
    text = encode_text(tokenizer, encoder, prompt)
    if config.sample.guidance <= 1:
        return text, None
    return text, encode_text(tokenizer, encoder, config.sample.negative_prompt)


class Progress:
    """Windows on stderr with the time left: a line that is rewritten on a terminal, one a window elsewhere."""

    def __init__(self, windows: int, tell: bool) -> None:
        self.total, self.done, self.tell, self.started, self.clip = windows, 0, tell, time.monotonic(), ""

    def window(self) -> None:
        self.done += 1
        left = round((time.monotonic() - self.started) / self.done * (self.total - self.done))
        text = f"{self.clip}: window {self.done}/{self.total}, about {left // 60}:{left % 60:02} left"
        if self.tell and sys.stderr.isatty():
            print(f"\r{text:<60}", end="" if self.done < self.total else "\n", file=sys.stderr, flush=True)
        elif self.tell:
            print(text, file=sys.stderr, flush=True)
