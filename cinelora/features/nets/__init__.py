"""Feature nets behind one signature: name -> how to load it and how to run it.


    loaded = open_net("i3d", path)                         # UserError: wrong or missing file
    features = NETS["i3d"].extract(loaded.net, frames)     # uint8 (N, T, H, W, 3) -> float32

Facts of each net: `cinelora/metrics/feature_nets.py`. No weights come with this package: the user gives their path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cinelora.features.nets import clip, dino, i3d, lpips, mobilenet, transnet, videomae, vjepa
from cinelora.features.nets.files import Loaded
from cinelora.features.nets.frames import Floats
from cinelora.metrics.feature_nets import WEIGHTS, Weights


@dataclass(frozen=True)
class Net:
    """How to load and run a net; `facts` describe its input and output."""

    facts: Weights
    load: Callable[..., Loaded]  # (path, sha256 pin or pins by role, device) -> Loaded
    extract: Callable[..., Floats]  # (net, frames, batch) or, for a pair, (net, frames, frames, batch)


_CODE: dict[str, Any] = {
    "tnv2": transnet,
    "mnv2": mobilenet,
    "i3d": i3d,
    "videomae": videomae,
    "vjepa": vjepa,
    "dino": dino,
    "lpips": lpips,
}
NETS: dict[str, Net] = {name: Net(WEIGHTS[name], code.load, code.extract) for name, code in _CODE.items()}
NETS |= {name: Net(WEIGHTS[name], partial(clip.load, name), clip.extract) for name in clip.DIMENSION}


def open_net(
    name: str, path: Path | str, pins: Mapping[str, str] | None = None, device: torch.device | str = "cpu"
) -> Loaded:
    """The net `name` with the weights at `path`; `pins` are SHA-256 values by role of the file.

    UserError: a file is missing, has another hash than its pin or the published one, or holds another net.
    KeyError: no such net.
    """
    net, given = NETS[name], dict(pins or {})
    if len(net.facts.files) > 1:
        return net.load(path, sha256=given, device=device)
    return net.load(path, sha256=given.get(net.facts.files[0].role, ""), device=device)
