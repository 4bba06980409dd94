"""How steady a clip is over time and how much it moves, clip by clip: VBench's formulas, features, optical flow.

In: a `Footage` of uint8 RGB frames (N, T, H, W, 3), levels 0..255, or frame features (N, T, D) of any net.
Out: float64 (N,) per score; `PIXEL_SCORES` and `FEATURE_SCORES` hold function, direction and protocol side by side.
N clips, T frames, D feature dimensions. Flow is OpenCV's, on grey frames at their own size; nothing is drawn at
random. A score is named after the net or flow behind it: `tdelta[mnv2]`, `warp_error[dis]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cinelora.features.clip_scores import consistency, image_similarity
from cinelora.metrics.catalogue import PARAMETERS

Frames = NDArray[np.uint8]
Array = NDArray[np.float64]
Plane = NDArray[np.float32]

FLOW = "dis"
CONSISTENCY_RELATIVE, CONSISTENCY_PIXELS = 0.01, 0.5  # of the squared flows; Ruder et al. 2016, section 5.1
DYNAMIC_FPS, DYNAMIC_PIXELS, DYNAMIC_SIDE = 8.0, 6.0, 256.0  # VBench, dynamic_degree.py
DYNAMIC_SHARE, DYNAMIC_PAIRS, DYNAMIC_FRAMES = 0.05, 4, 16
MIN_SIDE = 16  # pixels; DIS matches patches of 8 on a picture reduced at least once


def _dis(a: Frames, b: Frames) -> Plane:
    """Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), preset medium."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(search.calc(a, b, np.zeros((*a.shape, 2), np.float32)), np.float32)


def _farneback(a: Frames, b: Frames) -> Plane:
    """Polynomial expansion (Farneback 2003): 3 levels, window 13, 5 iterations, neighbourhood 5, sigma 1.1."""
    empty = np.zeros((*a.shape, 2), np.float32)
    return np.asarray(cv2.calcOpticalFlowFarneback(a, b, empty, 0.5, 3, 13, 5, 5, 1.1, 0), np.float32)


FLOWS: dict[str, Callable[[Frames, Frames], Plane]] = {"dis": _dis, "farneback": _farneback}


@dataclass(frozen=True)
class PairStats:
    """Of neighbouring frames, each (N, T - 1): mean flow in pixels, warp error in levels, share of pixels followed."""

    magnitude: Array
    error: Array
    followed: Array


@dataclass(frozen=True)
class Footage:
    """Clips with what is worked out from them once. `frames` uint8 (N, T, H, W, 3), T >= 2, H and W >= 16.

    `truth`, of the same shape, are the true clips, where a score compares with them. `flow` is a key of `FLOWS`.
    ValueError: shapes, dtype, fps or flow do not fit.
    """

    frames: Frames
    fps: float
    truth: Frames | None = None
    flow: str = FLOW
    known_true_pairs: PairStats | None = None  # of `truth`, where they were worked out before

    def __post_init__(self) -> None:
        for name, frames in (("frames", self.frames), ("truth", self.truth)):
            if frames is not None:
                _check_frames(name, frames)
        if self.truth is not None and self.truth.shape != self.frames.shape:
            raise ValueError(f"frames are {self.frames.shape}, truth is {self.truth.shape}: they must agree")
        if not 0 < self.fps < np.inf:
            raise ValueError(f"fps={self.fps}: must be above 0")
        if self.flow not in FLOWS:
            raise ValueError(f"flow={self.flow!r}: must be one of {sorted(FLOWS)}")

    @cached_property
    def pairs(self) -> PairStats:
        return pair_stats(self.frames, FLOWS[self.flow])

    @cached_property
    def true_pairs(self) -> PairStats:
        if self.truth is None:
            raise ValueError("this score compares with the true clips: give truth")
        return self.known_true_pairs or pair_stats(self.truth, FLOWS[self.flow])


def pair_stats(frames: Frames, flow: Callable[[Frames, Frames], Plane]) -> PairStats:
    """Flow and warp error of neighbouring frames of uint8 (N, T, H, W, 3), by backward warping.

    Frame t - 1 is sampled (bilinear) where the flow from t to t - 1 points, and compared with frame t: mean absolute
    difference, levels 0..255, over pixels that point into the picture and whose forward flow leads back (Ruder et
    al. 2016, arXiv 1604.08610, section 5.1; Lai et al. 2018, arXiv 1808.00449, eq. 11, there squared). A pair of
    which no pixel can be followed, such as a cut, has the plain difference of its frames as error.
    """
    rows = [[_pair(clip[t - 1], clip[t], flow) for t in range(1, len(clip))] for clip in frames]
    magnitude, error, followed = np.moveaxis(np.asarray(rows, np.float64), -1, 0)
    return PairStats(magnitude, error, followed)


