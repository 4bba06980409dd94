"""At equal features our distances are those of pytorch-fid, torch-fidelity, torchmetrics and videojedi."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cinelora.metrics.distances import frechet_distance, kernel_distance, polynomial_mmd

pytestmark = pytest.mark.filterwarnings("ignore::cinelora.metrics.distances.UnreliableDistance")

PEERS = Path(sys.prefix) / "peers"
PROGRAM = Path(__file__).with_name("peer_distances.py")
EXACT = 1e-12
ROOTS = 1e-6  # they take roots of eigenvalues that are 0 but for rounding; found: 6e-8 at 96 clips, 448 dimensions
SIZES = {  # made clips, real clips, dimensions
    "more clips than dimensions": (60, 40, 8),
    "fewer clips than dimensions": (12, 15, 40),
    "equal counts": (50, 50, 16),
    "equal counts, fewer clips": (20, 20, 48),
    "a study's": (96, 96, 448),
}
OURS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "pytorch-fid": frechet_distance,
    "torch-fidelity FID": frechet_distance,
    "torch-fidelity KID": kernel_distance,
    "torch-fidelity KID, biased": lambda x, y: polynomial_mmd(x, y, unbiased=False),
    "torchmetrics KID": kernel_distance,
    "videojedi": lambda x, y: kernel_distance(x, y, "jedi"),
}


def _sets(size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Made (N, D) and real (M, D) whose deviations fall from 1 to 0.1, as those of a net do."""
    made, real, dims = size
    random, scale = np.random.default_rng(made), np.geomspace(1, 0.1, dims)
    return 1.2 * random.normal(size=(made, dims)) * scale + 0.2 * scale, random.normal(size=(real, dims)) * scale


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    assert PEERS.is_dir(), f"{PEERS} is missing: run `make test`, or pip install --no-deps --target it"
    path = tmp_path_factory.mktemp("peers") / "features.npz"
    np.savez(path, **{f"{case}.{name}": s for case in SIZES for name, s in zip("xy", _sets(SIZES[case]), strict=True)})
    done = subprocess.run([sys.executable, PROGRAM, PEERS, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", SIZES)
def test_distances_are_those_of_the_published_packages(case: str, theirs: dict[str, dict[str, float]]) -> None:
    size = SIZES[case]
    expected = set(OURS) if size[0] == size[1] else {"pytorch-fid", "torch-fidelity FID", "videojedi"}
    assert set(theirs[case]) == expected
    singular = min(size[:2]) <= size[2]
    for name, value in theirs[case].items():
        tolerance = ROOTS if singular and name in ("pytorch-fid", "torch-fidelity FID") else EXACT
        assert OURS[name](*_sets(size)) == pytest.approx(value, rel=tolerance), name
