"""Temporal metrics whose answers fit on paper: frozen clips, whole-pixel translation, plain frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cinelora.features import motion as temporal
from cinelora.features.extract import Batch, clip_metrics
from cinelora.features.motion import pair_stats
from cinelora.metrics.catalogue import FLOWS

SHIFT = 2  # pixels a frame


def _texture(side: int) -> np.ndarray:
    """Smooth random levels (side, side, 3) over the whole range."""
    rough = np.random.default_rng(0).uniform(size=(side, side, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 2.0)
    return np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def _sliding(step: int = SHIFT, frames: int = 5, side: int = 64) -> np.ndarray:
    """(1, T, side, side, 3): a window that slides over a picture, so its content moves `step` pixels a frame."""
    picture = _texture(side + step * frames)
    return np.stack([picture[:side, step * t : step * t + side] for t in range(frames)])[None]


def _plain(*levels: int) -> np.ndarray:
    shape = (1, len(levels), 16, 16, 3)
    return np.ascontiguousarray(np.broadcast_to(np.array(levels, np.uint8)[None, :, None, None, None], shape))


def _fixed(monkeypatch: pytest.MonkeyPatch, length: float, side: int = 32) -> None:
    field = np.zeros((side, side, 2), np.float32)
    field[..., 1] = length
    monkeypatch.setattr(temporal, "optical_flow", lambda a, b, flow: field)


FROZEN = np.repeat(_sliding(frames=1), 5, axis=1)


def _scores(frames: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric of pixels and of the flow that is about time."""
    batch = Batch({}, frames, reference, fps=16.0)
    return {each.name: batch.values(each) for each in clip_metrics((), "dis") if each.entry.whole}


def test_a_frozen_clip() -> None:
    assert {name: values[0] for name, values in _scores(FROZEN, FROZEN).items()} == {
        "temporal_flickering": 1.0,
        "motion[absdiff]": 0.0,
        "motion[dis]": 0.0,
        "warp_error[dis]": 0.0,
        "warp_excess[dis]": 0.0,
        "dynamic_degree[dis]": 0.0,
    }


@pytest.mark.parametrize("flow", list(FLOWS))
def test_whole_pixel_translation_is_motion_without_warp_error(flow: str) -> None:
    pairs = pair_stats(_sliding(), flow)
    assert temporal.motion(pairs)[0] == pytest.approx(SHIFT, rel=0.02)
    assert temporal.warp_error(pairs)[0] < 0.02 * temporal.frame_difference(_sliding())[0]


def test_warp_excess_is_the_error_above_the_reference_clip() -> None:
    reference = _sliding()
    generated = reference.copy()
    generated[:, 2:] = np.minimum(generated[:, 2:].astype(int) + 40, 255)  # one step of brightness
    own, real = (pair_stats(each, "dis") for each in (generated, reference))
    plain = temporal.warp_error(own)[0] - temporal.warp_error(real)[0]
    assert temporal.warp_excess(own, real)[0] == pytest.approx(plain) and plain > 5
    assert temporal.warp_excess(real, real)[0] == 0.0


def test_warp_error_by_hand_with_a_given_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow of zero warps nothing: the error is the plain difference, here 10 and 30 levels."""
    _fixed(monkeypatch, 0.0, 16)
    still = pair_stats(_plain(50, 60, 30), "dis")
    assert still.error.tolist() == [[10.0, 30.0]]
    assert still.magnitude.tolist() == [[0.0, 0.0]]


def test_a_pair_that_cannot_be_followed_has_the_plain_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both flows point 3 down: forward and backward do not cancel, no pixel is valid."""
    _fixed(monkeypatch, 3.0, 16)
    lost = pair_stats(_plain(50, 60), "dis")
    assert lost.error.tolist() == [[10.0]] and lost.magnitude.tolist() == [[3.0]]


