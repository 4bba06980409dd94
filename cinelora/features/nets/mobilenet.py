"""MobileNetV2: what is in a frame, from a small ImageNet trunk whose weights a package ships.

In: uint8 frames (N, T, H, W, 3) and the safetensors file that `make fetch` makes. Out: float32 (N, T, 1280).
Sandler et al. 2018 (arXiv 1801.04381).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cinelora.features.nets.files import Loaded, checked, fitted_part, read_tensors
from cinelora.features.nets.frames import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Floats,
    Frames,
    check_frames,
    frame_features,
    shrunk,
)
from cinelora.metrics.feature_nets import WEIGHTS

SIZE = (128, 128)  # why not 224: cinelora/metrics/feature_nets.py


def _conv(channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(filters)]


class _InvertedResidual(nn.Module):
    """Widen, filter each channel in space, narrow without activation (arXiv 1801.04381, fig. 4)."""

    def __init__(self, channels: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        widen = [] if expansion == 1 else [*_conv(channels, wide, 1), nn.ReLU6()]
        depthwise = [*_conv(wide, wide, 3, stride, groups=wide), nn.ReLU6()]
        self.conv = nn.Sequential(*widen, *depthwise, *_conv(wide, filters, 1))
        self.residual = stride == 1 and channels == filters

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, filters, H / stride, W / stride)
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


# expansion, channels, repeats, stride of the first (arXiv 1801.04381, table 2)
MOBILENET_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetTrunk(nn.Module):
    """MobileNetV2 at width 1 without its classifier (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, 32, 3, stride=2), nn.ReLU6())]
        channels = 32
        for expansion, filters, repeats, stride in MOBILENET_ROWS:
            for index in range(repeats):
                layers.append(_InvertedResidual(channels, filters, 1 if index else stride, expansion))
                channels = filters
        layers.append(nn.Sequential(*_conv(channels, 1280, 1), nn.ReLU6()))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W) in 0..1 -> (N, 1280), 0..6
        mean = x.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = x.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
        maps: Tensor = self.features((x - mean) / std)
        return maps.mean(dim=(2, 3))


def load(path: Path | str, sha256: str = "", device: torch.device | str = "cpu") -> Loaded:
    """The trunk of MobileNetV2; tensors beyond it are ignored. UserError: no such file, another hash or net."""
    path = Path(path)
    found = checked("mnv2", WEIGHTS["mnv2"].files[0], path, sha256)
    net = fitted_part("mnv2", path, MobileNetTrunk, read_tensors("mnv2", path))
    _fold_norms(net)  # with the next line 2.7 times as fast on a CPU, equal to 2e-5
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Loaded(net.to(device), {"weights": found})


def extract(net: nn.Module, frames: Frames, batch: int = 1) -> Floats:
    """`frames` uint8 (N, T, H, W, 3) -> float32 (N, T, 1280), 0..6: space means per frame.

    Each frame alone: order does not matter. `batch` clips per pass changes memory, speed and, by
    rounding below 1e-5, nothing else; on a CPU 1 is fastest.
    ValueError: frames are not uint8 (N, T, H, W, 3), or there are none.
    """
    check_frames(frames)
    return frame_features(net, frames, lambda images: shrunk(images, SIZE).div(255), batch)


def _fold_norms(net: nn.Module) -> None:
    """Multiply every batch norm into the convolution before it."""
    for part in net.modules():
        if isinstance(part, nn.Sequential):
            for index in range(len(part) - 1):
                conv, norm = part[index], part[index + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    part[index], part[index + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
