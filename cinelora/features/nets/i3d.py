"""I3D: the 400 Kinetics logits of an inflated Inception, the feature of the published FVD.

In: uint8 frames (N, T, H, W, 3), T >= 10, and one of the two files in use. Out: float32 (N, 400).
Carreira and Zisserman 2017 (arXiv 1705.07750, fig. 3); Unterthiner et al. 2018 (arXiv 1812.01717) for the use.

`i3d_pretrained_400.pt` is a state dict. `i3d_torchscript.pt` is a program: loading it runs code of whoever wrote it, so
it is opened only when its SHA-256 is the published one or one that the user pinned. The names of the layers below are
those of the state dict.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cinelora.core.cli import UserError
from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import squashed
from cinelora.metrics.feature_nets import is_script

SIDE = 224
CLASSES = 400

Triple = tuple[int, int, int]

# Per block: output of the 1x1x1 branch; narrow and wide of the two 3x3x3 branches; output of the pooled branch.
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def same_padded(x: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Zeros around (N, C, T, H, W) so that the output has ceil(size / stride) places; the odd one goes to the end.

    TensorFlow's "SAME" rule, under which the weights were trained; PyTorch's own padding is symmetric.
    """
    pads: list[int] = []
    for size, width, step in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max(width - (size % step or step), 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


class _Unit(nn.Module):
    """Convolution, batch norm, rectifier; the last layer has a bias instead of the other two."""

    def __init__(self, channels: int, filters: int, kernel: Triple, stride: Triple = (1, 1, 1), last: bool = False):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(channels, filters, kernel, stride, bias=last)
        # 1e-5 as in the code the state dict was published with; the TensorFlow original has 1e-3
        self.bn = None if last else nn.BatchNorm3d(filters, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, H, W) -> (N, filters, T / stride, ...)
        x = self.conv3d(same_padded(x, self.kernel, self.stride))
        return x if self.bn is None else functional.relu(self.bn(x))


class _Pool(nn.Module):
    """The largest value under the window, "SAME" padding; zeros are no larger than any rectified value."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, H, W) -> (N, C, T / stride, ...)
        return functional.max_pool3d(same_padded(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """Four views of the same input side by side (arXiv 1409.4842, fig. 2b, inflated)."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three = (1, 1, 1), (3, 3, 3)
        self.b0 = _Unit(channels, widths[0], one)
        self.b1a, self.b1b = _Unit(channels, widths[1], one), _Unit(widths[1], widths[2], three)
        self.b2a, self.b2b = _Unit(channels, widths[3], one), _Unit(widths[3], widths[4], three)
        self.b3a, self.b3b = _Pool(three, one), _Unit(channels, widths[5], one)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, H, W) -> (N, sum of the branches, T, H, W)
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class InflatedInception(nn.Module):
    """I3D on RGB with the classifier of Kinetics-400 (arXiv 1705.07750, fig. 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = _Unit(64, 64, (1, 1, 1))
        self.Conv3d_2c_3x3 = _Unit(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = _Pool((1, 3, 3), (1, 2, 2))
        channels = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = _Pool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = _Pool((2, 2, 2), (2, 2, 2))
            self.add_module(name, _Mixed(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = _Unit(channels, CLASSES, (1, 1, 1), last=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, T, 224, 224) in -1..1 -> (N, 400)
        *stages, logits = self.children()
        for stage in stages:
            x = stage(x)
        pooled = functional.avg_pool3d(x, (2, 7, 7), stride=1)  # (N, 1024, T / 8 - 1, 1, 1)
        return logits(pooled).mean(dim=(2, 3, 4))


class ScriptedI3d(nn.Module):
    """The TorchScript file behind the signature of `InflatedInception`.

    Its own rescaling and resizing stay off, so that both files see the same pixels.
    """

    def __init__(self, script: nn.Module) -> None:
        super().__init__()
        self.script = script

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, T, 224, 224) in -1..1 -> (N, 400)
        with torch.jit.optimized_execution(False):  # the GPU fuser fails on this file under newer PyTorch
            return self.script(x=x, rescale=False, resize=False, return_features=True)


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """I3D from a state dict (.pt, .safetensors) or from the TorchScript file.

    UserError: tensors of another net, or a script that this PyTorch cannot run.
    """
    if not is_script(path):
        return fitted(name, path, InflatedInception, read_tensors(name, path, ("state_dict",))).to(device)
    try:
        script = torch.jit.load(path, map_location=device)  # there at once: a frozen script keeps its constants there
    except RuntimeError as error:
        raise UserError(
            f"score.{name}={path}: PyTorch {torch.__version__} cannot run it; use the state dict"
        ) from error
    return ScriptedI3d(script).eval().requires_grad_(False)


def pixels(images: Tensor) -> Tensor:
    """Squashed to 224x224, levels to -1..1."""
    return 2 * squashed(images, SIDE) / 255 - 1