def test_pixels_from_outside_the_picture_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Content moves 4 right: backward flow is -4, and the 4 left columns of 16 come from nowhere."""
    picture = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (16, 1, 1, 3)).reshape(16, 16, 3)
    moved = np.full_like(picture, 255)
    moved[:, 4:] = picture[:, :-4]
    flows = iter((np.full((16, 16, 2), (-4, 0), np.float32), np.full((16, 16, 2), (4, 0), np.float32)))
    monkeypatch.setattr(temporal, "optical_flow", lambda a, b, flow: next(flows))
    stats = pair_stats(np.stack([picture, moved])[None], "dis")
    assert stats.error[0, 0] == 0.0 and stats.magnitude[0, 0] == 4.0


def test_temporal_flickering_by_hand() -> None:
    assert temporal.temporal_flickering(_plain(0, 51, 0))[0] == pytest.approx(0.8)  # 51 = 255 / 5


def test_frame_difference_in_levels() -> None:
    assert temporal.frame_difference(_plain(0, 10, 5)).tolist() == [7.5]


@pytest.mark.parametrize(("fps", "threshold"), [(8.0, 0.75), (16.0, 0.75), (4.0, 1.5)])
def test_dynamic_degree_has_the_threshold_of_vbench(
    monkeypatch: pytest.MonkeyPatch, fps: float, threshold: float
) -> None:
    """6 pixels x 32 / 256 = 0.75; below 8 fps more, as the frames are further apart."""
    clips = np.zeros((1, 16, 32, 48, 3), np.uint8)
    for length, expected in ((threshold - 0.01, 0.0), (threshold + 0.01, 1.0)):
        _fixed(monkeypatch, length)
        assert temporal.dynamic_degree(clips, fps, "dis").tolist() == [expected]


@pytest.mark.parametrize(("moving", "fps", "expected"), [(3, 8.0, 0.0), (4, 8.0, 1.0), (2, 16.0, 0.0), (4, 16.0, 1.0)])
def test_dynamic_degree_counts_pairs_that_move(
    monkeypatch: pytest.MonkeyPatch, moving: int, fps: float, expected: float
) -> None:
    """Of 16 frames 4 pairs must move; at 16 fps every second frame is seen: 2 pairs of 8, which is 4 steps."""
    levels = 10 * np.minimum(np.arange(16), moving)
    clips = np.broadcast_to(levels.astype(np.uint8)[None, :, None, None, None], (1, 16, 32, 32, 3))

    def flow(a: np.ndarray, b: np.ndarray, _: str) -> np.ndarray:
        return np.full((32, 32, 2), float((a != b).any()), np.float32)

    monkeypatch.setattr(temporal, "optical_flow", flow)
    assert temporal.dynamic_degree(clips, fps, "dis").tolist() == [expected]


def test_two_still_frames_are_not_dynamic() -> None:
    assert temporal.dynamic_degree(FROZEN[:, :2], 8.0, "dis").tolist() == [0.0]


def test_tdelta_by_hand() -> None:
    feats = np.array([[[0, 0], [3, 4], [3, 4]], [[1, 1], [1, 1], [1, 1]]], np.float32)
    assert temporal.tdelta(feats).tolist() == [2.5, 0.0]


def test_same_clip_same_scores_and_clips_do_not_touch_each_other() -> None:
    both = np.concatenate([_sliding(), _sliding(step=1)])
    first, again, swapped = _scores(both, both[::-1]), _scores(both, both[::-1]), _scores(both[::-1], both)
    for name, values in first.items():
        assert values.shape == (2,) and values.dtype == np.float64, name
        assert np.array_equal(values, again[name]) and np.array_equal(values, swapped[name][::-1]), name


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (FROZEN.astype(np.float32), "give uint8"),
        (FROZEN[0], "give uint8"),
        (FROZEN[:, :1], "give 2 or more"),
        (FROZEN[:, :, :8], "16 x 16 pixels"),
    ],
)
def test_bad_frames_are_refused(frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair_stats(frames, "dis")
    with pytest.raises(ValueError, match=message):
        temporal.dynamic_degree(frames, 16.0, "dis")


def test_a_rate_must_be_above_0() -> None:
    with pytest.raises(ValueError, match=r"fps=0\.0"):
        temporal.dynamic_degree(FROZEN, 0.0, "dis")