def motion(footage: Footage) -> Array:
    """(N,) mean length of the flow, pixels per frame; 0 for a frozen clip."""
    return np.asarray(footage.pairs.magnitude.mean(axis=1))


def warp_error(footage: Footage) -> Array:
    """(N,) mean warp error, levels 0..255; 0 for a frozen clip and for whole-pixel translation: see `motion`."""
    return np.asarray(footage.pairs.error.mean(axis=1))


def warp_excess(footage: Footage) -> Array:
    """(N,) warp error above that of the true clip, levels; below 0 where the made clip is the smoother one."""
    return np.asarray(warp_error(footage) - footage.true_pairs.error.mean(axis=1))


def followed(footage: Footage) -> Array:
    """(N,) share of pixels, 0..1, that the warp error rests on; where it is small the error says little."""
    return np.asarray(footage.pairs.followed.mean(axis=1))


def temporal_flickering(footage: Footage) -> Array:
    """(N,) in 0..1: (255 - mean absolute difference of neighbouring frames) / 255; 1 for a frozen clip.

    VBench (Huang et al. 2024, arXiv 2311.17982, temporal_flickering.py), there meant for static scenes only.
    """
    steps = [np.abs(np.diff(clip.astype(np.int16), axis=0)).mean(dtype=np.float64) for clip in footage.frames]
    return (255.0 - np.asarray(steps, np.float64)) / 255.0


def dynamic_degree(footage: Footage) -> Array:
    """(N,) 1.0 where a clip moves, else 0.0, by the rule of VBench (dynamic_degree.py) on our flow, not RAFT's.

    Every round(fps / 8)-th frame is looked at. A pair moves if the mean of its top 5 % flow lengths is above
    6 pixels x shorter side / 256 (x 8 / fps below 8 fps); a clip moves if 4 per 16 looked-at frames do,
    rounded as Python rounds. At least one pair must: VBench calls two still frames dynamic.
    """
    every = max(1, round(footage.fps / DYNAMIC_FPS))
    seen = footage.frames[:, ::every]
    side = min(seen.shape[2:4])
    threshold = max(1.0, DYNAMIC_FPS / footage.fps) * DYNAMIC_PIXELS * side / DYNAMIC_SIDE
    needed = max(1, round(DYNAMIC_PAIRS * seen.shape[1] / DYNAMIC_FRAMES))
    flow = FLOWS[footage.flow]
    moving = [[_fastest(flow(a, b)) > threshold for a, b in zip(g[:-1], g[1:], strict=True)] for g in map(_grey, seen)]
    return (np.asarray(moving, np.float64).reshape(len(seen), -1).sum(axis=1) >= needed).astype(np.float64)


def tdelta(feats: NDArray[np.float32]) -> Array:
    """(N,) mean length of the difference of neighbouring frame features (N, T, D), in feature units; 0 if frozen."""
    steps = np.diff(feats.astype(np.float64), axis=1)
    return np.asarray(np.linalg.norm(steps, axis=-1).mean(axis=1))


@dataclass(frozen=True)
class PixelScore:
    """A score of pixels; `better` is "higher", "lower" or "none" (a guard, to be held against the true clips)."""

    compute: Callable[[Footage], Array]
    better: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    uses_flow: bool = True
    needs_truth: bool = False


@dataclass(frozen=True)
class FeatureScore:
    """A score of frame features (N, T, D), with `needs_image` also of the given image (N, D)."""

    compute: Callable[..., Array]
    better: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    needs_image: bool = False


