"""Scores of generated clips against the true frames of the same held-out clips.

In: uint8 RGB frames (N, T, H, W, 3), levels 0..255, and features of frame nets where there are weights.
Out: one row per clip and metric; feature and score files, whole or absent. How each is measured: protocol.py.
N clips, T frames, D feature dimensions. Frame 0 is the image the model was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from cinelora.features.results import ClipScore, Floats
from cinelora.metrics.catalogue import CLIP_SIM, PSNR_CAP_DB

Frames = NDArray[np.uint8]

FRAMES_PER_PASS = 8  # SSIM holds five filtered copies of each


@dataclass(frozen=True)
class FrameFeatures:
    """Of a frame net: made frames (N, T, D), the true frame 0 (N, D) and, where it reads text, captions (N, D)."""

    frames: Floats
    image: Floats
    text: Floats | None = None


def clip_scores(
    generated: Frames,
    truth: Frames,
    clip_ids: Sequence[str],
    keep_first_frame: bool = False,
    frame_feats: Mapping[str, FrameFeatures] | None = None,
    distances: Mapping[str, Floats] | None = None,
    others: Mapping[str, NDArray[np.float64]] | None = None,
) -> list[ClipScore]:
    """Every per-clip score, clip by clip.

    `generated`, `truth`: uint8 (N, T, H, W, 3), T >= 2, H and W >= 11. `frame_feats` are those of frame nets, by net;
    `distances` (N, T) of pair nets and `others` (N,), worked out elsewhere, by score name. `keep_first_frame` lets
    frame 0 count in all but consistency and motion, which always see it, as anchor and as start. Units: dB for psnr,
    levels 0..255 for motion, 0..100 for clip_sim, else 0..1 (ssim -1..1). ValueError: shapes, dtype or counts
    disagree, or a score is not finite.
    """
    _check_clips(generated, truth, clip_ids)
    first = _first_scored(keep_first_frame)
    values = {name: score(generated, truth, first) for name, score in PIXEL_SCORES.items()}
    for net, feats in (frame_feats or {}).items():
        _check_features(generated, feats)
        values[f"consistency[{net}]"] = consistency(feats.frames)
        values[f"image_similarity[{net}]"] = image_similarity(feats.frames, feats.image, first)
        if feats.text is not None:
            values[f"{CLIP_SIM}[{net}]"] = 100.0 * image_similarity(feats.frames, feats.text, first)
    for name, per_frame in (distances or {}).items():
        values[name] = _mean(per_frame[:, first:].astype(np.float64))
    values |= others or {}
    rows = [ClipScore(clip, name, float(each[i])) for i, clip in enumerate(clip_ids) for name, each in values.items()]
    _check_finite(rows)
    return rows


def scored_frames(frames: Frames, keep_first_frame: bool) -> Frames:
    """The frames (N, T or T - 1, H, W, 3) that the set scores see: without the given frame 0, unless kept."""
    return frames[:, _first_scored(keep_first_frame) :]


def consistency(feats: Floats) -> NDArray[np.float64]:
    """Frame features (N, T, D) -> (N,) in 0..1: mean over t >= 1 of (cos(t, t - 1) + cos(t, 0)) / 2.

    Negative cosines count as 0: the subject consistency of VBench (Huang et al. 2024, arXiv 2311.17982).
    """
    previous = _cosine(feats[:, 1:], feats[:, :-1])
    anchor = _cosine(feats[:, 1:], feats[:, :1])
    return _mean(previous + anchor) / 2


def image_similarity(feats: Floats, image_feats: Floats, first: int = 1) -> NDArray[np.float64]:
    """Frame features (N, T, D), given image (N, D) -> (N,) in 0..1: mean cosine from frame `first` on."""
    return _mean(_cosine(feats[:, first:], image_feats[:, None]))


def motion(generated: Frames, truth: Frames, first: int) -> NDArray[np.float64]:
    """(N,) mean absolute difference of neighbouring generated frames, levels 0..255; frame 0 included."""
    steps = [np.abs(np.diff(clip.astype(np.int16), axis=0)).mean(dtype=np.float64) for clip in generated]
    return np.array(steps)


def psnr(generated: Frames, truth: Frames, first: int) -> NDArray[np.float64]:
    """(N,) peak signal-to-noise ratio, dB, peak 255; frames at most `PSNR_CAP_DB`; mean from `first` on."""

    def per_frame(a: Tensor, b: Tensor) -> Tensor:
        values = peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3))
        return values.clamp(max=PSNR_CAP_DB)

    return _frame_mean(per_frame, generated[:, first:], truth[:, first:])


def ssim(generated: Frames, truth: Frames, first: int) -> NDArray[np.float64]:
    """(N,) structural similarity, -1..1, per frame over RGB, mean from `first` on.

    Gaussian window of 11 x 11 pixels, sigma 1.5, k1 0.01, k2 0.03 (Wang et al. 2004). In float32:
    float64 takes 60 times as long and moves a real clip by 1e-7, an entirely flat one by 2e-4.
    """

    def per_frame(a: Tensor, b: Tensor) -> Tensor:
        values = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")
        assert isinstance(values, Tensor)
        return values.reshape(-1)

    return _frame_mean(per_frame, generated[:, first:], truth[:, first:])


PIXEL_SCORES: dict[str, Callable[[Frames, Frames, int], NDArray[np.float64]]] = {
    "motion[absdiff]": motion,
    "psnr": psnr,
    "ssim": ssim,
}


def _first_scored(keep_first_frame: bool) -> int:
    return 0 if keep_first_frame else 1


def _check_clips(generated: Frames, truth: Frames, clip_ids: Sequence[str]) -> None:
    for name, frames in (("generated", generated), ("truth", truth)):
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or frames.shape[1] < 2:
            raise ValueError(f"{name} is {frames.dtype} {frames.shape}: give uint8 (N, T, H, W, 3), T >= 2")
    if generated.shape != truth.shape:
        raise ValueError(f"generated is {generated.shape}, truth is {truth.shape}: they must agree")
    if len(clip_ids) != len(generated) or len(set(clip_ids)) != len(clip_ids):
        raise ValueError(f"{len(set(clip_ids))} different clip ids for {len(generated)} clips")


def _check_features(generated: Frames, feats: FrameFeatures) -> None:
    wanted = (*generated.shape[:2], feats.image.shape[-1])
    single = (wanted[0], wanted[2])
    shapes = [each.shape for each in (feats.image, feats.text) if each is not None]
    if feats.frames.shape != wanted or any(shape != single for shape in shapes):
        raise ValueError(f"features {feats.frames.shape}, {shapes} do not fit clips {generated.shape}")


def _check_finite(rows: Iterable[ClipScore]) -> None:
    bad = [row for row in rows if not math.isfinite(row.value)]
    if bad:
        raise ValueError(f"{len(bad)} scores are not finite, first {bad[0].metric} of {bad[0].clip_id}")


def _cosine(a: Floats, b: Floats) -> NDArray[np.float64]:
    """Cosines along the last axis in float64, negatives as 0; NaN for a zero vector."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        cosine = (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
    return np.asarray(np.clip(cosine, 0.0, 1.0), np.float64)


def _mean(per_frame: NDArray[np.float64]) -> NDArray[np.float64]:  # (N, T) -> (N,)
    return np.asarray(per_frame.mean(axis=1), np.float64)


def _frame_mean(per_frame: Callable[[Tensor, Tensor], Tensor], generated: Frames, truth: Frames) -> NDArray[np.float64]:
    """Mean over T of `per_frame` on float32 (t, 3, H, W) pairs, a few frames at a time; (N,)."""
    starts = range(0, generated.shape[1], FRAMES_PER_PASS)
    means = []
    for pair in zip(generated, truth, strict=True):
        parts = [per_frame(*(_images(clip[i : i + FRAMES_PER_PASS]) for clip in pair)) for i in starts]
        means.append(torch.cat(parts).double().mean().item())
    return np.array(means)


def _images(clip: Frames) -> Tensor:
    """uint8 (T, H, W, 3) -> float32 (T, 3, H, W), 0..255."""
    return torch.from_numpy(clip.astype(np.float32)).permute(0, 3, 1, 2)
