"""LPIPS: how different two images look, from AlexNet activations weighted by human judgements.

In: uint8 frames (N, T, H, W, 3) and those to compare with, at their own size, and the AlexNet of torchvision.
Out: float32, a distance for each pair of frames, 0 or more; 0 for equal frames.
Zhang et al. 2018 (arXiv 1801.03924, eq. 1), version 0.1. The five weightings ("heads", 6 kB) come with torchmetrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import Floats, Frames, check_frames, device_of, images_of, run
from cinelora.metrics.feature_nets import WeightFile, checked

WIDTHS = (64, 192, 384, 256, 256)
TAPS = (1, 4, 7, 9, 11)  # the rectifiers, by their place in torchvision's `features`
# Mean and deviation of ImageNet for RGB in -1..1, to the three digits that version 0.1 was fitted with
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
HEADS_FILE = WeightFile(
    "heads",
    ("alex.pth",),
    ("df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",),
)


def alexnet() -> nn.Sequential:
    """Krizhevsky 2014 (arXiv 1404.5997), the one-column form, without what follows the last rectifier."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        *last_layers(),
    )


def last_layers() -> tuple[nn.Module, ...]:
    """AlexNet after its last pooling, (N, 192, H, W) -> (N, 256, H, W); the same in every variant of the net."""
    return (
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


class PerceptualDistance(nn.Module):
    """LPIPS 0.1 on the layers `taps` of a trunk; on AlexNet's unless another one is given."""

    def __init__(self, features: nn.Sequential | None = None, taps: Sequence[int] = TAPS) -> None:
        super().__init__()
        self.features, self.taps = features or alexnet(), taps
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(1, width, 1, 1)) for width in WIDTHS])

    def directions(self, images: Tensor) -> list[Tensor]:
        """(M, 3, H, W) in -1..1 -> five maps (M, C, h, w) of unit length along C, where not all zero."""
        shape = (1, 3, 1, 1)
        x = (images - images.new_tensor(SHIFT).view(shape)) / images.new_tensor(SCALE).view(shape)
        maps = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.taps:
                maps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return maps

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """(M, 3, H, W) and as many or fewer (R, 3, H, W), in -1..1 -> (R + M - 1,).

        First how far each of the last R images is from its reference, then how far each but the first is from the one
        before.
        """
        maps = self.directions(images)
        pairs = [(each[1:], each[:-1]) for each in maps]
        if len(reference):
            first = len(images) - len(reference)
            compared = zip(maps, self.directions(reference), pairs, strict=True)
            pairs = [(torch.cat([a[first:], x]), torch.cat([b, y])) for a, b, (x, y) in compared]
        parts = [
            ((a - b).square() * head).sum(dim=1).mean(dim=(1, 2))
            for (a, b), head in zip(pairs, self.heads, strict=True)
        ]
        return torch.stack(parts).sum(dim=0)


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """LPIPS from the AlexNet at `path` (torchvision's names; its classifier is ignored) and the heads of torchmetrics.

    UserError: other heads, or tensors of another net.
    """
    tensors = read_tensors(name, path, ("state_dict",))
    with as_file(files("torchmetrics.functional.image") / "lpips_models" / "alex.pth") as heads:
        checked(name, HEADS_FILE, heads)
        held = read_tensors(name, heads)
    tensors |= {f"heads.{place}": held[f"lin{place}.model.1.weight"] for place in range(len(WIDTHS))}
    return fitted(name, path, PerceptualDistance, tensors, unused=("classifier.",)).to(device)


def extract(
    least_side: int, net: nn.Module, frames: Frames, reference: Frames | None = None, pixels: int | None = None
) -> tuple[Floats, Floats]:
    """uint8 (N, T, H, W, 3) and as many real ones -> float32 (N, T) to these, and (N, T - 1) to the frame before.

    Nothing is resized: the published protocol compares images as they are. Levels map to -1..1. Each frame passes once,
    a clip at a time or, where it has more than so many `pixels`, in pieces; without `reference` the first is (N, 0).
    ValueError: frames of another type or shape, two shapes, or a side of fewer pixels.
    """
    check_frames(frames)
    clips, count, *size = frames.shape[:4]
    if reference is not None:
        check_frames(reference)
        if frames.shape != reference.shape:
            raise ValueError(f"frames of shape {frames.shape} and {reference.shape}: give two of the same")
    if min(size) < least_side:
        raise ValueError(f"frames of {size[0]}x{size[1]} pixels: give {least_side} or more a side")
    step, device = max(1, pixels // (size[0] * size[1])) if pixels else count, device_of(net)
    to_reference, to_previous = [], []
    for clip, real in zip(frames, frames[:, :0] if reference is None else reference, strict=True):
        for start in range(0, count, step):
            both = clip[None, max(0, start - 1) : start + step], real[None, start : start + step]
            found = run(net, *(images_of(each, device) / 127.5 - 1 for each in both))
            to_reference.append(found[: both[1].shape[1]])
            to_previous.append(found[both[1].shape[1] :])
    return np.concatenate(to_reference).reshape(clips, -1), np.concatenate(to_previous).reshape(clips, count - 1)
