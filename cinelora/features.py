"""Feature nets that turn frames into vectors: the trunks of TransNetV2 (video) and MobileNetV2 (frame).

In: uint8 RGB frames (N, T, H, W, 3), levels 0..255, and a pinned safetensors file per net.
Out: float32 arrays on the host. N clips, T frames, H x W pixels, C channels.
Both nets see a squashed frame (aspect ratio not kept) after an antialiased bilinear resize.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cinelora.errors import UserError
from cinelora.records import file_sha256
from cinelora.weights import WEIGHTS, Weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of the training set of MobileNetV2, RGB in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)


class _DilatedConv(nn.Module):
    """A 3x3 convolution in space, then three taps `dilation` frames apart in time (arXiv 1711.11248)."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(channels, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        pad, step = (dilation, 0, 0), (dilation, 1, 1)
        time = nn.Conv3d(2 * filters, filters, (3, 1, 1), padding=pad, dilation=step, bias=False)
        self.layers = nn.ModuleList([space, time])

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, H, W) -> (N, filters, T, H, W)
        for layer in self.layers:
            x = layer(x)
        return x


class _DilatedBlock(nn.Module):
    """Four time scales side by side; the names of the branches are those of the weight file."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.Conv3D_1 = _DilatedConv(channels, filters, 1)
        self.Conv3D_2 = _DilatedConv(channels, filters, 2)
        self.Conv3D_4 = _DilatedConv(channels, filters, 4)
        self.Conv3D_8 = _DilatedConv(channels, filters, 8)
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)  # eps of the training code, not PyTorch's 1e-5

    def forward(self, x: Tensor) -> Tensor:  # (N, C, T, H, W) -> (N, 4 filters, T, H, W)
        branches = (self.Conv3D_1, self.Conv3D_2, self.Conv3D_4, self.Conv3D_8)
        joined: Tensor = self.bn(torch.cat([branch(x) for branch in branches], dim=1))
        return joined


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

    def stacks(self, x: Tensor) -> list[Tensor]:
        """(N, 3, T, 27, 48) in 0..1 -> three maps of 64, 128, 256 channels over 13x24, 6x12, 3x6 pixels."""
        maps = []
        for stack in self.SDDCNN:
            x = stack(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, T, 27, 48) in 0..1 -> (N, 448)
        return torch.cat([each.mean(dim=(2, 3, 4)) for each in self.stacks(x)], dim=1)


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


NETS: dict[str, Callable[[], nn.Module]] = {"tnv2": TransNetTrunk, "mnv2": MobileNetTrunk}


def load_net(name: str, path: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The net `name` ("tnv2" or "mnv2") with its pinned weights: eval mode, frozen, float32, on `device`.

    `path` is a safetensors file; tensors beyond the trunk are ignored.
    UserError: no such file, or its SHA-256 is not the one in `WEIGHTS`. KeyError: no such net.
    """
    _check_file(WEIGHTS[name], Path(path))
    with torch.device("meta"):  # no initial values, so the global random generator stays where it is
        net = NETS[name]()
    tensors = load_file(Path(path))
    net.load_state_dict({key: tensors[key] for key in net.state_dict() if key in tensors}, assign=True)
    net = net.float().eval().requires_grad_(False)
    if name == "mnv2":  # 2.7 times as fast on a CPU, equal to 2e-5
        _fold_norms(net)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.to(device)


def _fold_norms(net: nn.Module) -> None:
    """Multiply every batch norm into the convolution before it."""
    for part in net.modules():
        if isinstance(part, nn.Sequential):
            for index in range(len(part) - 1):
                conv, norm = part[index], part[index + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    part[index], part[index + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _check_file(weights: Weights, path: Path) -> None:
    setting = f"score.{weights.name}={path}"
    remedy = f"run cinelora-fetch, or set score.{weights.name} to '' to do without"
    if not path.is_file():
        raise UserError(f"{setting}: no such file; {remedy}")
    found = file_sha256(path)
    if found != weights.sha256:
        raise UserError(f"{setting}: SHA-256 expected {weights.sha256}, found {found}; {remedy}")


def video_features(net: nn.Module, frames: NDArray[np.uint8], batch: int = 2) -> NDArray[np.float32]:
    """`frames` uint8 (N, T, H, W, 3) -> float32 (N, 448), 0 or more: time and space means of three stacks.

    Frames are the video: their order and number matter. `batch` clips per pass changes memory, speed
    and, by rounding below 1e-5, nothing else; on a CPU 2 is fastest.
    ValueError: frames are not uint8 (N, T, H, W, 3), or there are none.
    """
    _check_frames(frames)
    size = WEIGHTS["tnv2"].size
    parts = [_run(net, _resized(clips, size, net).transpose(1, 2)) for clips in _batches(frames, batch)]
    return np.concatenate(parts)


def frame_features(net: nn.Module, frames: NDArray[np.uint8], batch: int = 1) -> NDArray[np.float32]:
    """`frames` uint8 (N, T, H, W, 3) -> float32 (N, T, 1280), 0..6: space means per frame.

    Each frame alone: order does not matter. `batch` clips per pass changes memory, speed and, by
    rounding below 1e-5, nothing else; on a CPU 1 is fastest.
    ValueError: frames are not uint8 (N, T, H, W, 3), or there are none.
    """
    _check_frames(frames)
    size = WEIGHTS["mnv2"].size
    parts = [_run(net, _resized(clips, size, net).flatten(0, 1)) for clips in _batches(frames, batch)]
    return np.concatenate(parts).reshape(*frames.shape[:2], -1)


def _check_frames(frames: NDArray[np.uint8]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or frames.size == 0:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}: give uint8 (N, T, H, W, 3)")


def _batches(frames: NDArray[np.uint8], batch: int) -> Iterator[NDArray[np.uint8]]:
    return (frames[start : start + batch] for start in range(0, len(frames), batch))


def _resized(clips: NDArray[np.uint8], size: tuple[int, int], net: nn.Module) -> Tensor:
    """uint8 (N, T, H, W, 3) -> float32 (N, T, 3, *size) in 0..1 on the device of `net`."""
    count, length = clips.shape[:2]
    device = next(net.parameters()).device
    images = torch.from_numpy(clips.copy()).to(device).flatten(0, 1).permute(0, 3, 1, 2)
    images = functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return images.div(255).reshape(count, length, 3, *size)


def _run(net: nn.Module, x: Tensor) -> NDArray[np.float32]:
    with torch.inference_mode(), _exact_convolutions():
        features: NDArray[np.float32] = net(x.contiguous()).float().cpu().numpy()
    return features


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """On a GPU: the same kernels every time, and no TF32, whose 10-bit mantissa is far coarser."""
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with flags:
        yield
