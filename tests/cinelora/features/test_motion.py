"""Temporal scores whose answers fit on paper: frozen clips, whole-pixel translation, plain frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from cinelora.features import motion as temporal
from cinelora.features.clip_scores import consistency
from cinelora.features.motion import (
    FEATURE_SCORES,
    FLOWS,
    PIXEL_SCORES,
    Footage,
    feature_scores,
    pair_stats,
    pixel_scores,
)

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


FROZEN = np.repeat(_sliding(frames=1), 5, axis=1)


def test_a_frozen_clip() -> None:
    got = {name: values[0] for name, values in pixel_scores(Footage(FROZEN, 16.0, FROZEN)).items()}
    assert got == {
        "temporal_flickering": 1.0,
        "motion[dis]": 0.0,
        "warp_error[dis]": 0.0,
        "warp_excess[dis]": 0.0,
        "followed[dis]": 1.0,
        "dynamic_degree[dis]": 0.0,
    }


@pytest.mark.parametrize("flow", list(FLOWS))
def test_whole_pixel_translation_is_motion_without_warp_error(flow: str) -> None:
    footage = Footage(_sliding(), 16.0, flow=flow)
    assert temporal.motion(footage)[0] == pytest.approx(SHIFT, rel=0.02)
    unwarped = 255 * (1 - temporal.temporal_flickering(footage)[0])
    assert temporal.warp_error(footage)[0] < 0.02 * unwarped
    # the strip that slid in has no counterpart before
    assert temporal.followed(footage)[0] == pytest.approx(1 - SHIFT / 64, abs=0.02)


def test_warp_excess_is_the_error_above_the_true_clip() -> None:
    truth = _sliding()
    made = truth.copy()
    made[:, 2:] = np.minimum(made[:, 2:].astype(int) + 40, 255)  # one step of brightness
    footage = Footage(made, 16.0, truth)
    plain = temporal.warp_error(Footage(made, 16.0))[0] - temporal.warp_error(Footage(truth, 16.0))[0]
    assert temporal.warp_excess(footage)[0] == pytest.approx(plain) and plain > 5
    assert temporal.warp_excess(Footage(truth, 16.0, truth))[0] == 0.0


def test_warp_error_by_hand_with_a_given_flow() -> None:
    """A flow of zero warps nothing: the error is the plain difference, here 10 and 30 levels."""
    still = pair_stats(_plain(50, 60, 30), lambda a, b: np.zeros((16, 16, 2), np.float32))
    assert still.error.tolist() == [[10.0, 30.0]]
    assert still.magnitude.tolist() == [[0.0, 0.0]] and still.followed.tolist() == [[1.0, 1.0]]


def test_a_pair_that_cannot_be_followed_has_the_plain_difference() -> None:
    """Both flows point 3 right: forward and backward do not cancel, no pixel is valid."""
    flow = np.zeros((16, 16, 2), np.float32)
    flow[..., 0] = 3
    lost = pair_stats(_plain(50, 60), lambda a, b: flow)
    assert lost.followed.tolist() == [[0.0]] and lost.error.tolist() == [[10.0]]
    assert lost.magnitude.tolist() == [[3.0]]


def test_pixels_from_outside_the_picture_do_not_count() -> None:
    """Content moves 4 right: backward flow is -4, and the 4 left columns of 16 come from nowhere."""
    picture = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (16, 1, 1, 3)).reshape(16, 16, 3)
    moved = np.full_like(picture, 255)
    moved[:, 4:] = picture[:, :-4]
    flows = iter((np.full((16, 16, 2), (-4, 0), np.float32), np.full((16, 16, 2), (4, 0), np.float32)))
    stats = pair_stats(np.stack([picture, moved])[None], lambda a, b: next(flows))
    assert stats.followed[0, 0] == 0.75 and stats.error[0, 0] == 0.0 and stats.magnitude[0, 0] == 4.0


def test_temporal_flickering_by_hand() -> None:
    assert temporal.temporal_flickering(Footage(_plain(0, 51, 0), 16.0))[0] == pytest.approx(0.8)  # 51 = 255 / 5


def _fixed(monkeypatch: pytest.MonkeyPatch, length: float) -> None:
    field = np.zeros((32, 32, 2), np.float32)
    field[..., 1] = length
    monkeypatch.setitem(temporal.FLOWS, "dis", lambda a, b: field)


@pytest.mark.parametrize(("fps", "threshold"), [(8.0, 0.75), (16.0, 0.75), (4.0, 1.5)])
def test_dynamic_degree_has_the_threshold_of_vbench(
    monkeypatch: pytest.MonkeyPatch, fps: float, threshold: float
) -> None:
    """6 pixels x 32 / 256 = 0.75; below 8 fps more, as the frames are further apart."""
    clips = np.zeros((1, 16, 32, 48, 3), np.uint8)
    for length, expected in ((threshold - 0.01, 0.0), (threshold + 0.01, 1.0)):
        _fixed(monkeypatch, length)
        assert temporal.dynamic_degree(Footage(clips, fps)).tolist() == [expected]


@pytest.mark.parametrize(("moving", "fps", "expected"), [(3, 8.0, 0.0), (4, 8.0, 1.0), (2, 16.0, 0.0), (4, 16.0, 1.0)])
def test_dynamic_degree_counts_pairs_that_move(
    monkeypatch: pytest.MonkeyPatch, moving: int, fps: float, expected: float
) -> None:
    """Of 16 frames 4 pairs must move; at 16 fps every second frame is seen: 2 pairs of 8, which is 4 steps."""
    levels = 10 * np.minimum(np.arange(16), moving)
    clips = np.broadcast_to(levels.astype(np.uint8)[None, :, None, None, None], (1, 16, 32, 32, 3))

    def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.full((32, 32, 2), float((a != b).any()), np.float32)

    monkeypatch.setitem(temporal.FLOWS, "dis", flow)
    assert temporal.dynamic_degree(Footage(clips, fps)).tolist() == [expected]


def test_two_still_frames_are_not_dynamic() -> None:
    assert temporal.dynamic_degree(Footage(FROZEN[:, :2], 8.0)).tolist() == [0.0]


def test_tdelta_by_hand() -> None:
    feats = np.array([[[0, 0], [3, 4], [3, 4]], [[1, 1], [1, 1], [1, 1]]], np.float32)
    assert temporal.tdelta(feats).tolist() == [2.5, 0.0]
    got = feature_scores(feats + 1, "net")
    assert list(got) == ["consistency[net]", "tdelta[net]"]
    assert np.array_equal(got["consistency[net]"], consistency(feats + 1))
    with_image = feature_scores(feats + 1, "net", np.array([[4, 5], [1, 1]], np.float32))
    assert with_image["image_similarity[net]"] == pytest.approx([1.0, 1.0])  # of frames 1 and 2


def test_same_clip_same_scores_and_clips_do_not_touch_each_other() -> None:
    both = np.concatenate([_sliding(), _sliding(step=1)])
    first, again = pixel_scores(Footage(both, 16.0, both[::-1])), pixel_scores(Footage(both, 16.0, both[::-1]))
    swapped = pixel_scores(Footage(both[::-1], 16.0, both))
    for name, values in first.items():
        assert values.shape == (2,) and values.dtype == np.float64, name
        assert np.array_equal(values, again[name]) and np.array_equal(values, swapped[name][::-1]), name


def test_every_score_says_which_way_it_points_and_in_what_unit() -> None:
    for name, score in (PIXEL_SCORES | FEATURE_SCORES).items():
        assert score.better in ("higher", "lower", "none") and score.facts["unit"], name
    assert PIXEL_SCORES["motion"].better == "none"  # neither a frozen nor a racing clip wins
    assert "warp_excess[dis]" not in pixel_scores(Footage(FROZEN, 16.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": FROZEN.astype(np.float32)}, "give uint8"),
        ({"frames": FROZEN[0]}, "give uint8"),
        ({"frames": FROZEN[:, :1]}, "2 frames or more"),
        ({"frames": FROZEN[:, :, :8]}, "16 x 16 pixels"),
        ({"truth": FROZEN[:, :3]}, "must agree"),
        ({"fps": 0.0}, "fps=0.0"),
        ({"flow": "raft"}, "must be one of"),
    ],
)
def test_bad_footage_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Footage(FROZEN, 16.0), **change)


def test_bad_features_and_missing_truth_are_refused() -> None:
    with pytest.raises(ValueError, match="give truth"):
        temporal.warp_excess(Footage(FROZEN, 16.0))
    for feats in (np.ones((2, 3)), np.ones((2, 1, 3)), np.full((1, 2, 3), np.nan)):
        with pytest.raises(ValueError, match="give finite"):
            feature_scores(feats.astype(np.float32), "net")
    with pytest.raises(ValueError, match="do not fit"):
        feature_scores(np.ones((2, 3, 4), np.float32), "net", np.ones((1, 4), np.float32))
