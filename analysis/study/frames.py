"""Frames of the clips on disk, for the contact sheet and the pages, and an even choice among many.

In: `samples/<clip_id>.mp4`. Out: uint8 RGB (T frames, H, W, 3), or all frames as one WebP picture.
"""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image as Picture

from cinelora.core.cli import UserError

MAX_HEIGHT = 180  # pixels of one frame: about 300 dots per inch in print
QUALITY = 90
BLOCK = 16  # pixels of a WebP macroblock: frames are padded to it so that none bleeds into its neighbour

Image = NDArray[np.uint8]
Item = TypeVar("Item")


def read_clip(path: Path) -> Image | None:
    """All frames of an mp4, uint8 RGB (T, H, W, 3), shrunk to MAX_HEIGHT; None if there is no such file."""
    if not path.exists():
        return None
    frames = []
    colours = VideoReformatter()  # one for all frames: a new one takes longer than its work
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                height = min(frame.height, MAX_HEIGHT)
                width = round(frame.width * height / frame.height)
                frames.append(colours.reformat(frame, format="rgb24", width=width, height=height).to_ndarray())
    except av.FFmpegError as error:
        raise UserError(f"{path}: damaged ({error.strerror}); restore it, or remove it to show none") from error
    return np.stack(frames).astype(np.uint8) if frames else None


def strip(frames: Image) -> dict[str, Any]:
    """uint8 RGB (T, H, W, 3) as one picture, in base64, with where each frame lies in it.

    Frame k is `width` x `height` pixels at column k % columns, row k // columns of a grid of cells (width, height).
    """
    count, height, width, _ = frames.shape
    columns = math.ceil(math.sqrt(count))
    right, below = -width % BLOCK, -height % BLOCK
    padded = np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    cell_height, cell_width = padded.shape[1:3]
    sheet = np.zeros((math.ceil(count / columns) * cell_height, columns * cell_width, 3), dtype=np.uint8)
    for index, frame in enumerate(padded):
        top, left = index // columns * cell_height, index % columns * cell_width
        sheet[top : top + cell_height, left : left + cell_width] = frame
    stream = io.BytesIO()
    Picture.fromarray(sheet).save(stream, "WEBP", quality=QUALITY, method=4)
    webp = base64.b64encode(stream.getvalue()).decode()
    cell = [cell_width, cell_height]
    return {"frames": count, "width": width, "height": height, "columns": columns, "cell": cell, "webp": webp}


def spread(items: tuple[Item, ...], count: int) -> tuple[Item, ...]:
    """At most `count` of `items`, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return tuple(items[round(index * (len(items) - 1) / (count - 1))] for index in range(count))
