"""The two packaged feature nets by name: a short way to `cinelora.nets` for code that uses no other.

In: uint8 RGB frames (N, T, H, W, 3), levels 0..255, and a pinned safetensors file per net.
Out: float32 arrays on the host. N clips, T frames. Both nets see a squashed frame (aspect ratio not kept) after an
antialiased bilinear resize.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cinelora.features.nets import open_net
from cinelora.features.nets.mobilenet import extract as frame_features
from cinelora.features.nets.transnet import extract as video_features

__all__ = ["frame_features", "load_net", "video_features"]


def load_net(name: str, path: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """The net `name` ("tnv2" or "mnv2") with its pinned weights: eval mode, frozen, float32, on `device`.

    UserError: no such file, or its SHA-256 is not the one in `WEIGHTS`. KeyError: no such net.
    """
    return open_net(name, path, device=device).net
