"""From uint8 clips to the pixels a net wants, and through the net.

In: uint8 RGB frames (N, T, H, W, 3), levels 0..255. Out: float32. N clips, T frames, H x W pixels, D features.
Resizing is done in float and never rounded back to levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cinelora.metrics.feature_nets import Weights

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_frames(frames: Frames, length: int | None = None, least: int = 1) -> None:
    """ValueError unless `frames` are uint8 (N, T, H, W, 3), N >= 1, with T == `length` (if given) and T >= `least`."""
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or frames.size == 0:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}: give uint8 (N, T, H, W, 3)")
    count = frames.shape[1]
    if length is not None and count != length:
        raise ValueError(f"clips have {count} frames: give exactly {length}")
    if count < least:
        raise ValueError(f"clips have {count} frames: give {least} or more")


def images_of(clips: Frames, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (N, T, H, W, 3) -> float32 (N * T, 3, H, W), levels 0..255."""
    return torch.from_numpy(clips.copy()).to(device).flatten(0, 1).permute(0, 3, 1, 2).float()


def squashed(images: Tensor, size: int | tuple[int, int], antialias: bool = False) -> Tensor:
    """(M, 3, H, W) -> (M, 3, *size) or a square, bilinear, aspect ratio not kept.

    Without antialiasing, as Unterthiner et al. 2018 (arXiv 1812.01717) and cd-fvd resize for FVD, shrinking 480 rows to
    224 skips some pixels.
    """
    return functional.interpolate(images, size=size, mode="bilinear", antialias=antialias)


def shorter_side(images: Tensor, side: int, mode: str) -> Tensor:
    """(M, 3, H, W) -> the shorter side is `side`, the longer keeps the ratio, rounded down: antialiased `mode`.

    Bicubic overshoots at edges: levels are cut to 0..255 after the columns and after the rows, as Pillow and
    torchvision cut them. On hard edges that is worth a dozen levels.
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    rows, columns = (side, side * width // short) if height <= width else (side * height // short, side)
    for size in ((height, columns), (rows, columns)):
        images = functional.interpolate(images, size=size, mode=mode, antialias=True, align_corners=False)
        images = images.clamp(0, 255)
    return images


def centre(images: Tensor, side: int) -> Tensor:
    """(M, 3, H, W) -> the middle (M, 3, side, side); H and W must be `side` or more."""
    top, left = (round((extent - side) / 2) for extent in images.shape[-2:])
    return images[..., top : top + side, left : left + side]


def standardised(images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """(M, 3, H, W) in levels 0..255 -> zero mean and unit deviation of the training set, per channel."""
    shape = (1, 3, 1, 1)
    return (images / 255 - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)


def extract(
    facts: Weights, pixels: Callable[[Tensor], Tensor], net: nn.Module, frames: Frames, batch: int = 1
) -> Floats:
    """uint8 `frames` (N, T, H, W, 3) -> float32 (N, D) of a video net, (N, T, D) of a frame net: each frame alone.

    `pixels` maps images (N * T, 3, H, W), levels 0..255, to what the net sees, (N * T, 3, h, w); a video net is given
    (N, 3, T, h, w). `batch` clips per pass changes memory, speed and, by rounding below 1e-5, nothing else.
    ValueError: frames of another type or shape, or fewer or more than the net takes.
    """
    check_frames(frames, facts.most_frames, facts.least_frames)
    parts = []
    for clips in batches(frames, batch):
        images = pixels(images_of(clips, device_of(net)))
        if facts.kind == "video":
            images = images.unflatten(0, clips.shape[:2]).transpose(1, 2).contiguous()
        parts.append(run(net, images))
    features = np.concatenate(parts)
    return features if facts.kind == "video" else features.reshape(*frames.shape[:2], -1)


def batches(frames: Frames, batch: int) -> Iterator[Frames]:
    """`frames` in runs of `batch` clips; the last may be shorter."""
    return (frames[start : start + batch] for start in range(0, len(frames), batch))


def device_of(net: nn.Module) -> torch.device:
    """Where the weights of `net` are; the CPU if it has none (a frozen script holds them as constants)."""
    return next((tensor.device for tensor in chain(net.parameters(), net.buffers())), torch.device("cpu"))


def run(net: Callable[..., Tensor], *inputs: Tensor) -> Floats:
    """`net(*inputs)` on the host as float32, without gradients."""
    # on a GPU the same kernels every time, and no TF32, whose 10-bit mantissa is far coarser
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        return net(*inputs).float().cpu().numpy()
