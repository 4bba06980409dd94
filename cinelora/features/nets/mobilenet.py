"""MobileNetV2: what is in a frame, from a small ImageNet trunk whose weights a package ships.

In: uint8 frames (N, T, H, W, 3) and the safetensors file that `make fetch` makes. Out: float32 (N, T, 1280).
Sandler et al. 2018 (arXiv 1801.04381).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import squashed, standardised

SIZE = (128, 128)  # why not 224: cinelora/metrics/feature_nets.py


def _conv(channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(filters)]


class _InvertedResidual(nn.Module):
    """Widen, filter each channel in space, narrow without activation (arXiv 1801.04381, fig. 4)."""

    def __init__(self, channels: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        widen = [] if expansion == 1 else [*_conv(channels, wide, 1), nn.ReLU6(inplace=True)]
        depthwise = [*_conv(wide, wide, 3, stride, groups=wide), nn.ReLU6(inplace=True)]
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
        layers: list[nn.Module] = [nn.Sequential(*_conv(3, 32, 3, stride=2), nn.ReLU6(inplace=True))]
        channels = 32
        for expansion, filters, repeats, stride in MOBILENET_ROWS:
            for index in range(repeats):
                layers.append(_InvertedResidual(channels, filters, 1 if index else stride, expansion))
                channels = filters
        layers.append(nn.Sequential(*_conv(channels, 1280, 1), nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W), standardised -> (N, 1280), 0..6
        maps: Tensor = self.features(x)
        return maps.mean(dim=(2, 3))


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """The trunk of MobileNetV2; a classifier is ignored. UserError: tensors of another net."""
    net = fitted(name, path, MobileNetTrunk, read_tensors(name, path), unused=("classifier.",))
    net = fuse(net)  # batch norms into the convolutions: with channels last 2.7 times as fast on a CPU, equal to 2e-5
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def pixels(images: Tensor) -> Tensor:
    """Shrunk to 128x128, ImageNet mean and deviation."""
    return standardised(squashed(images, SIZE, antialias=True))
