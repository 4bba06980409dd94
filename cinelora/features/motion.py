"""How steady a clip is over time and how much it moves: VBench's formulas, steps of features, optical flow.

In: uint8 RGB frames (N, T, H, W, 3), levels 0..255; `PairStats` of their flow; or frame features (N, T, D) of any net.
Out: float64 (N,) per metric. N clips, T frames, D feature dimensions. Flow is OpenCV's, on grey frames at their own
size; nothing is drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from cinelora.features.nets.frames import Frames, check_frames
from cinelora.metrics.catalogue import FLOW_SIDE
from cinelora.metrics.distances import Array

Plane = NDArray[np.float32]

CONSISTENCY_RELATIVE, CONSISTENCY_PIXELS = 0.01, 0.5  # of the squared flows; Ruder et al. 2016, section 5.1
DYNAMIC_FPS, DYNAMIC_PIXELS, DYNAMIC_SIDE = 8.0, 6.0, 256.0  # VBench, dynamic_degree.py
DYNAMIC_SHARE, DYNAMIC_PAIRS, DYNAMIC_FRAMES = 0.05, 4, 16


def optical_flow(a: Frames, b: Frames, flow: str) -> Plane:
    """Grey (H, W) `a` and `b` -> (H, W, 2) pixels from `a` to `b`. KeyError: no such flow.

    dis: dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), preset medium. farneback: polynomial expansion
    (Farneback 2003), 3 levels, window 13, 5 iterations, neighbourhood 5, sigma 1.1.
    """
    start = np.zeros((*a.shape, 2), np.float32)
    if flow == "dis":
        found = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, start)
    elif flow == "farneback":
        found = cv2.calcOpticalFlowFarneback(a, b, start, 0.5, 3, 13, 5, 5, 1.1, 0)
    else:
        raise KeyError(flow)
    return np.asarray(found, np.float32)


@dataclass(frozen=True)
class PairStats:
    """Of neighbouring frames, each (N, T - 1): mean length of the flow in pixels, warp error in levels."""

    magnitude: Array
    error: Array


def pair_stats(frames: Frames, flow: str) -> PairStats:
    """Flow and warp error of neighbouring frames of uint8 (N, T, H, W, 3), by backward warping.

    Frame t - 1 is sampled (bilinear) where the flow from t to t - 1 points, and compared with frame t: mean absolute
    difference, levels 0..255, over pixels that point into the picture and whose forward flow leads back (Ruder et
    al. 2016, arXiv 1604.08610, section 5.1; Lai et al. 2018, arXiv 1808.00449, eq. 11, there squared). A pair of
    which no pixel can be followed, such as a cut, has the plain difference of its frames as error.
    ValueError: frames of another type, fewer than 2, or smaller than 16 x 16 pixels.
    """
    _check_frames(frames)
    rows = [[_pair(a, b, flow) for a, b in pairwise(clip)] for clip in frames]
    magnitude, error = np.moveaxis(np.asarray(rows, np.float64), -1, 0)
    return PairStats(magnitude, error)


def motion(pairs: PairStats) -> Array:
    """(N,) mean length of the flow, pixels per frame; 0 for a frozen clip."""
    return np.asarray(pairs.magnitude.mean(axis=1))


def warp_error(pairs: PairStats) -> Array:
    """(N,) mean warp error, levels 0..255; 0 for a frozen clip and for whole-pixel translation: see `motion`."""
    return np.asarray(pairs.error.mean(axis=1))


def warp_excess(pairs: PairStats, reference: PairStats) -> Array:
    """(N,) warp error above that of the reference clip, levels; below 0 where the generated clip is smoother."""
    return np.asarray(warp_error(pairs) - warp_error(reference))


def frame_difference(frames: Frames) -> Array:
    """(N,) mean absolute difference of neighbouring frames, levels 0..255; 0 for a frozen clip."""
    total = [sum(cv2.norm(a, b, cv2.NORM_L1) for a, b in pairwise(clip)) for clip in frames]  # whole numbers: exact
    return np.array(total) / frames[0, 1:].size


def temporal_flickering(frames: Frames) -> Array:
    """(N,) in 0..1: (255 - mean absolute difference of neighbouring frames) / 255; 1 for a frozen clip.

    VBench (Huang et al. 2024, arXiv 2311.17982, temporal_flickering.py), there meant for static scenes only.
    """
    return np.asarray((255.0 - frame_difference(frames)) / 255.0)


def dynamic_degree(frames: Frames, fps: float, flow: str) -> Array:
    """(N,) 1.0 where a clip moves, else 0.0, by the rule of VBench (dynamic_degree.py) on our flow, not RAFT's.

    Every round(fps / 8)-th frame is used. A pair moves if the mean of its top 5 % flow lengths is above
    6 pixels x shorter side / 256 (x 8 / fps below 8 fps); a clip moves if 4 pairs per 16 used frames do,
    rounded as Python rounds. At least one pair must: VBench calls two still frames dynamic.
    ValueError: as `pair_stats`, or `fps` not above 0.
    """
    _check_frames(frames)
    if not 0 < fps < np.inf:
        raise ValueError(f"fps={fps}: must be above 0")
    every = max(1, round(fps / DYNAMIC_FPS))
    seen = frames[:, ::every]
    side = min(seen.shape[2:4])
    threshold = max(1.0, DYNAMIC_FPS / fps) * DYNAMIC_PIXELS * side / DYNAMIC_SIDE
    needed = max(1, round(DYNAMIC_PAIRS * seen.shape[1] / DYNAMIC_FRAMES))
    moving = [sum(_fastest(*pair, flow) > threshold for pair in pairwise(clip)) for clip in seen]
    return (np.asarray(moving) >= needed).astype(np.float64)


def tdelta(feats: NDArray[np.float32]) -> Array:
    """(N,) mean length of the difference of neighbouring frame features (N, T, D), in feature units; 0 if frozen."""
    steps = np.diff(feats.astype(np.float64), axis=1)
    return np.asarray(np.linalg.norm(steps, axis=-1).mean(axis=1))


def _pair(before: Frames, after: Frames, flow: str) -> tuple[float, float]:
    """(mean flow length in pixels, warp error in levels) of two frames (H, W, 3)."""
    a, b = _grey(before), _grey(after)
    backward, forward = optical_flow(b, a, flow), optical_flow(a, b, flow)
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
    return float(length), float(error)


def _sample(image: Plane, x: Plane, y: Plane) -> Plane:
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _fastest(before: Frames, after: Frames, flow: str) -> float:
    """Mean of the top 5 % of flow lengths between two frames (H, W, 3), pixels."""
    lengths = np.sort(np.linalg.norm(optical_flow(_grey(before), _grey(after), flow), axis=-1), axis=None)
    return float(lengths[-int(lengths.size * DYNAMIC_SHARE) :].mean(dtype=np.float64))


def _grey(frame: Frames) -> Frames:
    """uint8 (H, W, 3) -> (H, W), luma of BT.601."""
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)


def _check_frames(frames: Frames) -> None:
    check_frames(frames)
    if frames.shape[1] < 2 or min(frames.shape[2:4]) < FLOW_SIDE:
        raise ValueError(f"frames are {frames.shape}: give 2 or more of {FLOW_SIDE} x {FLOW_SIDE} pixels or more")
