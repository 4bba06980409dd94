"""The picture that a clip starts from: an image file, or a frame of a video as FILE@SECONDS.

In: the value of --image, the size of the clips. Out: uint8 (H, W, 3). Raises UserError.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cinelora.core.cli import UserError
from cinelora.core.config import DataConfig
from cinelora.data.video import decode_window, resize_rgb


def read_keyframe(text: str, data: DataConfig) -> NDArray[np.uint8]:
    """The picture in `data.height` x `data.width` pixels, resized as the training clips were."""
    if Path(text).is_file():
        return resize_rgb(_image(Path(text)), data.height, data.width, data.resize).copy()  # Pillow's is read-only
    video, at, seconds = text.rpartition("@")
    if not at or not Path(video).is_file():
        raise UserError(f"--image {text}: no such file; give an image, or FILE@SECONDS of a video")
    return decode_window(Path(video), _seconds(text, seconds), data.fps, 1, data.height, data.width, data.resize)[0]


def _seconds(text: str, seconds: str) -> float:
    try:
        value = float(seconds)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"--image {text}: {seconds!r} is not a time in seconds; give FILE@SECONDS, e.g. clip.mp4@1.5")
    return value


def _image(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(
            f"--image {path}: cannot be read as an image; for a frame of a video give {path}@SECONDS"
        ) from error
