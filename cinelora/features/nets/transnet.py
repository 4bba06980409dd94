"""TransNetV2: the trunk of a shot boundary net, a small video feature whose weights a package ships.

In: uint8 frames (N, T, H, W, 3) and the safetensors file that `make fetch` makes. Out: float32 (N, 448).
Soucek and Lokoc 2020 (arXiv 2008.04838).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import squashed

SIZE = (27, 48)  # rows, columns: what the net was trained on
HEADS = ("cls_layer", "color_hist_layer.", "fc1.", "frame_sim_layer.")  # of the boundary detector


def _dilated(channels: int, filters: int, dilation: int) -> nn.Module:
    """A 3x3 convolution in space, then three taps `dilation` frames apart in time (arXiv 1711.11248)."""
    space = nn.Conv3d(channels, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
    pad, step = (dilation, 0, 0), (dilation, 1, 1)
    time = nn.Conv3d(2 * filters, filters, (3, 1, 1), padding=pad, dilation=step, bias=False)
    return nn.Sequential(OrderedDict(layers=nn.Sequential(space, time)))


class _DilatedBlock(nn.Module):
    """Four time scales side by side; the names of the branches are those of the weight file."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        for dilation in (1, 2, 4, 8):
            self.add_module(f"Conv3D_{dilation}", _dilated(channels, filters, dilation))
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)  # eps of the training code, not PyTorch's 1e-5

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, H, W) -> (N, 4 filters, T, H, W)
        *branches, norm = self.children()
        return norm(torch.cat([branch(x) for branch in branches], dim=1))


class _Stack(nn.Module):
    """Two blocks with a shortcut around the second, then half the height and width."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([_DilatedBlock(channels, filters), _DilatedBlock(4 * filters, filters)])

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, H, W) -> (N, 4 filters, T, H // 2, W // 2)
        first = functional.relu(self.DDCNN[0](x))
        both = functional.relu(self.DDCNN[1](first)) + first  # rectified before the sum, not after
        return functional.avg_pool3d(both, (1, 2, 2))


class TransNetTrunk(nn.Module):
    """The convolutional part of TransNetV2 (Soucek and Lokoc 2020, arXiv 2008.04838)."""

    def __init__(self) -> None:
        super().__init__()
        self.SDDCNN = nn.ModuleList([_Stack(3, 16), _Stack(64, 32), _Stack(128, 64)])

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, T, 27, 48) in 0..1 -> (N, 448)
        means = []
        for stack in self.SDDCNN:  # 64, 128, 256 channels over 13x24, 6x12, 3x6 pixels
            x = stack(x)
            means.append(x.mean(dim=(2, 3, 4)))
        return torch.cat(means, dim=1)


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """The trunk of TransNetV2; the layers after it are ignored. UserError: tensors of another net."""
    return fitted(name, path, TransNetTrunk, read_tensors(name, path), HEADS).to(device)


def pixels(images: Tensor) -> Tensor:
    """Shrunk to 27x48, levels to 0..1."""
    return squashed(images, SIZE, antialias=True) / 255
