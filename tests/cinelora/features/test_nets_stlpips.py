"""ST-LPIPS: its layers by hand, and against the package it comes from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cinelora.core.cli import UserError
from cinelora.features.nets import NETS, open_net
from cinelora.features.nets import stlpips as own
from cinelora.metrics.feature_nets import WEIGHTS
from launch.fetch import PACKAGES, to_safetensors

(PACKAGE,) = (each for each in PACKAGES if each.requirement.startswith("stlpips"))
PROGRAM = Path(__file__).with_name("peer_stlpips.py")
SIZES = {"square": (64, 64), "wide": (64, 112), "odd": (37, 53)}


def _frames(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 3, *size, 3), dtype=np.uint8)


def test_layout_and_least_size() -> None:
    net = own.shift_tolerant()
    shapes = [tuple(net.features[place].weight.shape) for place in (0, 5, 9, 11, 13)]
    assert shapes == [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]
    with torch.no_grad():
        assert [each.shape[-1] for each in net.directions(torch.rand(1, 3, 64, 64))] == [30, 15, 8, 8, 8]
    found, before = NETS["stlpips"].extract(net, _frames(1, (21, 21)), _frames(2, (21, 21)))
    assert found.shape == (2, 3) and before.shape == (2, 2)
    with pytest.raises(ValueError, match="20x56 pixels: give 21"):
        NETS["stlpips"].extract(net, _frames(1, (20, 56)))


def test_a_blur_halves_and_mirrors() -> None:
    """Rows 1 2 1 / 4 of the picture, mirrored by two pixels, at every second place."""
    blur = own.trunk()[1]
    with torch.no_grad():
        blur.weight.copy_(torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0])) / 16)
        found = blur(torch.arange(5.0).expand(1, 64, 5, 5))
    assert found[0, 0, 0].tolist() == [1.0, 1.0, 3.0, 3.0]  # of 2 1 (0 1 2 3 4) 3 2: 2 1 0, 0 1 2, 2 3 4, 4 3 2


def test_tensors_of_another_net_are_refused(tmp_path: Path) -> None:
    save_file({"net.slice1.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="not the weights of stlpips: tensors 17 missing"):
        own.build("stlpips", tmp_path / "w.safetensors", "cpu")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed for this test alone."""
    folder = tmp_path_factory.mktemp("package")
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--target", str(folder), PACKAGE.requirement], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"{PACKAGE.requirement}: pip cannot reach it: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}"
        )
    return folder


def test_equals_the_package(package: Path, tmp_path: Path) -> None:
    weights = tmp_path / "stlpips.safetensors"
    weights.write_bytes(to_safetensors((package / PACKAGE.items[0].member).read_bytes()))
    pairs = {name: (_frames(1, size), _frames(2, size)) for name, size in SIZES.items()}
    pairs["near"] = (pairs["square"][0] // 2, pairs["square"][0] // 2 + 3)
    np.savez(
        tmp_path / "in.npz",
        **{f"{name}.{which}": x for name, xs in pairs.items() for which, x in zip("xy", xs, strict=True)},
    )
    command = [sys.executable, str(PROGRAM), str(package), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = np.load(tmp_path / "out.npz")
    loaded = open_net("stlpips", weights)
    assert loaded.sha256 == {"weights": WEIGHTS["stlpips"].sha256}
    for name, (frames, reference) in pairs.items():
        paired, before = NETS["stlpips"].extract(loaded.net, frames, reference)
        np.testing.assert_allclose(paired, theirs[f"{name}.paired"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(before, theirs[f"{name}.before"], rtol=1e-5, atol=1e-6)
        pieces = NETS["stlpips"].extract(loaded.net, frames, reference, pixels=1)  # one frame at a time
        np.testing.assert_allclose(pieces[0], paired, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(pieces[1], before, rtol=1e-5, atol=1e-6)
