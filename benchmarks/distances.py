"""Resampling a distance from Gram matrices against computing it again for every resample.

    OMP_NUM_THREADS=1 python -m benchmarks.distances            (about 2 minutes on one core)

In: nothing; normal features with a decaying spectrum. Out: per size and resampling plan the seconds of 1,000 Frechet
replicates from Gram matrices (all 1,000 run, the matrices included) against the form of FID code since 2017 on the
same resampled rows, covariances and scipy.linalg.sqrtm (a few calls run, their median times 1,000: said in the
output), and how far the values differ; the same for MMD by weighting a kernel matrix against computing it again.
Exit code 1 if a target is missed.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from cinelora.metrics.distances import Array, polynomial_kernel
from cinelora.metrics.resampling import (
    Grams,
    Statistic,
    frechet_replicates,
    half_samples,
    kernel_grams,
    linear_grams,
    mmd_replicates,
)

Rows = NDArray[np.intp]
CLIPS = 256
REPLICATES = 1000
ROUNDS = 5  # of the 1,000, between the slow calls: a busy machine is as busy for both


def bootstrap_samples(clips: int, draws: int, random: np.random.Generator) -> Array:
    """(R, N) counts that sum to N: clips drawn with replacement."""
    return np.asarray(random.multinomial(clips, np.full(clips, 1 / clips), draws), dtype=np.float64)


@dataclass(frozen=True)
class Case:
    """One line of output: what is resampled how, how many slow calls are timed, and what is to be reached."""

    name: str
    dimensions: int
    plan: Callable[[int, int, np.random.Generator], Array]
    slow_calls: int
    target: float | None  # times faster; None: shown for comparison
    tolerance: float  # largest relative difference of values


def sqrtm_frechet(x: Array, y: Array, i: Rows, j: Rows) -> float:
    """The form of FID code on the drawn rows: two covariances, the root of their product, its real part."""
    x, y = x[i], y[j]
    shift = x.mean(axis=0) - y.mean(axis=0)
    s, r = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(shift @ shift + np.trace(s) + np.trace(r) - 2 * np.trace(sqrtm(s @ r)).real)


def recomputed_mmd(x: Array, y: Array, i: Rows, j: Rows) -> float:
    """Unbiased KID of the drawn rows from their own three kernel matrices, no clip paired with itself or a copy."""
    within_x = polynomial_kernel(x[i], x[i])[i[:, None] != i]
    within_y = polynomial_kernel(y[j], y[j])[j[:, None] != j]
    return float(within_x.mean() + within_y.mean() - 2 * polynomial_kernel(x[i], y[j]).mean())


FRECHET = (
    Case("Frechet, halves", 400, half_samples, 15, 80, 1e-6),
    Case("Frechet, bootstrap", 400, bootstrap_samples, 15, None, 1e-6),
    Case("Frechet, halves", 1280, half_samples, 5, 1000, 1e-6),
    Case("Frechet, bootstrap", 1280, bootstrap_samples, 3, None, 1e-6),
)
MMD = (
    Case("MMD, bootstrap", 400, bootstrap_samples, 50, 200, 1e-9),
    Case("MMD, bootstrap", 1280, bootstrap_samples, 50, 200, 1e-9),
)


def features(dimensions: int) -> tuple[Array, Array]:
    """Two sets (CLIPS, D) whose standard deviations fall from 1 to 0.1, as those of a net do."""
    random = np.random.default_rng(dimensions)
    scale = np.geomspace(1.0, 0.1, dimensions)
    x, y = random.normal(size=(2, CLIPS, dimensions)) * scale
    return x, 1.2 * y + 0.2 * scale


def run(
    case: Case,
    grams_of: Callable[[Array, Array], Grams],
    fast: Statistic,
    slow: Callable[[Array, Array, Rows, Rows], float],
) -> bool:
    """Time both, print a line, say whether the target is met."""
    x, y = features(case.dimensions)
    random = np.random.default_rng(0)
    x_counts, y_counts = (case.plan(CLIPS, REPLICATES, random) for _ in range(2))
    fast_seconds, slow_seconds, values = [], [], []
    for block in np.array_split(np.arange(case.slow_calls), min(ROUNDS, case.slow_calls)):
        start = time.perf_counter()
        replicates = fast(grams_of(x, y), x_counts, y_counts)
        fast_seconds.append(time.perf_counter() - start)
        for index in block:
            i, j = (np.repeat(np.arange(CLIPS), counts[index].astype(int)) for counts in (x_counts, y_counts))
            start = time.perf_counter()
            values.append(slow(x, y, i, j))
            slow_seconds.append(time.perf_counter() - start)
    quick, call = statistics.median(fast_seconds), statistics.median(slow_seconds)
    ratio = call * REPLICATES / quick
    difference = float(np.max(np.abs(replicates[: len(values)] / np.array(values) - 1)))
    met = difference <= case.tolerance and (case.target is None or ratio >= case.target)
    aim = "" if case.target is None else f" (target {case.target:g}: {'met' if met else 'MISSED'})"
    print(
        f"{case.name:18s} n {CLIPS} d {case.dimensions:4d}: {REPLICATES} replicates {quick:7.3f} s; recomputed "
        f"{call * 1000:8.2f} ms a call, x {REPLICATES} = {call * REPLICATES:7.1f} s (from {len(values)} calls); "
        f"{ratio:6.0f} times faster{aim}; values within {difference:.1e}",
        flush=True,
    )
    return met


def main() -> int:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, OMP_NUM_THREADS ",
        end="",
    )
    print(f"{os.environ.get('OMP_NUM_THREADS', 'unset')}\ncommand: python -m benchmarks.distances", flush=True)
    met = [run(case, linear_grams, frechet_replicates, sqrtm_frechet) for case in FRECHET]
    met += [run(case, kernel_grams, mmd_replicates, recomputed_mmd) for case in MMD]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
