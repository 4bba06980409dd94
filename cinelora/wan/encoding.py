"""Encode every window once per (data, model) into a content-addressed cache that all trials share.

In: a WindowPlan, the model folder. Out: `<cache>/encodings/<key>/<window_id>.safetensors` with `latents`
(16, T, h, w), `condition` (20, T, h, w), `image` (S, D), and `text-<hash>.safetensors` with `text` (512, D).
Each file is written to a temporary name and renamed, one window at a time: a crash loses one window, two
writers write the same bytes. Windows are encoded singly so that no value depends on how work is shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cinelora.core.config import DataConfig, Dtype
from cinelora.core.records import whole_file
from cinelora.data.encodings import text_file, window_file
from cinelora.data.video import decode_window
from cinelora.data.windows import Window
from cinelora.wan import loading as wan

MEMORY_BYTES = 4 * 2**30  # of encodings kept by one worker; a 480p window of 81 frames takes about 13 MB


def _size(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with whole_file(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def encode_texts(model: Path, folder: Path, prompts: Iterable[str], device: str, dtype: Dtype | None = None) -> None:
    """Write the text states of these prompts, encoded in `dtype` (None: as stored). The encoder is freed on return."""
    prompts = list(prompts)
    if not prompts:
        return
    tokenizer, encoder = wan.load_text_encoder(model, device, dtype)
    for prompt in prompts:
        _save(text_file(folder, prompt), {"text": wan.encode_text(tokenizer, encoder, prompt)[0]})


def encode_windows(
    model: Path,
    folder: Path,
    root: Path,
    data: DataConfig,
    windows: Iterable[Window],
    device: str,
    report: Callable[[], None] = lambda: None,
) -> None:
    """Write latents, condition and image tokens of these windows; `report` is called after each.

    VAE and image encoder are freed on return.
    """
    windows = list(windows)
    if not windows:
        return
    vae = wan.load_vae(model, device)
    processor, encoder = wan.load_image_encoder(model, device)
    for window in windows:
        frames = true_frames(root, data, window)
        video = wan.pixels(frames[None])
        _save(
            window_file(folder, window.window_id),
            {
                "latents": wan.encode_video(vae, video)[0],
                "condition": wan.condition_latents(vae, video[:, :, 0], data.frames)[0],
                "image": wan.encode_image(processor, encoder, frames[0])[0],
            },
        )
        report()


def true_frames(root: Path, data: DataConfig, window: Window) -> np.ndarray:
    """The window's real frames, uint8 (F, H, W, 3)."""
    return decode_window(
        root / window.video, window.start_seconds, data.fps, data.frames, data.height, data.width, data.resize
    )


@dataclass
class Encodings:
    """Read side of the cache. Tensors come back on the CPU in float32; the last `MEMORY_BYTES` stay loaded."""

    folder: Path
    grey: torch.Tensor | None = None  # latent (16, 1, h, w) of a grey frame, for training on stills
    _loaded: dict[Path, dict[str, torch.Tensor]] = field(default_factory=dict)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)  # the next batch is read in a thread of its own, cinelora/ahead.py

    def _read(self, path: Path) -> dict[str, torch.Tensor]:
        with self._lock:
            if path not in self._loaded:
                self._loaded[path] = load_file(path)
                self._bytes += _size(self._loaded[path])
                while self._bytes > MEMORY_BYTES and len(self._loaded) > 1:
                    self._bytes -= _size(self._loaded.pop(next(iter(self._loaded))))
            return self._loaded[path]

    def stack(self, windows: list[Window], name: str) -> torch.Tensor:
        """`latents`, `condition` or `image` of these windows, (N, ...)."""
        return torch.stack([self._read(window_file(self.folder, w.window_id))[name] for w in windows])

    def texts(self, prompts: list[str]) -> torch.Tensor:
        """Text states (N, 512, D)."""
        return torch.stack([self._read(text_file(self.folder, p))["text"] for p in prompts])
