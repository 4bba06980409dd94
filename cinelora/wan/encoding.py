"""Encode every window and caption once per model into a content-addressed cache that all trials share.

In: windows, the model folder. Out: `<cache>/encodings/<key>/<window_id>.safetensors` with `latents` (16, T, h, w),
`condition` (20, T, h, w), `image` (S, D), and `text-<hash>.safetensors` with `text` (512, D). Each is a link to a file
that is named by the hash of the pixels or of the caption: a clip that two data sets have is encoded once, and of a set
that grows only the new clips are. Windows are encoded one by one, so no value depends on how work is divided; a crash
loses one window, and two writers write the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import prompt_clean
from PIL import Image
from safetensors.torch import load_file, save_file

from cinelora.core.cli import UserError
from cinelora.core.config import TEMPORAL_FACTOR, DataConfig, Dtype, LongCaptions
from cinelora.core.files import whole_file
from cinelora.data.encodings import text_file, window_file
from cinelora.data.video import decode_window
from cinelora.data.windows import Window
from cinelora.wan.attention import TEXT_TOKENS
from cinelora.wan.loading import load_image_encoder, load_text_encoder, load_tokenizer, load_vae


def pixels(frames: np.ndarray) -> torch.Tensor:
    """uint8 (N, F, H, W, 3) -> float32 (N, 3, F, H, W) in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float().div(255).mul(2).sub(1)


def to_uint8(video: torch.Tensor) -> np.ndarray:
    """float (N, 3, F, H, W) in [-1, 1] -> uint8 (N, F, H, W, 3), rounded."""
    levels = video.float().div(2).add(0.5).clamp(0, 1).mul(255).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()