PIXEL_SCORES: dict[str, PixelScore] = {
    "temporal_flickering": PixelScore(
        temporal_flickering, "higher", PARAMETERS["temporal_flickering"], uses_flow=False
    ),
    "motion": PixelScore(motion, "none", PARAMETERS[f"motion[{FLOW}]"]),
    "warp_error": PixelScore(warp_error, "lower", PARAMETERS["warp_error"]),
    "warp_excess": PixelScore(warp_excess, "lower", PARAMETERS["warp_excess"], needs_truth=True),
    "followed": PixelScore(
        followed, "none", {"unit": "share of pixels 0..1", "validity": PARAMETERS["warp_error"]["validity"]}
    ),
    "dynamic_degree": PixelScore(dynamic_degree, "none", PARAMETERS["dynamic_degree"]),
}
FEATURE_SCORES: dict[str, FeatureScore] = {
    "consistency": FeatureScore(consistency, "higher", {"unit": "0..1", "negative_cosines": 0}),
    "image_similarity": FeatureScore(image_similarity, "higher", {"unit": "0..1", "first_frame": "dropped"}, True),
    "tdelta": FeatureScore(tdelta, "none", PARAMETERS["tdelta"]),
}


def pixel_scores(footage: Footage) -> dict[str, Array]:
    """Every score its input allows: name with flow, as in `warp_error[dis]`, -> (N,). Without truth, no warp_excess."""
    return {
        f"{name}[{footage.flow}]" if score.uses_flow else name: score.compute(footage)
        for name, score in PIXEL_SCORES.items()
        if footage.truth is not None or not score.needs_truth
    }


def feature_scores(
    feats: NDArray[np.float32], net: str, image_feats: NDArray[np.float32] | None = None
) -> dict[str, Array]:
    """Every score of the frame features (N, T, D) of `net`: name with net, as in `tdelta[mnv2]`, -> (N,).

    `image_feats` (N, D) are those of the image each clip was started from; without them, no image_similarity.
    ValueError: not (N, T >= 2, D) or (N, D), or a value that is not finite.
    """
    if feats.ndim != 3 or feats.shape[1] < 2 or not np.isfinite(feats).all():
        raise ValueError(f"features {feats.shape} of {net}: give finite (clips, frames, dimensions), 2 frames or more")
    out = {}
    for name, score in FEATURE_SCORES.items():
        if not score.needs_image:
            out[f"{name}[{net}]"] = score.compute(feats)
        elif image_feats is not None:
            if image_feats.shape != (len(feats), feats.shape[2]) or not np.isfinite(image_feats).all():
                raise ValueError(f"image features {image_feats.shape} do not fit frame features {feats.shape}")
            out[f"{name}[{net}]"] = score.compute(feats, image_feats)
    return out


def _pair(before: Frames, after: Frames, flow: Callable[[Frames, Frames], Plane]) -> tuple[float, float, float]:
    """(mean flow length in pixels, warp error in levels, share of pixels followed) of two frames (H, W, 3)."""
    a, b = _grey(before[None])[0], _grey(after[None])[0]
    backward, forward = flow(b, a), flow(a, b)
    rows, columns = a.shape
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    to_x, to_y = x + backward[..., 0], y + backward[..., 1]
    inside = (to_x >= 0) & (to_x <= columns - 1) & (to_y >= 0) & (to_y <= rows - 1)
    back = _sample(forward, to_x, to_y)
    gap = np.square(back + backward).sum(-1)
    size = np.square(back).sum(-1) + np.square(backward).sum(-1)
    valid = inside & (gap < CONSISTENCY_RELATIVE * size + CONSISTENCY_PIXELS)
    warped = _sample(before.astype(np.float32), to_x, to_y) if valid.any() else before.astype(np.float32)
    difference = np.abs(after - warped).mean(axis=-1, dtype=np.float64)
    error = difference[valid].mean() if valid.any() else difference.mean()
    length = np.linalg.norm(forward, axis=-1).mean(dtype=np.float64)
    return float(length), float(error), float(valid.mean())


def _sample(image: Plane, x: Plane, y: Plane) -> Plane:
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _fastest(flow: Plane) -> float:
    """Mean of the top 5 % of flow lengths, pixels."""
    lengths = np.sort(np.linalg.norm(flow, axis=-1), axis=None)
    return float(lengths[-int(lengths.size * DYNAMIC_SHARE) :].mean(dtype=np.float64))


def _grey(frames: Frames) -> Frames:
    """uint8 (T, H, W, 3) -> (T, H, W), luma of BT.601."""
    return np.stack([np.asarray(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), np.uint8) for each in frames])


def _check_frames(name: str, frames: Frames) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"{name} are {frames.dtype} {frames.shape}: give uint8 (N, T, H, W, 3)")
    if frames.shape[1] < 2 or min(frames.shape[2:4]) < MIN_SIDE:
        raise ValueError(f"{name} are {frames.shape}: give 2 frames or more of {MIN_SIDE} x {MIN_SIDE} pixels or more")
