"""Scores of generated clips against the true frames of the same held-out clips, and what was measured.

In: uint8 RGB frames (N, T, H, W, 3), levels 0..255, and MobileNetV2 frame features if there are weights.
Out: one row per clip and metric; the protocol of every score; feature and score files, whole or absent.
N clips, T frames, D feature dimensions. Frame 0 is the image the model was given.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from cinelora.config import DataConfig, ScoreConfig
from cinelora.records import whole_file
from cinelora.weights import WEIGHTS

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

PSNR_CAP_DB = 100.0  # an exact frame has infinite PSNR, which JSON cannot hold; one level off is 48 dB
FRAMES_PER_PASS = 8  # SSIM holds five filtered copies of each
VIDEO_SCORES = ("fvd[tnv2]", "kvd[tnv2]")
FRAME_SCORES = ("consistency[mnv2]", "image_similarity[mnv2]")

DIRECTION: dict[str, str] = {
    "fvd[tnv2]": "lower",
    "kvd[tnv2]": "lower",
    "consistency[mnv2]": "higher",
    "image_similarity[mnv2]": "higher",
    "motion[absdiff]": "none",  # a guard: a frozen clip is perfectly consistent
    "psnr": "higher",
    "ssim": "higher",
}

UNAVAILABLE: dict[str, str] = {
    "lpips": "needs LPIPS weights",
    "clip_sim": "needs CLIP weights",
    "fvd[i3d]": "needs I3D weights",
}


class ClipScore(NamedTuple):
    """One value of one metric on one clip."""

    clip_id: str
    metric: str
    value: float


def clip_scores(
    generated: Frames,
    truth: Frames,
    clip_ids: Sequence[str],
    frame_feats: Floats | None = None,
    image_feats: Floats | None = None,
    keep_first_frame: bool = False,
) -> list[ClipScore]:
    """Every per-clip score, clip by clip.

    `generated`, `truth`: uint8 (N, T, H, W, 3), T >= 2, H and W >= 11. `frame_feats` (N, T, D) are those
    of the generated frames, `image_feats` (N, D) those of the true frame 0; give both or neither.
    `keep_first_frame` lets frame 0 count in psnr, ssim and image_similarity; consistency and motion
    always see it, as anchor and as start. Units: dB for psnr, levels 0..255 for motion, else 0..1
    (ssim -1..1). ValueError: shapes, dtype or counts disagree, or a score is not finite.
    """
    _check_clips(generated, truth, clip_ids)
    first = _first_scored(keep_first_frame)
    values = {name: score(generated, truth, first) for name, score in PIXEL_SCORES.items()}
    if frame_feats is not None and image_feats is not None:
        _check_features(generated, frame_feats, image_feats)
        values["consistency[mnv2]"] = consistency(frame_feats)
        values["image_similarity[mnv2]"] = image_similarity(frame_feats, image_feats, first)
    elif frame_feats is not None or image_feats is not None:
        raise ValueError("frame_feats and image_feats belong together: give both or neither")
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


def unavailable(score: ScoreConfig) -> dict[str, str]:
    """Why a score is not there: score name -> reason. Empty weight paths add the scores that need them."""
    reasons = dict(UNAVAILABLE)
    if score.tnv2 == "":
        reasons |= dict.fromkeys(VIDEO_SCORES, "needs TransNetV2 weights: set score.tnv2")
    if score.mnv2 == "":
        reasons |= dict.fromkeys(FRAME_SCORES, "needs MobileNetV2 weights: set score.mnv2")
    return reasons


def protocol(score: ScoreConfig, data: DataConfig) -> dict[str, dict[str, Any]]:
    """How each available score is measured: score name -> JSON-ready facts, equal for comparable trials.

    Always: features, frames scored, first_frame ("dropped" or "kept"), fps, size [height, width] in
    pixels, the clips' resize rule, better ("higher", "lower" or "none"). A net adds its input size,
    resize rule and weight hash; a distance adds its divisor or kernel and how features are scaled.
    """
    missing = unavailable(score)
    return {
        name: _clip_facts(name, score, data) | _net_facts(name) | PARAMETERS.get(name, {})
        for name in DIRECTION
        if name not in missing
    }


_SCALED = {"standardised": "reference mean and standard deviation"}
PARAMETERS: dict[str, dict[str, Any]] = {
    "fvd[tnv2]": {"covariance": "N-1", **_SCALED},
    "kvd[tnv2]": {
        "kernel": {"form": "polynomial", "degree": 3, "gamma": "1/D", "coef0": 1.0, "unbiased": True},
        "matched_pairs": "left out",
        **_SCALED,
    },
    "psnr": {"data_range": 255, "cap_db": PSNR_CAP_DB, "mean": "over frames, in dB"},
    "ssim": {"data_range": 255, "window": "gaussian 11x11, sigma 1.5", "k1": 0.01, "k2": 0.03},
}


def write_clip_scores(path: Path, rows: Iterable[ClipScore]) -> None:
    """CSV with the columns clip_id, metric, value; the value reads back as the same float64."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(ClipScore._fields)
        writer.writerows((row.clip_id, row.metric, repr(float(row.value))) for row in rows)


