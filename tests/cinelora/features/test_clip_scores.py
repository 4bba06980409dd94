"""Clip scores worked out by hand, and that files read back as written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinelora.features.clip_scores import FrameFeatures, clip_scores, consistency, image_similarity, scored_frames
from cinelora.features.results import ClipScore, write_clip_scores, write_features
from cinelora.metrics.catalogue import PSNR_CAP_DB


def _clips(count: int = 2, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, frames, 16, 16, 3), dtype=np.uint8)


def _scores(generated: np.ndarray, truth: np.ndarray, **more: Any) -> dict[str, float]:
    return {row.metric: row.value for row in clip_scores(generated, truth, ["a"], **more)}


def test_rows_run_clip_by_clip() -> None:
    rows = clip_scores(_clips(), _clips(), ["b", "a"])
    assert [row[:2] for row in rows] == [(clip, name) for clip in "ba" for name in ("motion[absdiff]", "psnr", "ssim")]


def test_an_exact_copy_reaches_the_cap() -> None:
    got = _scores(_clips(1), _clips(1))
    assert got["psnr"] == PSNR_CAP_DB
    assert got["ssim"] == pytest.approx(1.0, abs=1e-6)


def test_psnr_by_hand() -> None:
    truth = np.full((1, 3, 16, 16, 3), 100, np.uint8)
    generated = truth.copy()
    generated[:, 1] += 255 // 5  # error 51 = 255 / 5: 20 log10(5) dB
    generated[:, 2] += 1
    expected = (20 * np.log10(5) + 20 * np.log10(255)) / 2
    assert _scores(generated, truth)["psnr"] == pytest.approx(expected, rel=1e-6)
    kept = _scores(generated, truth, keep_first_frame=True)["psnr"]
    assert kept == pytest.approx((2 * expected + PSNR_CAP_DB) / 3, rel=1e-6)


def test_ssim_of_flat_frames_is_the_luminance_term() -> None:
    truth, generated = np.full((1, 2, 16, 16, 3), 100, np.uint8), np.full((1, 2, 16, 16, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert _scores(generated, truth)["ssim"] == pytest.approx(expected, abs=5e-4)


def test_first_frame_is_not_scored_unless_kept() -> None:
    truth = _clips(1)
    generated = truth.copy()
    generated[:, 0] = 0
    assert _scores(generated, truth)["psnr"] == PSNR_CAP_DB
    assert _scores(generated, truth, keep_first_frame=True)["psnr"] < PSNR_CAP_DB
    assert scored_frames(truth, False).shape[1] == 3 and scored_frames(truth, True).shape[1] == 4


def test_distances_of_frames_are_averaged_from_the_first_scored_one() -> None:
    far = {"lpips": np.array([[9, 1, 2, 6]], np.float32)}
    assert _scores(_clips(1), _clips(1), distances=far)["lpips"] == 3.0
    assert _scores(_clips(1), _clips(1), distances=far, keep_first_frame=True)["lpips"] == 4.5


def test_motion_in_levels() -> None:
    ramp = np.broadcast_to(np.array([0, 10, 5], np.uint8)[None, :, None, None, None], (1, 3, 16, 16, 3))
    assert _scores(ramp, ramp)["motion[absdiff]"] == 7.5


def test_a_frozen_clip_is_consistent_and_does_not_move() -> None:
    frozen = np.repeat(_clips(1)[:, :1], 4, axis=1)
    feats = np.repeat(np.random.default_rng(1).uniform(size=(1, 1, 8)), 4, axis=1).astype(np.float32)
    of_net = {"mnv2": FrameFeatures(feats, feats[:, 0]), "clip_b32": FrameFeatures(feats, feats[:, 0], -feats[:, 0])}
    got = _scores(frozen, frozen, frame_feats=of_net)
    assert got["motion[absdiff]"] == 0
    assert got["consistency[mnv2]"] == pytest.approx(1.0)
    assert got["image_similarity[mnv2]"] == got["image_similarity[clip_b32]"] == pytest.approx(1.0)
    assert got["clip_sim[clip_b32]"] == 0.0 and "clip_sim[mnv2]" not in got  # the caption's opposite; no caption


def test_consistency_by_hand() -> None:
    # directions 0, 90, 180 degrees: t 1 gives (0 + 0) / 2, t 2 gives (0 + max(0, -1)) / 2
    feats = np.array([[[1, 0], [0, 2], [-3, 0]]], np.float32)
    assert consistency(feats)[0] == 0
    # directions 0, 60, 60: (1/2 + 1/2) / 2 and (1 + 1/2) / 2
    sixty = [np.cos(np.pi / 3), np.sin(np.pi / 3)]
    feats = np.array([[[1, 0], sixty, sixty]], np.float32)
    assert consistency(feats)[0] == pytest.approx((0.5 + 0.75) / 2, abs=1e-6)


def test_image_similarity_by_hand() -> None:
    feats = np.array([[[5, 0], [1, 0], [0, 1]]], np.float32)
    assert image_similarity(feats, np.array([[2, 0]], np.float32))[0] == pytest.approx(0.5)
    assert image_similarity(feats, np.array([[2, 0]], np.float32), first=0)[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": _clips(2, 3)}, "must agree"),
        ({"clip_ids": ["a", "a"]}, "1 different clip ids for 2"),
        ({"generated": _clips().astype(np.float32)}, "give uint8"),
        ({"frame_feats": {"n": FrameFeatures(np.ones((2, 3, 3)), np.ones((2, 3)))}}, "do not fit"),
        ({"frame_feats": {"n": FrameFeatures(np.ones((2, 4, 3)), np.ones((2, 3)), np.ones((2, 2)))}}, "do not fit"),
        ({"frame_feats": {"n": FrameFeatures(np.zeros((2, 4, 3)), np.ones((2, 3)))}}, "not finite"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"generated": _clips(), "truth": _clips(), "clip_ids": ["a", "b"]} | change
    with pytest.raises(ValueError, match=message):
        clip_scores(**given)


def test_clip_scores_read_back_exactly(tmp_path: Path) -> None:
    rows = [ClipScore("shot,1", "psnr", 1 / 3), ClipScore("shot2", "ssim", np.float64(0.1))]
    write_clip_scores(tmp_path / "clips.csv", rows)
    with open(tmp_path / "clips.csv", newline="") as stream:
        read = [(row["clip_id"], row["metric"], float(row["value"])) for row in csv.DictReader(stream)]
    assert read == [tuple(row) for row in rows]


def test_features_read_back_without_pickle_and_with_the_same_bytes(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name in ("one.npz", "two.npz"):
        write_features(tmp_path / name, ["a", "bb"], values)
    with np.load(tmp_path / "one.npz", allow_pickle=False) as stored:
        assert stored["ids"].tolist() == ["a", "bb"]
        assert np.array_equal(stored["features"], values) and stored["features"].dtype == np.float32
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with pytest.raises(ValueError, match="1 clip ids for 2 rows"):
        write_features(tmp_path / "three.npz", ["a"], values)
