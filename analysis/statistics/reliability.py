"""How a distance between sets depends on the number of clips: its mean over subsets of n clips, and its limit.

In: `Estimates`; the saved features of the first finished trial of the base and of each rank. Out: `SizeCurve` records
and fvd_vs_n.csv. Subsets are drawn without replacement and are the same for each row; a generated clip goes with its
reference. Features are standardised by all reference clips. An unbiased estimate does not depend on n. A Frechet
distance falls like 1 / n once n exceeds the number of dimensions, so it is also computed on a few principal axes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from analysis.study.files import csv_text
from analysis.study.rows import Estimates, Row
from cinelora.metrics.distances import principal_coordinates
from cinelora.metrics.resampling import (
    GROUPS,
    SMALLEST_SHARE,
    Extrapolated,
    Grams,
    Statistic,
    at_infinity,
    frechet_replicates,
    kernel_grams,
    linear_grams,
    matched_mmd_replicates,
)
from cinelora.metrics.set_metrics import scaled

SIZES = 5  # from a quarter of the clips to all
ORDERS = {"fvd": 6, "kvd": 300}  # shuffles whose first n clips are a subset; kernels are cheap
SEED = 0
CLIPS_PER_AXIS = 3  # at the smallest size: clearly more clips than dimensions


@dataclass(frozen=True)
class SizeCurve:
    """One row of the rank table. `dimensions`: of the features the distance was taken on."""

    row: Row
    score: str
    dimensions: int
    clips: int
    found: Extrapolated

    @property
    def straight(self) -> bool:
        """Whether a line in 1 / n is to be expected: an unbiased score, or more clips than dimensions."""
        return self.score.startswith("kvd") or SMALLEST_SHARE * self.clips > self.dimensions


def set_sizes(estimates: Estimates) -> tuple[SizeCurve, ...]:
    """fvd on all dimensions and on a few axes, and kvd, of base and ranks; () below 2 GROUPS clips or without net."""
    clips, net = estimates.scores.clips, estimates.primary.net
    rows = [row for row in estimates.rows if row.done and (row.is_base or row.in_grid)]
    if len(clips) < 2 * GROUPS:
        return ()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of the time is NumPy's, which lets other threads run
        found = pool.map(lambda row: _of_trial(estimates, row, net), rows)
        return tuple(each for of_row in found for each in of_row)


def _of_trial(estimates: Estimates, row: Row, net: str) -> list[SizeCurve]:
    trial, clips = estimates.trials(row)[0], estimates.scores.clips
    reference, generated = estimates.study.reference_of(trial).features.get(net), trial.features.get(net)
    if reference is None or generated is None:
        return []
    real, own = reference.of(clips), generated.of(clips)
    if not (np.isfinite(real).all() and np.isfinite(own).all()):
        return []
    real, own = scaled(net, real, own)
    dimensions = real.shape[1]
    few = max(1, min(dimensions, int(SMALLEST_SHARE * len(clips)) // CLIPS_PER_AXIS))
    real_few, own_few = principal_coordinates(few, real, own)
    fvd = [(few, linear_grams(own_few, real_few))]
    if few < dimensions:
        fvd.insert(0, (dimensions, linear_grams(own, real)))
    taken = [(f"fvd[{net}]", count, _line(grams, frechet_replicates, "fvd")) for count, grams in fvd]
    taken.append((f"kvd[{net}]", dimensions, _line(kernel_grams(own, real), matched_mmd_replicates, "kvd")))
    return [SizeCurve(row, score, count, len(clips), line) for score, count, line in taken]


def _line(grams: Grams, statistic: Statistic, name: str) -> Extrapolated:
    return at_infinity(grams, statistic, np.random.default_rng(SEED), SIZES, ORDERS[name])


def as_csv(found: Iterable[SizeCurve]) -> str:
    """A line per number of clips; the last one of each curve is the value at infinity, with its standard error."""
    lines: list[dict[str, object]] = []
    for each in found:
        curve = {"row": each.row.full_name, "score": each.score, "dimensions": each.dimensions}
        sizes = zip(each.found.sizes, each.found.scores, strict=True)
        lines += [{**curve, "clips": f"{size:.0f}", "value": float(score)} for size, score in sizes]
        fit = {"value": float(each.found.value), "standard_error": float(each.found.standard_error)}
        lines.append({**curve, "clips": "inf", **fit, "line_expected": "yes" if each.straight else "no"})
    return csv_text(["row", "score", "dimensions", "clips", "value", "standard_error", "line_expected"], lines)
