"""Frames of the clips on disk, for the contact sheet and the page, and an even choice among many.

In: `samples/<clip_id>.mp4`. Out: uint8 RGB (T frames, H, W, 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from cinelora.core.cli import UserError

MAX_HEIGHT = 180  # pixels of one frame: about 300 dots per inch in print

Image = NDArray[np.uint8]
Item = TypeVar("Item")


def read_clip(path: Path) -> Image | None:
    """All frames of an mp4, uint8 RGB (T, H, W, 3), shrunk to MAX_HEIGHT; None if there is no such file."""
    if not path.exists():
        return None
    frames = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                height = min(frame.height, MAX_HEIGHT)
                width = round(frame.width * height / frame.height)
                frames.append(frame.to_ndarray(format="rgb24", width=width, height=height))
    except av.FFmpegError as error:
        raise UserError(f"{path}: damaged ({error.strerror}); restore it, or remove it to show none") from error
    return np.stack(frames).astype(np.uint8) if frames else None


def spread(items: tuple[Item, ...], count: int) -> tuple[Item, ...]:
    """At most `count` of `items`, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return tuple(items[round(index * (len(items) - 1) / (count - 1))] for index in range(count))
