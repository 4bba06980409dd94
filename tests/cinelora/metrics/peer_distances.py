"""Distances of other packages on given features, each computed by the package's own code.

    python tests/cinelora/metrics/peer_distances.py PEERS IN.npz > OUT.json

In: PEERS, the folder that `tests/peers.txt` is installed to; an .npz with pairs of arrays `CASE.x` (N, D) and `CASE.y`
(M, D). Out: {case: {package: distance}}. A process of its own, so that no other test sees these packages. They want
torchvision and vjepa for pictures and networks, which no formula touches: those two are stood in for.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import torch

ABSENT = ("torchvision", "vjepa")


class _Name(type):
    """An empty class, all of whose attributes are empty classes."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})


class _StandIns(MetaPathFinder, Loader):
    """Modules of `ABSENT`, in which every name is a `_Name`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        known = fullname.partition(".")[0] in ABSENT
        return ModuleSpec(fullname, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = lambda name: _Name(name, (), {})


def pytorch_fid(x: np.ndarray, y: np.ndarray) -> float:
    from pytorch_fid.fid_score import calculate_frechet_distance

    moments = [moment for rows in (x, y) for moment in (rows.mean(axis=0), np.cov(rows, rowvar=False))]
    return float(calculate_frechet_distance(*moments))


def torch_fidelity_fid(x: np.ndarray, y: np.ndarray) -> float:
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    laws = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (x, y)]
    return float(fid_statistics_to_metric(*laws, verbose=False)[KEY_METRIC_FID])


def torch_fidelity_kid(x: np.ndarray, y: np.ndarray) -> float:
    """One subset of all clips, which its code allows for equal counts only."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    rows = torch.from_numpy(x), torch.from_numpy(y)
    found = kid_features_to_metric(*rows, kid_subsets=1, kid_subset_size=len(x), verbose=False)
    return float(found[KEY_METRIC_KID_MEAN])


def torch_fidelity_kid_biased(x: np.ndarray, y: np.ndarray) -> float:
    from torch_fidelity.metric_kid import kernel_poly, mmd2

    kernels = (kernel_poly(a, b) for a, b in ((x, x), (x, y), (y, y)))
    return float(mmd2(*kernels, mmd_est="biased"))


def torchmetrics_kid(x: np.ndarray, y: np.ndarray) -> float:
    """The class, with one subset of all clips and the features as the network's output."""
    from torchmetrics.image.kid import KernelInceptionDistance

    class Features(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows

    metric = KernelInceptionDistance(feature=Features(), subsets=1, subset_size=len(x)).set_dtype(torch.float64)
    metric.update(torch.from_numpy(y), real=True)
    metric.update(torch.from_numpy(x), real=False)
    return float(metric.compute()[0])


def videojedi(x: np.ndarray, y: np.ndarray) -> float:
    from videojedi import JEDiMetric

    metric = JEDiMetric(feature_path="unused")
    metric.train_features, metric.test_features = y, x
    return float(metric.compute_metric())


ANY_COUNTS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pytorch-fid": pytorch_fid,
    "torch-fidelity FID": torch_fidelity_fid,
    "videojedi": videojedi,
}
EQUAL_COUNTS = {
    "torch-fidelity KID": torch_fidelity_kid,
    "torch-fidelity KID, biased": torch_fidelity_kid_biased,
    "torchmetrics KID": torchmetrics_kid,
}


def main(peers: str, path: str) -> dict[str, dict[str, float]]:
    sys.path.insert(0, peers)
    sys.meta_path.append(_StandIns())  # last: a real one would be found first
    found: dict[str, dict[str, float]] = {}
    with np.load(path) as arrays:
        for case in sorted({name.rpartition(".")[0] for name in arrays.files}):
            x, y = arrays[f"{case}.x"], arrays[f"{case}.y"]
            able = ANY_COUNTS | (EQUAL_COUNTS if len(x) == len(y) else {})
            with contextlib.redirect_stdout(sys.stderr):  # pytorch-fid prints
                found[case] = {name: distance(x, y) for name, distance in able.items()}
    return found


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
