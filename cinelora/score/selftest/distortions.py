"""Faults of known kind and size, to test whether a metric responds to them.

In: uint8 RGB clips (N, T, H, W, 3), levels 0..255, and a seed. Out: the same shape (but for double speed) and type.
A fault "per frame" is drawn anew for every frame, its "static" twin once for the clip from the same distribution:
single frames look alike, only their sequence differs. Random numbers depend on (seed, fault, clip) alone.
Lengths are in hundredths of the picture's height, so that a fault means the same at every size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from cinelora.core.config import Resize
from cinelora.core.seeds import counter_seed
from cinelora.data.video import read_all, resize_rgb, write_mp4
from cinelora.score.clips import Frames

Distort = Callable[[Frames, int], Frames]

SHAKE = 2.0  # largest shift, hundredths of the height
WARP, WARP_GRAIN = 3.0, 8.0  # standard deviation of the elastic shift and width of its smoothing, hundredths
NOISE_LEVELS = 15.0
FLICKER_PERCENT = (2.0, 5.0, 10.0)
SWAPS = (1, 2, 4, 8)
CRFS = (18, 28, 38)


def clean(clips: Frames, seed: int) -> Frames:
    return clips


def shuffle(clips: Frames, seed: int) -> Frames:
    """All frames in random order."""
    return np.stack([clip[_random(seed, "shuffle", i).permutation(len(clip))] for i, clip in enumerate(clips)])


def swap(clips: Frames, seed: int, pairs: int) -> Frames:
    """`pairs` neighbouring pairs of frames change places, each frame at most once; more pairs include the fewer."""
    out = clips.copy()
    for i, clip in enumerate(clips):
        places = 2 * _random(seed, "swap", i).permutation(len(clip) // 2)[:pairs]
        out[i, places], out[i, places + 1] = clip[places + 1], clip[places]
    return out


def show(clips: Frames, seed: int, which: Callable[[NDArray[np.intp]], NDArray[np.intp]]) -> Frames:
    """The frames that `which` makes of their numbers 0, 1, ..., T - 1."""
    return clips[:, which(np.arange(clips.shape[1]))]


def shake(clips: Frames, seed: int, per_frame: bool, size: float = SHAKE) -> Frames:
    """Shifts of up to `size` in x and y, the border mirrored."""

    def field(random: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        x, y = random.uniform(-size, size, 2) * height / 100
        return np.full((height, width), x, np.float32), np.full((height, width), y, np.float32)

    return _displaced(clips, seed, "shake", per_frame, field)


def elastic(clips: Frames, seed: int, per_frame: bool) -> Frames:
    """A smooth random warp (Ge et al. 2024, arXiv 2404.12391: one field for all frames, or a new one per frame)."""

    def field(random: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rough = random.standard_normal((2, height, width), dtype=np.float32)
        smooth = [cv2.GaussianBlur(each, (0, 0), WARP_GRAIN * height / 100) for each in rough]
        x, y = (each * np.float32(WARP * height / 100 / each.std()) for each in smooth)
        return x, y

    return _displaced(clips, seed, "elastic", per_frame, field)


def noise(clips: Frames, seed: int, per_frame: bool) -> Frames:
    """Gaussian noise of `NOISE_LEVELS`; static noise is one pattern over all frames."""
    out = np.empty_like(clips)
    for i, clip in enumerate(clips):
        shape = clip.shape if per_frame else clip.shape[1:]
        grain = _random(seed, "noise", i).standard_normal(shape, dtype=np.float32)
        out[i] = _levels(clip + np.float32(NOISE_LEVELS) * grain)
    return out


def flicker(clips: Frames, seed: int, percent: float) -> Frames:
    """The brightness of each frame up or down by `percent`, at random."""
    out = np.empty_like(clips)
    for i, clip in enumerate(clips):
        sign = _random(seed, "flicker", i).choice([-1.0, 1.0], len(clip))
        out[i] = _levels(clip * (1 + percent / 100 * sign)[:, None, None, None])
    return out


def interleave(clips: Frames, seed: int) -> Frames:
    """Every other frame from the clip half the set away."""
    out = clips.copy()
    out[:, 1::2] = _partner(clips)[:, 1::2]
    return out


def switch(clips: Frames, seed: int) -> Frames:
    """The second half from the clip half the set away: one hard cut."""
    out, half = clips.copy(), clips.shape[1] // 2
    out[:, half:] = _partner(clips)[:, half:]
    return out


def encode(clips: Frames, seed: int, crf: int) -> Frames:
    """To H.264 yuv420p and back at a constant rate factor; H and W even."""
    return np.stack([_through_h264(clip, crf) for clip in clips])


def square(clips: Frames, seed: int, resize: Resize) -> Frames:
    """A wide picture (W > H) cropped or squashed to a square, then resized to its old size."""
    _, _, height, width, _ = clips.shape
    small = [[resize_rgb(image, height, height, resize) for image in clip] for clip in clips]
    return np.stack([[resize_rgb(image, height, width, Resize.squash) for image in clip] for clip in small])


DISTORTIONS: dict[str, Distort] = {
    "clean": clean,
    "shuffle": shuffle,
    **{f"swap {pairs}": partial(swap, pairs=pairs) for pairs in SWAPS},
    "freeze": partial(show, which=lambda t: 0 * t),
    "hold 2": partial(show, which=lambda t: t // 2 * 2),  # every second frame, shown twice: the motion stutters
    "hold 4": partial(show, which=lambda t: t // 4 * 4),
    "half speed": partial(show, which=lambda t: t // 2),  # of the first half of the clip
    "double speed": partial(show, which=lambda t: t[::2]),  # half as many frames
    "reverse": partial(show, which=lambda t: t[::-1]),
    "static shift": partial(shake, per_frame=False),
    "jitter": partial(shake, per_frame=True),
    "static warp": partial(elastic, per_frame=False),
    "warp per frame": partial(elastic, per_frame=True),
    "static noise": partial(noise, per_frame=False),
    "fresh noise": partial(noise, per_frame=True),
    **{f"flicker {percent:g} %": partial(flicker, percent=percent) for percent in FLICKER_PERCENT},
    "interleave": interleave,
    "switch": switch,
    **{f"crf {crf}": partial(encode, crf=crf) for crf in CRFS},
    "cropped": partial(square, resize=Resize.crop),
    "squashed": partial(square, resize=Resize.squash),
}


Field = Callable[[np.random.Generator, int, int], tuple[NDArray[np.float32], NDArray[np.float32]]]


def _displaced(clips: Frames, seed: int, name: str, per_frame: bool, field: Field) -> Frames:
    """Each frame sampled where its field (x, y in pixels) points; a static field is drawn once per clip."""
    height, width = clips.shape[2:4]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    out = np.empty_like(clips)
    for i, clip in enumerate(clips):
        random = _random(seed, name, i)
        dx, dy = field(random, height, width)
        for t, image in enumerate(clip):
            if per_frame and t:
                dx, dy = field(random, height, width)
            out[i, t] = cv2.remap(image, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return out


def _partner(clips: Frames) -> Frames:
    """Sets are ordered by shot, so the clip half the set away is of another shot."""
    return np.roll(clips, max(1, len(clips) // 2), axis=0)


def _through_h264(clip: Frames, crf: int) -> Frames:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_mp4(path, clip, 16, crf)
        return read_all(path)


def _levels(values: NDArray[np.floating]) -> Frames:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _random(seed: int, name: str, clip: int) -> np.random.Generator:
    return np.random.default_rng(counter_seed(seed, "distortion", name, clip))
