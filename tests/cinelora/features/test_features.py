"""The feature nets: layout against the published counts; behaviour where the real weights are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cinelora.core.cli import UserError
from cinelora.features.nets import NETS, open_net
from cinelora.features.nets.frames import squashed
from cinelora.features.nets.mobilenet import MobileNetTrunk
from cinelora.features.nets.transnet import TransNetTrunk, _dilated
from cinelora.metrics.feature_nets import WEIGHTS

CACHE = Path(os.environ.get("CINELORA_CACHE") or Path(__file__).parents[3] / ".cache")
LoadNet = Callable[[str], torch.nn.Module]
TRUNKS: dict[str, Callable[[], torch.nn.Module]] = {"tnv2": TransNetTrunk, "mnv2": MobileNetTrunk}
video_features, frame_features = NETS["tnv2"].extract, NETS["mnv2"].extract


@pytest.fixture(scope="module")
def real_net() -> LoadNet:
    def load(name: str) -> torch.nn.Module:
        path = CACHE / "weights" / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"needs the {name} weights at {path}")
        return open_net(name, path).net

    return load


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _moving_squares(count: int = 3, frames: int = 9, side: int = 32) -> np.ndarray:
    """uint8 (N, T, H, W, 3): a smooth coloured texture sliding one pixel a frame."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, 3, 8, 8)).astype(np.float32)
    wide = torch.nn.functional.interpolate(torch.from_numpy(coarse), (side, side + frames), mode="bicubic")
    image = wide.clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return np.stack([image[:, :, t : t + side] for t in range(frames)], axis=1)


def _shuffled(clips: np.ndarray) -> np.ndarray:
    return clips[:, np.random.default_rng(1).permutation(clips.shape[1])]


@pytest.mark.parametrize(
    ("name", "tensors", "parameters", "some_key"),
    [
        ("tnv2", 78, 2_548_864, "SDDCNN.2.DDCNN.1.Conv3D_8.layers.1.weight"),
        ("mnv2", 312, 2_223_872, "features.17.conv.7.running_var"),
    ],
)
def test_layout(name: str, tensors: int, parameters: int, some_key: str) -> None:
    net = TRUNKS[name]()
    assert len(net.state_dict()) == tensors
    assert sum(each.numel() for each in net.parameters()) == parameters
    assert some_key in net.state_dict()


def test_transnet_stacks_halve_space_and_keep_time() -> None:
    net, shapes = TransNetTrunk().eval(), []
    for stack in net.SDDCNN:
        stack.register_forward_hook(lambda _, __, found: shapes.append(tuple(found.shape[1:])))
    net(torch.zeros(1, 3, 5, 27, 48))
    assert shapes == [(64, 5, 13, 24), (128, 5, 6, 12), (256, 5, 3, 6)]


def test_transnet_branch_spans_its_dilation() -> None:
    # all-ones taps on an impulse at frame 8: the branch of dilation 4 answers at frames 4, 8, 12 alone
    branch = _dilated(1, 1, 4)
    for weight in branch.parameters():
        torch.nn.init.ones_(weight)
    impulse = torch.zeros(1, 1, 17, 3, 3)
    impulse[0, 0, 8, 1, 1] = 1
    answer = branch(impulse)[0, 0, :, 1, 1]
    assert answer.nonzero().flatten().tolist() == [4, 8, 12]


@pytest.mark.parametrize("name", ["tnv2", "mnv2"])
def test_shapes_and_types(name: str) -> None:
    torch.manual_seed(0)
    net = TRUNKS[name]().eval()
    got = NETS[name].extract(net, _moving_squares(2, 3), batch=2)
    per_frame = (3,) if WEIGHTS[name].kind == "frame" else ()
    assert got.shape == (2, *per_frame, WEIGHTS[name].dimension) and got.dtype == np.float32


def test_shrinking_keeps_the_channels_and_looks_at_every_pixel() -> None:
    comb = torch.zeros(1, 3, 54, 96)
    comb[:, 1, :, 2::4] = 255  # every fourth column: a resize to half that skips pixels would see half of them or none
    images = squashed(comb, (27, 48), antialias=True)
    assert images.shape == (1, 3, 27, 48)
    assert [float(images[0, c].mean()) for c in range(3)] == [0.0, pytest.approx(255 / 4, rel=0.02), 0.0]


@pytest.mark.parametrize("frames", [np.zeros((2, 3, 8, 8, 3), np.float32), np.zeros((3, 8, 8, 3), np.uint8)])
def test_other_frames_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="give uint8"):
        frame_features(torch.nn.Linear(1, 1), frames)


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"score\.tnv2=.*none\.safetensors: no such file; run"):
        open_net("tnv2", tmp_path / "none.safetensors")


def test_a_wrong_file_names_both_hashes(tmp_path: Path) -> None:
    path = tmp_path / "mnv2.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=rf"expected {WEIGHTS['mnv2'].sha256}, found [0-9a-f]{{64}}; run"):
        open_net("mnv2", path)


@pytest.mark.parametrize("name", ["tnv2", "mnv2"])
def test_real_net_is_frozen_and_repeatable(name: str, real_net: LoadNet) -> None:
    before = torch.get_rng_state()
    net, clips = real_net(name), _moving_squares()
    assert torch.equal(torch.get_rng_state(), before)
    assert not net.training and not any(each.requires_grad for each in net.parameters())
    one = NETS[name].extract(net, clips, batch=1)
    assert np.array_equal(one, NETS[name].extract(net, clips, batch=1))
    np.testing.assert_allclose(NETS[name].extract(net, clips, batch=3), one, atol=1e-5)
    assert one.min() >= 0 and one.std() > 0.01


def test_only_the_video_net_sees_the_order_of_frames(real_net: LoadNet) -> None:
    clips = _moving_squares()
    mixed = _shuffled(clips)
    video = real_net("tnv2")
    moved = np.abs(video_features(video, mixed) - video_features(video, clips)).mean()
    assert moved > 0.02 * np.abs(video_features(video, clips)).mean()
    frame = real_net("mnv2")
    plain, shuffled = frame_features(frame, clips), frame_features(frame, mixed)
    np.testing.assert_allclose(shuffled.mean(axis=1), plain.mean(axis=1), atol=1e-5)


def test_jitter_moves_the_video_net_more_than_a_static_shift(real_net: LoadNet) -> None:
    net, wide = real_net("tnv2"), _moving_squares(side=36)
    offsets = np.random.default_rng(2).integers(0, 5, size=(wide.shape[1],)).tolist()
    clean, shift = wide[:, :, 2:34, 2:34], wide[:, :, 4:, 4:]
    jitter = np.stack([wide[:, t, o : o + 32, o : o + 32] for t, o in enumerate(offsets)], axis=1)
    base = video_features(net, np.ascontiguousarray(clean))
    static, shaken = (np.linalg.norm(video_features(net, each) - base, axis=1).mean() for each in (shift, jitter))
    assert shaken > 2 * static
