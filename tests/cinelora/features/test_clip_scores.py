"""Clip scores worked out by hand, and that files read back as written."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from cinelora.features.clip_scores import consistency, image_similarity, psnr, ssim
from cinelora.features.extract import Batch
from cinelora.features.nets.frames import images_of
from cinelora.features.results import Scored, write_clip_scores, write_features
from cinelora.metrics.catalogue import PSNR_CAP_DB, metric


def _clips(count: int = 2, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, frames, 16, 16, 3), dtype=np.uint8)


def test_an_exact_copy_reaches_the_cap() -> None:
    assert psnr(_clips(1), _clips(1), 1)[0] == PSNR_CAP_DB
    assert ssim(_clips(1), _clips(1), 1)[0] == pytest.approx(1.0, abs=1e-6)


def test_psnr_by_hand() -> None:
    truth = np.full((1, 3, 16, 16, 3), 100, np.uint8)
    generated = truth.copy()
    generated[:, 1] += 255 // 5  # error 51 = 255 / 5: 20 log10(5) dB
    generated[:, 2] += 1
    expected = (20 * np.log10(5) + 20 * np.log10(255)) / 2
    assert psnr(generated, truth, 1)[0] == pytest.approx(expected, rel=1e-6)
    assert psnr(generated, truth, 0)[0] == pytest.approx((2 * expected + PSNR_CAP_DB) / 3, rel=1e-6)


def test_ssim_of_flat_frames_is_the_luminance_term() -> None:
    truth, generated = np.full((1, 2, 16, 16, 3), 100, np.uint8), np.full((1, 2, 16, 16, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(generated, truth, 1)[0] == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("frames", [2, 4, 8, 10, 18])  # 1, 3, 7, 9 and 17 scored
def test_frames_two_at_a_time_give_the_bits_of_eight_at_a_time(frames: int) -> None:
    generated, truth = _clips(1, frames), _clips(1, frames)[:, ::-1].copy()
    groups = [[images_of(clip[:, start : start + 8]) for start in range(1, frames, 8)] for clip in (generated, truth)]
    values = [
        structural_similarity_index_measure(*both, data_range=255.0, reduction="none")
        for both in zip(*groups, strict=True)
    ]
    assert ssim(generated, truth, 1)[0] == torch.cat([each.reshape(-1) for each in values]).double().mean().item()


def test_pixels_are_compared_on_the_device_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def images(clips: np.ndarray, device: str) -> torch.Tensor:
        asked.append(device)
        return images_of(clips)

    monkeypatch.setattr("cinelora.features.clip_scores.images_of", images)
    batch = Batch({}, _clips(1, 3), _clips(1, 3), 1, device="cuda:0")
    assert batch.values(metric("psnr"))[0] == PSNR_CAP_DB and batch.values(metric("ssim"))[0] > 0.999
    assert asked == ["cuda:0"] * 4


def test_first_frame_is_not_scored_unless_kept() -> None:
    truth = _clips(1)
    generated = truth.copy()
    generated[:, 0] = 0
    dropped, kept = (Batch({}, generated, truth, dropped=dropped).values(metric("psnr"))[0] for dropped in (1, 0))
    assert dropped == PSNR_CAP_DB > kept


def test_a_frozen_clip_is_consistent() -> None:
    feats = np.repeat(np.random.default_rng(1).uniform(size=(1, 1, 8)), 4, axis=1).astype(np.float32)
    assert consistency(feats)[0] == pytest.approx(1.0)
    assert image_similarity(feats, feats[:, 0])[0] == pytest.approx(1.0)
    assert image_similarity(feats, -feats[:, 0])[0] == 0.0  # the opposite


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


def test_bad_clips_are_refused() -> None:
    for change, message in (
        ({"reference": _clips(2, 3)}, "must agree"),
        ({"frames": _clips().astype(np.float32)}, "give uint8"),
        ({"reference": _clips()[0]}, "give uint8"),
    ):
        with pytest.raises(ValueError, match=message):
            Batch(**({"nets": {}, "frames": _clips(), "reference": _clips()} | change))
    with pytest.raises(ValueError, match="compares with reference clips"):
        Batch({}, _clips()).values(metric("psnr"))


def test_clip_scores_read_back_exactly_clip_by_clip(tmp_path: Path) -> None:
    values = {"psnr": np.array([1 / 3, 2.0]), "ssim": np.array([0.1, 1e-300])}
    write_clip_scores(tmp_path / "clips.csv", Scored(["shot,1", "shot2"], {}, values))
    with open(tmp_path / "clips.csv", newline="") as stream:
        read = [(row["clip_id"], row["metric"], float(row["value"])) for row in csv.DictReader(stream)]
    assert read == [
        ("shot,1", "psnr", 1 / 3), ("shot,1", "ssim", 0.1), ("shot2", "psnr", 2.0), ("shot2", "ssim", 1e-300),
    ]  # fmt: skip


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
