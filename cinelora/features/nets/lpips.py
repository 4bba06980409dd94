"""LPIPS: how different two images look, from AlexNet activations weighted by human judgements.

In: two sets of uint8 frames (N, T, H, W, 3) at their own size, and the AlexNet of torchvision.
Out: float32 (N, T), 0 or more; 0 for equal frames.
Zhang et al. 2018 (arXiv 1801.03924, eq. 1), version 0.1. The five weightings ("heads", 6 kB) come with torchmetrics.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import Floats, Frames, batches, check_frames, device_of, images_of, run
from cinelora.metrics.feature_nets import LPIPS_SIDE, WeightFile, checked

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


class PerceptualDistance(nn.Module):
    """LPIPS 0.1 on AlexNet (Krizhevsky 2014, arXiv 1404.5997, the one-column form)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(1, width, 1, 1)) for width in WIDTHS])

    def directions(self, images: Tensor) -> list[Tensor]:
        """(M, 3, H, W) in -1..1 -> five maps (M, C, h, w) of unit length along C, where not all zero."""
        shape = (1, 3, 1, 1)
        x = (images - images.new_tensor(SHIFT).view(shape)) / images.new_tensor(SCALE).view(shape)
        maps = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in TAPS:
                maps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return maps

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # two (M, 3, H, W) in -1..1 -> (M,)
        pairs = zip(self.directions(first), self.directions(second), self.heads, strict=True)
        parts = [((a - b).square() * head).sum(dim=1).mean(dim=(1, 2)) for a, b, head in pairs]
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


def extract(net: nn.Module, first: Frames, second: Frames, batch: int = 1) -> Floats:
    """Two uint8 (N, T, H, W, 3) of one shape, H and W 31 or more -> float32 (N, T), frame by frame.

    Nothing is resized: the published protocol compares images as they are. Levels map to -1..1.
    ValueError: frames of another type or shape, two shapes, or frames that are too small.
    """
    check_frames(first)
    check_frames(second)
    if first.shape != second.shape:
        raise ValueError(f"frames of shape {first.shape} and {second.shape}: give two of the same")
    if min(first.shape[2:4]) < LPIPS_SIDE:
        raise ValueError(f"frames of {first.shape[2]}x{first.shape[3]} pixels: give {LPIPS_SIDE} or more a side")
    device = device_of(net)
    parts = [
        run(net, images_of(one, device) / 127.5 - 1, images_of(other, device) / 127.5 - 1)
        for one, other in zip(batches(first, batch), batches(second, batch), strict=True)
    ]
    return np.concatenate(parts).reshape(first.shape[:2])
