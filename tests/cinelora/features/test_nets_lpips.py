"""LPIPS against torchmetrics' own, with the published heads and a random trunk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import lpips as reference

from cinelora.core.files import file_sha256
from cinelora.features.nets import NETS, open_net
from cinelora.features.nets.lpips import HEADS_FILE, PerceptualDistance


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the layout of torchvision's AlexNet: random, its classifier cut short."""
    torch.manual_seed(0)
    tensors = {k: v for k, v in PerceptualDistance().state_dict().items() if k.startswith("features.")}
    path = tmp_path_factory.mktemp("lpips") / "alexnet-owt-7be5be79.pth"
    torch.save(tensors | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


def _frames(seed: int, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 3, *size, 3), dtype=np.uint8)


def test_layout_and_count() -> None:
    # torchvision's AlexNet has 61,100,840 values, 58,631,144 of them in its classifier; the heads have one per channel
    net = PerceptualDistance()
    trunk = sum(each.numel() for each in net.features.parameters())
    assert trunk == 61_100_840 - 58_631_144
    assert sum(each.numel() for each in net.heads) == 64 + 192 + 384 + 256 + 256
    shapes = [tuple(net.state_dict()[f"features.{place}.weight"].shape) for place in (0, 3, 6, 8, 10)]
    assert shapes == [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]


def test_the_classifier_accounts_for_the_rest_of_alexnet() -> None:
    # arXiv 1404.5997: 9216 -> 4096 -> 4096 -> 1000
    layers = ((256 * 6 * 6, 4096), (4096, 4096), (4096, 1000))
    assert sum(wide * narrow + narrow for wide, narrow in layers) == 58_631_144


def test_equals_torchmetrics(trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = open_net("lpips", trunk, {"trunk": file_sha256(trunk)})
    assert loaded.sha256 == {"trunk": file_sha256(trunk), "heads": HEADS_FILE.sha256[0]}
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_: loaded.net.features)
    theirs = reference._LPIPS(net="alex")
    first, second = _frames(1), _frames(2)
    tensors = [torch.from_numpy(x).flatten(0, 1).permute(0, 3, 1, 2) / 255 for x in (first, second)]
    with torch.inference_mode():
        wanted = theirs(*tensors, normalize=True).reshape(2, 3).numpy()
    got, before = NETS["lpips"].extract(loaded.net, first, second)
    assert got.shape == (2, 3) and got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    pieces = NETS["lpips"].extract(loaded.net, first, second, pixels=2 * 40 * 56)
    np.testing.assert_allclose(pieces[0], got, rtol=1e-4)
    with torch.inference_mode():
        neighbours = [theirs(each[1:], each[:-1], normalize=True).reshape(2).numpy() for each in tensors[0].split(3)]
    assert before.shape == (2, 2)
    np.testing.assert_allclose(before, neighbours, rtol=1e-4)
    np.testing.assert_allclose(pieces[1], neighbours, rtol=1e-4)
    alone = NETS["lpips"].extract(loaded.net, first)
    assert alone[0].shape == (2, 0)
    np.testing.assert_allclose(alone[1], neighbours, rtol=1e-4)


def test_a_distance_is_zero_for_equals_symmetric_and_grows(trunk: Path) -> None:
    loaded = open_net("lpips", trunk, {"trunk": file_sha256(trunk)})
    first = _frames(1) // 2
    near, far = first.copy(), first.copy()
    near[:, :, 10:20, 10:20] += 20
    far[:, :, 10:30, 10:30] += 100

    def distance(net: torch.nn.Module, frames: np.ndarray, reference: np.ndarray) -> np.ndarray:
        return NETS["lpips"].extract(net, frames, reference)[0]

    assert distance(loaded.net, first, first).max() == 0
    assert (distance(loaded.net, first, near) < distance(loaded.net, first, far)).all()
    np.testing.assert_allclose(distance(loaded.net, near, first), distance(loaded.net, first, near), rtol=1e-5)


def test_frames_that_cannot_be_compared_are_refused(trunk: Path) -> None:
    net, distance = PerceptualDistance(), NETS["lpips"].extract
    with pytest.raises(ValueError, match="give two of the same"):
        distance(net, _frames(1), _frames(1)[:1])
    with pytest.raises(ValueError, match="30x56 pixels: give 31"):
        distance(net, _frames(1, (30, 56)), _frames(1, (30, 56)))
    assert np.isfinite(distance(net, _frames(1, (31, 31)), _frames(2, (31, 31)))[0]).all()