def _latent_statistics(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return mean.to(like), std.to(like)


@torch.no_grad()
def encode_video(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Normalised posterior mode of float (N, 3, F, H, W) in [-1, 1]: (N, 16, T, h, w)."""
    latents = vae.encode(video.to(vae.device, vae.dtype)).latent_dist.mode().float()
    mean, std = _latent_statistics(vae, latents)
    return (latents - mean) * (1.0 / std)


@torch.no_grad()
def decode_video(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Normalised latents (N, 16, T, h, w) -> uint8 frames (N, F, H, W, 3)."""
    latents = latents.to(vae.device, vae.dtype)
    mean, std = _latent_statistics(vae, latents)
    return to_uint8(vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0])


def condition_latents(vae: Any, first: torch.Tensor, frames: int) -> torch.Tensor:
    """Mask and condition (N, 20, T, h, w) from first frames float (N, 3, H, W) in [-1, 1].

    Channels 0-3: the mask, 1 at latent frame 0 and 0 elsewhere. Channels 4-19: the encoding of the first
    frame followed by mid-grey frames (zero pixels), which is not the first latent followed by zeros.
    """
    n, channels, height, width = first.shape
    video = torch.cat([first.unsqueeze(2), first.new_zeros(n, channels, frames - 1, height, width)], dim=2)
    latents = encode_video(vae, video)
    mask = torch.zeros_like(latents[:, :TEMPORAL_FACTOR])
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def grey_latent(vae: Any, height: int, width: int) -> torch.Tensor:
    """The encoding (16, 1, h, w) of one mid-grey frame, on the CPU."""
    return encode_video(vae, torch.zeros(1, 3, 1, height, width))[0].cpu()


@torch.no_grad()
def encode_image(processor: Any, encoder: Any, image: np.ndarray) -> torch.Tensor:
    """Penultimate CLIP hidden state (1, S, D) of one uint8 image (H, W, 3)."""
    inputs = processor(images=Image.fromarray(image), return_tensors="pt").to(encoder.device)
    return encoder(**inputs, output_hidden_states=True).hidden_states[-2].float()


@torch.no_grad()
def encode_text(tokenizer: Any, encoder: Any, prompt: str, cut: bool = False) -> torch.Tensor:
    """UMT5 states (1, 512, D) of one prompt, zero past its end. UserError: it is longer, and not to be `cut`."""
    inputs = tokenizer(
        [prompt_clean(prompt)],
        padding="max_length",
        max_length=TEXT_TOKENS,
        truncation=cut,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
        verbose=False,
    ).to(encoder.device)
    if (tokens := inputs.input_ids.shape[1]) > TEXT_TOKENS:
        raise UserError(f"{prompt[:40]!r}...: {tokens} tokens, the model reads {TEXT_TOKENS}; shorten the text")
    states = encoder(inputs.input_ids, inputs.attention_mask).last_hidden_state.float()
    return states * inputs.attention_mask.unsqueeze(-1)


def long_texts(model: Path, texts: Iterable[str]) -> dict[str, int]:
    """Those of `texts` that have more tokens than the model reads, with their number of tokens."""
    tokenizer = load_tokenizer(model)
    counts = {text: len(tokenizer(prompt_clean(text), verbose=False).input_ids) for text in texts}
    return {text: tokens for text, tokens in counts.items() if tokens > TEXT_TOKENS}


MEMORY_BYTES = 4 * 2**30  # of encodings kept by one worker; a 480p window of 81 frames takes about 13 MB


def _size(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with whole_file(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def _link(shared: Path, path: Path) -> None:
    """`path` becomes the file `shared`, or a copy where the disk knows no links."""
    with whole_file(path) as temporary:
        temporary.unlink()
        try:
            os.link(shared, temporary)
        except OSError:
            shutil.copyfile(shared, temporary)


def encode_texts(
    model: Path,
    folder: Path,
    shared: Path,
    prompts: Iterable[str],
    device: str,
    dtype: Dtype | None = None,
    long: LongCaptions = LongCaptions.refuse,
) -> None:
    """Write the text states of these prompts into `folder`, encoded in `dtype` (None: as stored) unless `shared` has
    them. The encoder is freed on return."""
    encoder = cache(lambda: load_text_encoder(model, device, dtype))
    for prompt in prompts:
        known = text_file(shared, prompt)
        if not known.exists():
            _save(known, {"text": encode_text(*encoder(), prompt, long is LongCaptions.cut)[0]})
        _link(known, text_file(folder, prompt))


def encode_windows(
    model: Path,
    folder: Path,
    shared: Path,
    root: Path,
    data: DataConfig,
    windows: Iterable[Window],
    device: str,
) -> None:
    """Write latents, condition and image tokens of these windows into `folder`, encoded unless `shared` has those of
    the same pixels. VAE and image encoder are freed on return.
    """
    encoders = cache(lambda: (load_vae(model, device), *load_image_encoder(model, device)))
    for window in windows:
        frames = reference_frames(root, data, window)
        known = window_file(shared, hashlib.sha256(repr(frames.shape).encode() + frames.tobytes()).hexdigest())
        if not known.exists():
            vae, processor, encoder = encoders()
            video = pixels(frames[None])
            _save(
                known,
                {
                    "latents": encode_video(vae, video)[0],
                    "condition": condition_latents(vae, video[:, :, 0], data.frames)[0],
                    "image": encode_image(processor, encoder, frames[0])[0],
                },
            )
        _link(known, window_file(folder, window.window_id))


def reference_frames(root: Path, data: DataConfig, window: Window) -> np.ndarray:
    """The window's real frames, uint8 (F, H, W, 3)."""
    return decode_window(
        root / window.video, window.start_seconds, data.fps, data.frames, data.height, data.width, data.resize
    )


@dataclass(frozen=True)
class Conditions:
    """What the denoiser sees of N clips besides their noisy latents. The dtype is the one it computes in.

    Attributes:
        frame: mask and first frame (N, 20, T, h, w), see `condition_latents`.
        image: image tokens of the first frame (N, S, D).
        text: states of the caption (N, 512, D).
    """

    frame: torch.Tensor
    image: torch.Tensor
    text: torch.Tensor

    def to(self, device: str, dtype: torch.dtype) -> Conditions:
        return Conditions(*(each.to(device, dtype) for each in (self.frame, self.image, self.text)))


@dataclass
class Encodings:
    """Read side of the cache. Tensors come back on the CPU in float32; the last `MEMORY_BYTES` stay loaded."""

    folder: Path
    grey: torch.Tensor | None = None  # latent (16, 1, h, w) of a grey frame, for training on stills
    _loaded: dict[Path, dict[str, torch.Tensor]] = field(default_factory=dict)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)  # the next batch is read in a second thread

    def _read(self, path: Path) -> dict[str, torch.Tensor]:
        with self._lock:
            if path not in self._loaded:
                self._loaded[path] = load_file(path)
                self._bytes += _size(self._loaded[path])
                while self._bytes > MEMORY_BYTES and len(self._loaded) > 1:
                    self._bytes -= _size(self._loaded.pop(next(iter(self._loaded))))
            return self._loaded[path]

    def latents(self, windows: list[Window]) -> torch.Tensor:
        """Clean latents (N, 16, T, h, w)."""
        return self._stack(windows, "latents")

    def conditions(self, windows: list[Window], captions: list[str] | None = None) -> Conditions:
        """Of these windows with their own captions, or with these."""
        frame, image = (self._stack(windows, name) for name in ("condition", "image"))
        return Conditions(frame, image, self.texts(captions or [w.caption for w in windows]))

    def _stack(self, windows: list[Window], name: str) -> torch.Tensor:
        return torch.stack([self._read(window_file(self.folder, w.window_id))[name] for w in windows])

    def texts(self, prompts: list[str]) -> torch.Tensor:
        """Text states (N, 512, D)."""
        return torch.stack([self._read(text_file(self.folder, p))["text"] for p in prompts])
