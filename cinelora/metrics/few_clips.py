"""What few training clips do to a model: it copies them, or takes on their colours.

In: clip features (N, D) of any net, or uint8 RGB frames (N, T, H, W, 3), levels 0..255. Out: numbers, no files.
Pure NumPy, no torch. N, M, K clips, S seeds, D feature dimensions. Distances are Euclidean on the features as given:
pass them through `cinelora.metrics.distances.standardise` first, with the training clips as reference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cinelora.metrics.catalogue import RATIO_CAP
from cinelora.metrics.distances import Array

Frames = NDArray[np.uint8]

# Full-range BT.601 luma and chroma (JFIF 1.02): levels in, levels out, grey has chroma 128.
YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
YCBCR_OFFSET = np.array([0.0, 128.0, 128.0])
CHANNELS = ("y", "cb", "cr")
LEVELS = 256


def memorisation_ratios(generated: ArrayLike, train: ArrayLike, heldout: ArrayLike, own: ArrayLike) -> Array:
    """Is a generated clip nearer to the training clips than to held-out clips, which the model has not seen either?

    `generated` (N, D), `train` (M, D), `heldout` (K, D). `own` (N,) says which held-out row gave the first frame:
    that row is left out for that clip, which resembles it in any case. Out: (N,) the distance to the nearest
    training row over the distance to the nearest remaining held-out row. The nearest of more clips is nearer, so where
    M and K - 1 differ 1 is not the neutral value: compare the share of ratios below 1 with M / (M + K - 1), exact for
    clips that depend on neither set if both are drawn alike; or compare a trained model with the base. A clip at
    distance 0 from both sets has ratio 1, from the held-out clips alone RATIO_CAP, and none has more. (Related to the
    data-copying test of Meehan et al. 2020, arXiv 2004.05675, section 3, which compares training and held-out
    clips by their distance to a generated set.)
    ValueError: shapes, `own` or numbers do not fit.
    """
    new, seen, unseen = (
        _features(rows, name) for rows, name in ((generated, "generated"), (train, "train"), (heldout, "heldout"))
    )
    if not new.shape[1] == seen.shape[1] == unseen.shape[1]:
        raise ValueError(f"features of {new.shape[1]}, {seen.shape[1]} and {unseen.shape[1]} dimensions do not compare")
    to_heldout = _distances(new, unseen)
    to_heldout[np.arange(len(new)), _own_rows(own, len(new), len(unseen))] = np.inf
    near, far = _distances(new, seen).min(axis=1), to_heldout.min(axis=1)
    of_equals = np.where(near > 0, RATIO_CAP, 1.0)
    return np.asarray(np.minimum(np.divide(near, far, out=of_equals, where=far > 0), RATIO_CAP), np.float64)


def nearer_to_training(ratios: Array) -> Array:
    """(N,) 1 where a ratio is below 1, 0.5 at exactly 1, else 0."""
    return np.asarray((ratios < 1) + (ratios == 1) / 2, np.float64)


def colour_histograms(frames: Frames) -> Array:
    """uint8 (N, T, H, W, 3) -> (N, 3, 256): share of pixels at each level of Y, Cb, Cr; each row sums to 1.

    ValueError: frames are not uint8 (N, T, H, W, 3), or there are none.
    """
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] != 3 or frames.size == 0:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}: give uint8 (N, T, H, W, 3)")
    out = np.empty((len(frames), len(CHANNELS), LEVELS))
    for row, clip in zip(out, frames, strict=True):
        red, green, blue = clip.reshape(-1, 3).T.astype(np.uint32)
        colours, pixels = np.unique(
            red << 16 | green << 8 | blue, return_counts=True
        )  # each colour once: 2 to 15 times
        rgb = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)  # as fast at 480 x 832
        levels = np.rint(rgb @ YCBCR.T + YCBCR_OFFSET).clip(0, LEVELS - 1).astype(np.intp)
        for channel in range(len(CHANNELS)):
            row[channel] = np.bincount(levels[:, channel], weights=pixels, minlength=LEVELS) / len(red)
    return out


def style_distance(generated: Array, target: Array) -> Array:
    """Distance of clips to the colours of a set: histograms (..., 3, 256), (M, 3, 256) -> (..., 3) levels.

    Per channel Y, Cb, Cr the 1-D Wasserstein distance of order 1, the sum of |difference of the cumulative shares|
    (Vallender 1974), to the mean histogram of the target set: by how many levels a pixel has to change
    on average. Brighter by 10 levels is 10 in Y. For a whole set give `generated.mean(axis=0)`: a single clip is
    never at distance 0 from a mixed set. ValueError: shapes do not fit.
    """
    wanted = (len(CHANNELS), LEVELS)
    if generated.shape[-2:] != wanted or target.ndim != 3 or target.shape[1:] != wanted or len(target) == 0:
        raise ValueError(f"histograms {generated.shape} and {target.shape}: give (..., 3, 256) and (clips, 3, 256)")
    difference = np.cumsum(generated - target.mean(axis=0), axis=-1)
    return np.asarray(np.abs(difference).sum(axis=-1), np.float64)


def _features(rows: ArrayLike, name: str) -> Array:
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise ValueError(f"{name} has shape {values.shape}: give finite (clips, dimensions), 1 clip or more")
    return values


def _distances(a: Array, b: Array) -> Array:
    """Euclidean distances of all pairs (N, M), by differences: equal rows are at exactly 0."""
    return np.asarray([np.linalg.norm(b - row, axis=1) for row in a])


def _own_rows(own: ArrayLike, generated: int, heldout: int) -> NDArray[np.intp]:
    rows = np.asarray(own)
    if rows.shape != (generated,) or rows.dtype.kind not in "iu" or heldout < 2:
        raise ValueError(
            f"own has shape {rows.shape}: give one held-out row for each of {generated} clips, of 2 or more"
        )
    if rows.min() < 0 or rows.max() >= heldout:
        raise ValueError(f"own names rows {rows.min()} to {rows.max()}: there are {heldout} held-out clips")
    return rows.astype(np.intp)
