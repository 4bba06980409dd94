"""What all feature nets share: their records, files that are refused, and the pixels they see."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cinelora.core.cli import UserError
from cinelora.core.files import file_sha256
from cinelora.features.nets import NETS, open_net
from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import (
    centre,
    check_frames,
    extract,
    images_of,
    shorter_side,
    squashed,
    standardised,
)
from cinelora.metrics.feature_nets import WEIGHTS, WeightFile, checked, checked_files, pins_by_role

DIMENSIONS = {
    "tnv2": 448,
    "mnv2": 1280,
    "i3d": 400,
    "videomae": 1408,
    "vjepa": 1280,
    "clip_b32": 512,
    "clip_l14": 768,
    "dino": 768,
    "lpips": 1,
    "stlpips": 1,
}


def _linear() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def test_every_net_has_its_published_width() -> None:
    assert (
        {name: net.facts.dimension for name, net in NETS.items()}
        == DIMENSIONS
        == {name: facts.dimension for name, facts in WEIGHTS.items()}
    )
    assert all(net.facts.kind in {"video", "frame", "pair"} and net.facts.name == name for name, net in NETS.items())


@pytest.mark.parametrize("name", NETS)
def test_a_missing_file_names_the_setting_and_the_way_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^score\.{name}=.*nowhere"):
        open_net(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["i3d", "videomae", "dino", "lpips"])
def test_the_message_of_a_missing_file_says_what_to_give(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"no such file; give {WEIGHTS[name].files[0].published[0]}.*or set score\.{name}"
    ):
        open_net(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["videomae", "dino", "lpips"])
def test_a_file_that_is_not_the_published_one_needs_a_pin(name: str, tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS[name].files[0].published[0]
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(
        UserError, match=rf"expected {WEIGHTS[name].files[0].sha256[0]}, found [0-9a-f]{{64}}; .*_sha256"
    ):
        open_net(name, path)
    with pytest.raises(UserError, match="missing"):  # pinned, it is opened, and found to hold another net
        open_net(name, path, {WEIGHTS[name].files[0].role: file_sha256(path)})


def test_a_pin_is_compared_even_where_no_hash_is_published(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"x": torch.zeros(1)}, path)
    file = WeightFile("weights", ("w.pt",))
    assert checked("any", file, path) == checked("any", file, path, file_sha256(path)) == file_sha256(path)
    with pytest.raises(UserError, match="expected 00, found"):
        checked("any", file, path, "00")


def test_a_pickle_of_objects_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"x": Path("/")}))
    with pytest.raises(UserError, match="not a file of tensors"):
        read_tensors("dino", path)
    torch.save({"x": Path("/")}, path)
    with pytest.raises(UserError, match="not a file of tensors"):
        read_tensors("dino", path)


@pytest.mark.parametrize("legacy", [False, True])
def test_nested_checkpoints_are_unwrapped_and_renamed(legacy: bool, tmp_path: Path) -> None:
    path, weight = tmp_path / "w.pth", torch.arange(3.0)
    inner = {"module.backbone.a": weight, "epoch": 3}
    torch.save({"other": {}, "target": inner}, path, _use_new_zipfile_serialization=not legacy)
    got = read_tensors("any", path, ("absent", "target"), ("module.", "backbone."))
    assert got.keys() == {"a"} and torch.equal(got["a"], weight)


def test_fitted_is_frozen_float_and_leaves_the_generator_alone(tmp_path: Path) -> None:
    tensors = {key: value.half() for key, value in _linear().state_dict().items() if "num_batches" not in key}
    before = torch.get_rng_state()
    net = fitted("any", tmp_path, _linear, tensors | {"head.x": torch.zeros(1)}, unused=("head.",))
    assert torch.equal(torch.get_rng_state(), before)
    assert not net.training and all(p.dtype == torch.float32 and not p.requires_grad for p in net.parameters())
    assert torch.equal(net.state_dict()["0.weight"], tensors["0.weight"].float())
    assert net(torch.ones(1, 2)).shape == (1, 3)


def test_fitted_names_what_does_not_fit(tmp_path: Path) -> None:
    tensors = dict(_linear().state_dict())
    del tensors["0.bias"]
    tensors |= {"0.weight": torch.zeros(4, 2), "z": torch.zeros(1)}
    with pytest.raises(UserError, match=r"1 missing \(0\.bias\); 1 unknown \(z\); 1 of another shape \(0\.weight\)"):
        fitted("any", tmp_path, _linear, tensors)


def test_safetensors_are_read_by_their_ending(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert torch.equal(read_tensors("any", tmp_path / "w.safetensors")["a"], torch.ones(2))
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(UserError, match="not a file of tensors"):
        read_tensors("any", tmp_path / "bad.safetensors")


def test_squash_keeps_the_whole_picture_and_crop_its_middle() -> None:
    ramp = torch.arange(64.0).expand(1, 3, 16, 64)  # each column has its number as level
    assert squashed(ramp, 8)[0, 0, 0].tolist() == [4 * 2 * k + 3.5 for k in range(8)]
    wide = shorter_side(ramp, 8, "bilinear")
    assert wide.shape[-2:] == (8, 32)
    middle = centre(wide, 8)[0, 0, 0]
    assert middle[0] == wide[0, 0, 0, 12] and middle[-1] == wide[0, 0, 0, 19]


def test_squash_is_not_antialiased_and_the_shorter_side_is() -> None:
    comb = torch.zeros(1, 3, 64, 64)
    comb[..., 3::8] = 255  # every eighth column, out of reach of a resize that looks at two neighbours
    assert squashed(comb, 4).max() == 0
    assert shorter_side(comb, 4, "bilinear").mean() == pytest.approx(255 / 8, rel=0.1)


@pytest.mark.parametrize(("height", "width", "size"), [(480, 832, (224, 388)), (832, 480, (388, 224))])
def test_the_shorter_side_rounds_down_the_longer(height: int, width: int, size: tuple[int, int]) -> None:
    assert shorter_side(torch.zeros(1, 3, height, width), 224, "bicubic").shape[-2:] == size


def test_standardised_has_no_mean_left() -> None:
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.5)
    level = 255 * torch.tensor(mean).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(standardised(level, mean, std), torch.zeros(1, 3, 2, 2), atol=1e-6, rtol=0)
    up = standardised(level + 255 * 0.1, mean, std)[0, :, 0, 0]
    assert up.tolist() == pytest.approx([1, 0.5, 0.2], rel=1e-4)


def test_videos_reach_the_net_with_time_after_channels() -> None:
    class Recorder(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(3, 4)).flatten(1)  # (N, 3 * T): channel by channel, frame by frame

    clips = np.zeros((3, 2, 4, 4, 3), np.uint8)
    clips += np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1, 1) * 100  # clip
    clips += np.arange(2, dtype=np.uint8).reshape(1, 2, 1, 1, 1) * 10  # frame
    clips += np.arange(3, dtype=np.uint8)  # channel
    for batch in (1, 2, 5):
        got = extract(WEIGHTS["tnv2"], lambda images: images, Recorder(), clips, batch)
        assert got[:, :2].tolist() == [[0, 10], [100, 110], [200, 210]] and got[0].tolist() == [0, 10, 1, 11, 2, 12]


def test_images_of_copies() -> None:
    clips = np.zeros((1, 2, 4, 5, 3), np.uint8)
    images = images_of(clips, torch.device("cpu"))
    images += 1
    assert images.shape == (2, 3, 4, 5) and clips.max() == 0


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 3, 8, 8, 3), np.float32), "give uint8"),
        (np.zeros((3, 8, 8, 3), np.uint8), "give uint8"),
        (np.zeros((0, 3, 8, 8, 3), np.uint8), "give uint8"),
        (np.zeros((1, 3, 8, 8, 3), np.uint8), "3 frames: give exactly 4"),
    ],
)
def test_other_frames_are_refused(frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_frames(frames, length=4)


def test_pins_are_given_in_the_order_of_the_files() -> None:
    one, other = "a" * 64, "B" * 64
    assert pins_by_role("i3d", "") == {} and pins_by_role("i3d", other) == {"weights": "b" * 64}
    assert pins_by_role("vjepa", f"{one}, {other}") == {"encoder": one, "probe": "b" * 64}
    assert pins_by_role("vjepa", f",{one}") == {"probe": one}
    with pytest.raises(UserError, match=r"score\.i3d_sha256=.*2 hashes for 1 file\(s\): weights"):
        pins_by_role("i3d", f"{one},{other}")
    with pytest.raises(UserError, match="'xyz' is not a SHA-256"):
        pins_by_role("i3d", "xyz")


def test_the_files_of_a_folder_are_hashed_by_role(tmp_path: Path) -> None:
    (tmp_path / "vith16.pth.tar").write_bytes(b"e")
    (tmp_path / "ssv2-probe.pth.tar").write_bytes(b"p")
    found = checked_files("vjepa", tmp_path)
    assert found == {
        "encoder": file_sha256(tmp_path / "vith16.pth.tar"),
        "probe": file_sha256(tmp_path / "ssv2-probe.pth.tar"),
    }
    with pytest.raises(UserError, match="SHA-256 of the probe expected 00"):
        checked_files("vjepa", tmp_path, {"probe": "00"})
