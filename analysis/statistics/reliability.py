"""What a distance between sets says of fewer clips: its mean over subsets of n clips, and its value at infinitely many.

In: `Estimates`; the saved features of the first finished trial of the base and of each rank. Out: `SizeCurve`
records and fvd_vs_n.csv. Subsets are drawn without replacement, the same for every row, a made clip with its true one;
the scale that standardises is that of all true clips. An unbiased estimate stays level; a Frechet distance falls like
1 / n once n is clearly above the number of dimensions, so it is also taken on few principal axes of the true clips.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.study.rows import Estimates, Row
from cinelora.metrics.distances import fit_principal_axes, project, standardise
from cinelora.metrics.feature_nets import WEIGHTS
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

Array = NDArray[np.float64]
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


def set_sizes(estimates: Estimates, net: str = "tnv2") -> tuple[SizeCurve, ...]:
    """fvd on all dimensions and on few axes, and kvd, of base and ranks; () below 2 GROUPS clips or without `net`."""
    clips = estimates.scores.clips
    rows = [row for row in estimates.rows if row.done and (row.is_base or row.in_grid)]
    if len(clips) < 2 * GROUPS:
        return ()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # most of the time is NumPy's, which lets other threads run
        found = pool.map(lambda row: _of_trial(estimates, row, net), rows)
        return tuple(each for of_row in found for each in of_row)


def _of_trial(estimates: Estimates, row: Row, net: str) -> list[SizeCurve]:
    trial, clips = estimates.trials(row)[0], estimates.scores.clips
    real, made = estimates.study.reference_of(trial).features.get(net), trial.features.get(net)
    if real is None or made is None:
        return []
    true, own = real.of(clips), made.of(clips)
    if not (np.isfinite(true).all() and np.isfinite(own).all()):
        return []
    if WEIGHTS[net].standardised:
        true, own = standardise(true, own)
    dimensions = true.shape[1]
    few = max(1, min(dimensions, int(SMALLEST_SHARE * len(clips)) // CLIPS_PER_AXIS))
    axes = fit_principal_axes(true, few)
    fvd = [(few, linear_grams(project(axes, own), project(axes, true)))]
    if few < dimensions:
        fvd.insert(0, (dimensions, linear_grams(own, true)))
    out = [
        SizeCurve(row, f"fvd[{net}]", count, len(clips), _line(grams, frechet_replicates, "fvd"))
        for count, grams in fvd
    ]
    return [
        *out,
        SizeCurve(
            row,
            f"kvd[{net}]",
            dimensions,
            len(clips),
            _line(kernel_grams(own, true), matched_mmd_replicates, "kvd"),
        ),
    ]


def _line(grams: Grams, statistic: Statistic, name: str) -> Extrapolated:
    return at_infinity(grams, statistic, np.random.default_rng(SEED), SIZES, ORDERS[name])


def as_csv(found: Iterable[SizeCurve]) -> str:
    """A line a size, the last one of each curve at infinitely many clips with its standard error; nine digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "score", "dimensions", "clips", "value", "standard_error", "line_expected"])
    for each in found:
        head = (each.row.full_name, each.score, each.dimensions)
        for size, score in zip(each.found.sizes, each.found.scores, strict=True):
            writer.writerow([*head, f"{size:.0f}", f"{score:.9g}", "", ""])
        straight = "yes" if each.straight else "no"
        writer.writerow([*head, "inf", f"{each.found.value:.9g}", f"{each.found.standard_error:.9g}", straight])
    return stream.getvalue()
