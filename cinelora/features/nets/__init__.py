"""Feature nets behind one signature: name -> how to build it and how to run it.


    loaded = open_net("i3d", path)                         # UserError: wrong or missing file
    features = NETS["i3d"].extract(loaded.net, frames)     # uint8 (N, T, H, W, 3) -> float32

Facts of each net: `cinelora/metrics/feature_nets.py`. No weights come with this package: the user gives their path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cinelora.features.nets import clip, dino, i3d, lpips, mobilenet, stlpips, transnet, videomae, vjepa
from cinelora.features.nets.files import Loaded
from cinelora.features.nets.frames import extract
from cinelora.metrics.feature_nets import LPIPS_SIDE, STLPIPS_SIDE, WEIGHTS, Weights, checked_files


@dataclass(frozen=True)
class Net:
    """How to build and run a net; `facts` describe its files, input and output."""

    facts: Weights
    build: Callable[[str, Path, torch.device | str], nn.Module]  # its files are those of `facts`, already checked
    extract: Callable[..., Any]  # (net, frames, batch) -> floats; for a pair (net, frames, reference) -> two of them
    bundled: dict[str, str] = field(default_factory=dict)  # SHA-256 by role of what a package brings


def _net(name: str, code: Any, batch: int = 1) -> Net:
    facts = WEIGHTS[name]
    return Net(facts, code.build, partial(extract, facts, code.pixels, batch=batch))


def _pair(name: str, code: Any, least_side: int, bundled: Mapping[str, str] = {}, **options: Any) -> Net:
    return Net(WEIGHTS[name], code.build, partial(lpips.extract, least_side, **options), dict(bundled))


NETS: dict[str, Net] = {
    "tnv2": _net("tnv2", transnet, batch=2),  # the fastest on a CPU
    "mnv2": _net("mnv2", mobilenet),
    "i3d": _net("i3d", i3d),
    "videomae": _net("videomae", videomae),
    "vjepa": _net("vjepa", vjepa),
    "clip_b32": _net("clip_b32", clip),
    "clip_l14": _net("clip_l14", clip),
    "dino": _net("dino", dino),
    "lpips": _pair("lpips", lpips, LPIPS_SIDE, {lpips.HEADS_FILE.role: lpips.HEADS_FILE.sha256[0]}),
    "stlpips": _pair("stlpips", stlpips, STLPIPS_SIDE, pixels=stlpips.PIXELS),
}


def open_net(
    name: str, path: Path | str, pins: Mapping[str, str] | None = None, device: torch.device | str = "cpu"
) -> Loaded:
    """The net `name` with the weights at `path`; `pins` are SHA-256 values by role of the file.

    UserError: a file is missing, has another hash than its pin or the published one, or holds another net.
    KeyError: no such net.
    """
    net, path = NETS[name], Path(path)
    found = checked_files(name, path, pins)
    return Loaded(net.build(name, path, device), found | net.bundled)
