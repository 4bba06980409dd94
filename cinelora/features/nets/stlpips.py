"""ST-LPIPS: LPIPS that a shift of a picture by a pixel or two hardly changes.

In: the file that `make fetch` takes out of the package stlpips-pytorch. Out: the net; it is run by `lpips.extract`.
Ghildyal and Liu 2022 (arXiv 2207.13686), AlexNet, version ST0.0. Distance, levels and heads are those of `lpips.py`.
The trunk differs: no stride but in blurs of 3 x 3 (Zhang 2019, arXiv 1904.11486), which mirror 2 pixels at borders.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from cinelora.features.nets import lpips
from cinelora.features.nets.files import fitted, read_tensors

TAPS = (2, 6, 10, 12, 14)  # the rectifiers, by their place in `trunk`
PIXELS = 2**17  # at once: the first layer, without stride, holds 64 channels of each, 32 MiB in float32


def trunk() -> nn.Sequential:
    """AlexNet's convolutions; where it has a stride of 4, two blurs halve, where a pooling of stride 2, one."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, padding=2),
        _blur(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=1),
        _blur(64),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=1),
        _blur(192),
        *lpips.last_layers(),
    )


def _blur(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, stride=2, padding=2, padding_mode="reflect", groups=width, bias=False)


def shift_tolerant() -> lpips.PerceptualDistance:
    return lpips.PerceptualDistance(trunk(), TAPS)


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """The net with trunk, blurs and heads of the file at `path`. UserError: tensors of another net."""
    tensors = read_tensors(name, path)
    renamed = {re.sub(r"^net\.slice\d\.(\d+)\.", r"features.\1.", key): each for key, each in tensors.items()}
    renamed = {re.sub(r"^lin(\d)\.model\.1\.weight$", r"heads.\1", key): each for key, each in renamed.items()}
    renamed = {re.sub(r"\.filt$", ".weight", key): each for key, each in renamed.items()}
    return fitted(name, path, shift_tolerant, renamed, unused=("scaling_layer.",)).to(device)
