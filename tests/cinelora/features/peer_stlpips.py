"""Distances by the code of stlpips-pytorch itself.

    python tests/cinelora/features/peer_stlpips.py PACKAGE IN.npz OUT.npz

In: the folder that the package is installed to; pairs of arrays `CASE.x` and `CASE.y`, uint8 (N, T, H, W, 3). Out:
`CASE.paired` (N, T), x to y, and `CASE.before` (N, T - 1), x to its frame before. A process of its own, so that no
other test sees the package. It imports torchvision, torchsummary and IPython, which its AlexNet does not use: stood in
for.
"""

from __future__ import annotations

import sys
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import torch

for name in ("torchvision", "torchvision.models", "torchsummary", "IPython"):
    absent = MagicMock(spec=ModuleType(name))
    absent.models = absent.summary = absent.embed = None
    sys.modules[name] = absent


def main(package: str, source: str, target: str) -> None:
    sys.path.insert(0, package)
    from stlpips_pytorch import stlpips

    net = stlpips.LPIPS(net="alex", variant="shift_tolerant", verbose=False)
    found, pairs = {}, np.load(source)
    for case in sorted({key.partition(".")[0] for key in pairs}):
        x, y = (torch.from_numpy(pairs[f"{case}.{each}"]).permute(0, 1, 4, 2, 3) / 127.5 - 1 for each in "xy")
        with torch.inference_mode():
            found[f"{case}.paired"] = np.stack([net(a, b).flatten().numpy() for a, b in zip(x, y, strict=True)])
            found[f"{case}.before"] = np.stack([net(a[1:], a[:-1]).flatten().numpy() for a in x])
    np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
