"""Self-tests that need no weights and no sample clips: distances with known answers.

In: nothing but fixed seeds. Out: one `Finding` per check. Numbers 1 to 4 and 16 of
`cinelora/score/selftest/__main__.py`. N clips, D feature dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from cinelora.core.seeds import counter_seed
from cinelora.data.synthetic import make_clip
from cinelora.metrics.distances import Array, frechet_distance, polynomial_mmd, standardise
from cinelora.score.clips import Frames
from cinelora.score.selftest.distortions import shake

DOSES = (1.0, 2.0, 4.0, 8.0)
SEEDS = 3


@dataclass(frozen=True)
class Finding:
    """The result of a check for one subject. `ok` None: a recorded fact that cannot fail."""

    subject: str
    ok: bool | None
    detail: str


@dataclass(frozen=True)
class Check:
    """One self-test: what it asserts, and the function that checks it; those on footage are given `Evidence`."""

    number: int
    name: str
    asserts: str
    run: Callable[..., list[Finding]]


def identical_sets() -> list[Finding]:
    x = _normal("identical", 40, 12)
    spread = float(np.trace(np.cov(x.T)))
    frechet, kernel = frechet_distance(x, x), polynomial_mmd(x, x, unbiased=False)
    ok = frechet < 1e-6 * spread and abs(kernel) < 1e-9
    return [Finding("formula", ok, f"FD {frechet:.1e} of a trace {spread:.1f}, biased MMD {kernel:.1e}")]


def two_clean_halves() -> list[Finding]:
    means = []
    for count in (100, 200, 400):
        halves = [(_normal("half", count, 6, 2 * i), _normal("half", count, 6, 2 * i + 1)) for i in range(20)]
        means.append(float(np.mean([frechet_distance(*pair) for pair in halves])))
    falls = [means[0] / means[1], means[1] / means[2]]
    kernels = [polynomial_mmd(_normal("kd", 60, 6, 2 * i), _normal("kd", 60, 6, 2 * i + 1)) for i in range(1000)]
    centre, error = float(np.mean(kernels)), float(stats.sem(kernels))
    return [
        Finding("FD", all(1.6 < fall < 2.5 for fall in falls), f"falls x{falls[0]:.2f}, x{falls[1]:.2f} per doubling"),
        Finding("KD", abs(centre) < 3 * error, f"mean {centre:+.4f}, standard error {error:.4f}"),
    ]


def closed_form() -> list[Finding]:
    """Sets with exactly the wanted sample mean and covariance."""
    a, b, shift = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 1.0, 0.5]), np.array([1.0, -2.0, 0.0, 3.0])
    expected = float(shift @ shift + np.square(a - b).sum())
    found = frechet_distance(_exact(50, a), _exact(31, b) + shift)
    x, y = _normal("few", 9, 20), _normal("few", 14, 20, 1) * 1.5 + 0.3
    s, r = np.cov(x.T), np.cov(y.T)
    root = np.sqrt(np.maximum(np.linalg.eigvals(s @ r).real, 0)).sum()
    dense = float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s) + np.trace(r) - 2 * root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer clips than dimensions on purpose
        short = frechet_distance(x, y)
    return [
        Finding("n > d", abs(found - expected) < 1e-6 * expected, f"{found:.9f}, closed form {expected:.9f}"),
        Finding("n < d", abs(short - dense) < 1e-6 * dense, f"{short:.6f}, by the D x D matrix {dense:.6f}"),
    ]


def order_and_shards() -> list[Finding]:
    clips = moving_clips(16)  # more than dimensions
    whole = pixel_features(clips)
    shards = [pixel_features(clips[start : start + 5]) for start in range(0, len(clips), 5)]
    other = pixel_features(shake(clips, 0, per_frame=True))
    mixed = np.random.default_rng(0).permutation(len(whole))
    out = []
    for name, distance in (("FD", frechet_distance), ("KD", polynomial_mmd)):
        first = distance(whole, other)
        again = (distance(other, whole), distance(whole[mixed], other), distance(np.concatenate(shards), other))
        worst = max(abs(each / first - 1) for each in again)
        out.append(Finding(name, worst < 1e-9, f"swapped, reordered, sharded: {worst:.0e} apart"))
    return out


def dose_response() -> list[Finding]:
    """Distances (SEEDS, doses) to the clean clips must rise with the dose: Page's L (Page 1963)."""
    clips = moving_clips(12)
    base = pixel_features(clips)
    table = [
        [kvd(base, pixel_features(shake(clips, seed, per_frame=True, size=dose))) for dose in DOSES]
        for seed in range(SEEDS)
    ]
    found = stats.page_trend_test(table)
    return [Finding("jitter", bool(found.pvalue < 0.01), f"Page's L {found.statistic:.0f}, p {found.pvalue:.1e}")]


EXACT_CHECKS: tuple[Check, ...] = (
    Check(1, "identical sets", "FD and biased MMD are 0", identical_sets),
    Check(2, "two clean halves", "FD falls like 1/N, unbiased KD is 0 within 3 standard errors", two_clean_halves),
    Check(3, "closed form", "FD of known Gaussians; n < d equals the D x D formula", closed_form),
    Check(4, "order and shards", "symmetric; order of clips and size of batches do not matter", order_and_shards),
    Check(16, "dose and response", "distance rises with the dose of jitter: Page's L p < 0.01", dose_response),
)


def moving_clips(count: int, size: tuple[int, int] = (32, 48), frames: int = 9) -> Frames:
    """Generated motion, uint8 (count, frames, *size, 3)."""
    return np.stack([make_clip("varied", 7, index, size, frames)[0] for index in range(count)])


def pixel_features(frames: Frames) -> Array:
    """(N, T, H, W, 3) -> (N, 12): on a 2 x 3 grid the mean level and the mean change between frames."""
    grey = frames.mean(axis=-1)
    change = np.abs(np.diff(grey, axis=1))
    return np.concatenate([_grid(each.mean(axis=1)) for each in (grey, change)], axis=1)


def _grid(planes: Array) -> Array:
    count, height, width = planes.shape
    return planes.reshape(count, 2, height // 2, 3, width // 3).mean(axis=(2, 4)).reshape(count, -1)


def kvd(clean: ArrayLike, faulty: ArrayLike) -> float:
    """As in a study: of clips (N, D) to their reference clips, standardised by these."""
    reference, generated = standardise(clean, faulty)
    return polynomial_mmd(reference, generated, matched=True)


def _normal(*key: int | str) -> Array:
    """Standard normal rows; the key is (purpose, rows, dimensions[, which])."""
    return np.random.default_rng(counter_seed(*key)).standard_normal((int(key[1]), int(key[2])))


def _exact(count: int, deviations: Array) -> Array:
    """Rows of mean exactly 0 and covariance exactly diag(deviations^2), up to rounding."""
    rows = _normal("exact", count, len(deviations))
    basis, _ = np.linalg.qr(rows - rows.mean(axis=0))
    return np.asarray(basis * np.sqrt(count - 1) * deviations)
