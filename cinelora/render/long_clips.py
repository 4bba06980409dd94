"""Clips longer than the model's window: overlapping windows, how they are joined, and how well the seams hold.

In: windows of F frames each, rendered one after the other. Out: one clip, and the change of a frame to the next across
its seams and inside its windows. Frames are uint8 (T, H, W, 3), levels 0..255.

The model is given one picture, so a window starts from frame -K of the clip so far (K: the overlap) and renders its
last K frames anew. These are cross-faded, weight j / K on frame j of the new window. With K = 1 the window starts from
the last frame, of which only one copy is kept. A larger K hides the jump in speed, since a new window knows the picture
but not the motion; it costs K - 1 frames a window and some ghosting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinelora.features.clip_scores import ssim
from cinelora.features.motion import frame_difference, tdelta
from cinelora.features.nets.frames import Frames
from cinelora.metrics.distances import Array


def window_count(frames: int, window: int, overlap: int) -> int:
    """How many windows of `window` frames a clip of `frames` needs."""
    return 1 + max(0, math.ceil((frames - window) / (window - overlap)))


def long_clip(
    render: Callable[[int, Frames], Frames], keyframe: Frames, frames: int, window: int, overlap: int
) -> Frames:
    """A clip of `frames` frames; `render(index, picture)` gives the window that starts from picture (H, W, 3)."""
    clip = render(0, keyframe)
    for index in range(1, window_count(frames, window, overlap)):
        clip = joined(clip, render(index, clip[-overlap]), overlap)
    return clip[:frames]


def joined(clip: Frames, window: Frames, overlap: int) -> Frames:
    """A clip and a window that starts at its frame -overlap, cross-faded where they overlap."""
    weight = (np.arange(overlap) / overlap).reshape(-1, 1, 1, 1)
    mixed = (1 - weight) * clip[-overlap:] + weight * window[:overlap]
    return np.concatenate([clip[:-overlap], np.rint(mixed).astype(np.uint8), window[overlap:]])


def seams(frames: int, window: int, overlap: int) -> Iterator[slice]:
    """For each seam the steps t (frame t to t + 1) that do not lie inside one window: `overlap` of them."""
    for index in range(1, window_count(frames, window, overlap)):
        start = index * (window - overlap)
        yield slice(start, min(start + overlap, frames - 1))


def changes(clip: Frames, features: Mapping[str, NDArray[np.float32]]) -> dict[str, Array]:
    """Change of each step, (T - 1,), by measure: mean absolute pixel difference in levels, 1 - SSIM, tdelta.

    `features`: net -> frame features (T, D).
    """
    pairs = np.stack([clip[:-1], clip[1:]], axis=1)
    found = {"pixels": frame_difference(pairs), "1-ssim": 1 - ssim(pairs[:, 1:], pairs[:, :1], 0)}
    return found | {f"tdelta[{net}]": tdelta(np.stack([each[:-1], each[1:]], axis=1)) for net, each in features.items()}


def continuity(steps: Mapping[str, Array], window: int, overlap: int) -> dict[str, dict[str, Any]]:
    """By measure the median change inside windows, the largest change of each seam, and ratios to that median.

    `steps`: the `changes` (T - 1,) of a clip of T frames. Ratios are None where nothing moves inside windows.
    """
    found = {}
    for name, values in steps.items():
        places = list(seams(len(values) + 1, window, overlap))
        inside = np.ones(len(values), bool)
        for place in places:
            inside[place] = False
        across, median = [float(values[place].max()) for place in places], float(np.median(values[inside]))
        found[name] = {
            "inside_median": median,
            "inside_largest_ratio": float(values[inside].max()) / median if median else None,
            "seams": across,
            "seam_ratios": [each / median if median else None for each in across],
        }
    return found