def write_features(path: Path, clip_ids: Sequence[str], features: Floats) -> None:
    """.npz with `clip_ids` (N,) unicode and `features` (N, D) float32; no pickle; same input, same bytes.

    ValueError: as many ids as rows are needed.
    """
    if len(clip_ids) != len(features):
        raise ValueError(f"{len(clip_ids)} clip ids for {len(features)} rows of features")
    ids = np.array(list(clip_ids), dtype=np.str_)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, ids=ids, features=np.asarray(features, np.float32))


def _first_scored(keep_first_frame: bool) -> int:
    return 0 if keep_first_frame else 1


def _clip_facts(name: str, score: ScoreConfig, data: DataConfig) -> dict[str, Any]:
    whole = name in ("consistency[mnv2]", "motion[absdiff]")  # frame 0 is their anchor, their start
    dropped = 0 if whole else _first_scored(score.keep_first_frame)
    return {
        "features": "pixels",
        "frames": data.frames - dropped,
        "first_frame": "dropped" if dropped else "kept",
        "fps": data.fps,
        "size": [data.height, data.width],
        "resize": data.resize.value,
        "better": DIRECTION[name],
    }


def _net_facts(name: str) -> dict[str, Any]:
    net = next((weights for weights in WEIGHTS.values() if f"[{weights.name}]" in name), None)
    if net is None:
        return {}
    return {
        "features": f"{net.name}, {net.dimension} per {'clip' if net.kind == 'video' else 'frame'}",
        "network_size": list(net.size),
        "network_resize": net.resize,
        "weights_sha256": net.sha256,
    }


def _check_clips(generated: Frames, truth: Frames, clip_ids: Sequence[str]) -> None:
    for name, frames in (("generated", generated), ("truth", truth)):
        if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or frames.shape[1] < 2:
            raise ValueError(f"{name} is {frames.dtype} {frames.shape}: give uint8 (N, T, H, W, 3), T >= 2")
    if generated.shape != truth.shape:
        raise ValueError(f"generated is {generated.shape}, truth is {truth.shape}: they must agree")
    if len(clip_ids) != len(generated) or len(set(clip_ids)) != len(clip_ids):
        raise ValueError(f"{len(set(clip_ids))} different clip ids for {len(generated)} clips")


def _check_features(generated: Frames, frame_feats: Floats, image_feats: Floats) -> None:
    wanted = (*generated.shape[:2], image_feats.shape[-1])
    if frame_feats.shape != wanted or image_feats.shape != (wanted[0], wanted[2]):
        raise ValueError(f"features {frame_feats.shape}, {image_feats.shape} do not fit clips {generated.shape}")


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
