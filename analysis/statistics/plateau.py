"""Whether training had converged: steps to the plateau of the held-out loss, and whether it still fell at the end.

In: `Estimates`. Out: a `Plateau` per row with held-out curves. Pure: no files. The curve is that of
`train.csv`, of the first held-out windows with fixed timesteps and noise: steps and seeds differ by training alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.study.files import Array
from analysis.study.load import Trial
from analysis.study.rows import Estimates, Row, RowKey
from cinelora.metrics.primary import LOSS

WITHIN = 0.05  # of the whole gain: closer to the last loss is the plateau
LAST = 0.2  # of training: a loss that still falls here has not converged
LEVEL = 0.95  # one-sided
MARK = "‡"  # behind a rank that was still improving


@dataclass(frozen=True)
class Plateau:
    """Of one row, in optimiser steps. `steps` is None where the loss did not fall.

    `steps`: the first evaluation from which the mean curve of the seeds stays within WITHIN of its own whole fall from
    its last loss. An upper bound to the next evaluation: no finer than `train.heldout_every`.
    `still`: whether the loss fell between `since`, the last evaluation at or before 1 - LAST of the steps, and the end,
    by more than its noise: the fall of every seed, their mean clear of zero by a one-sided t-test at LEVEL. None from
    one seed, whose noise is unknown.
    """

    steps: int | None
    still: bool | None
    since: int
    end: int


def plateaus(estimates: Estimates) -> dict[RowKey, Plateau]:
    """One per row with finished trials whose curves are finite and have the same two or more steps."""
    found = {row.key: _curves(estimates.trials(row)) for row in estimates.rows}
    return {key: plateau(*each) for key, each in found.items() if each is not None}


def plateau(steps: Array, curves: Array) -> Plateau:
    """Of evaluations at `steps` (E,), rising, and the losses of each seed (S, E); E >= 2."""
    mean, end = curves.mean(0), steps[-1]
    fall = mean[0] - mean[-1]
    off = np.flatnonzero(np.abs(mean - mean[-1]) > WITHIN * fall)
    reached = int(steps[off[-1] + 1]) if fall > 0 else None
    before = int(np.flatnonzero(steps <= (1 - LAST) * end)[-1]) if steps[0] <= (1 - LAST) * end else 0
    return Plateau(reached, _clear(curves[:, before] - curves[:, -1]), int(steps[before]), int(end))


def marked(row: Row, found: Mapping[RowKey, Plateau]) -> str:
    """MARK where the row was still improving, else nothing."""
    return MARK if row.key in found and found[row.key].still else ""


def sentence(estimates: Estimates, found: Mapping[RowKey, Plateau]) -> str:
    """What MARK means and which rows have it; "" where none has."""
    rows = [row for row in estimates.rows if marked(row, found)]
    if not rows:
        return ""
    since = "/".join(dict.fromkeys(f"{found[row.key].since} to {found[row.key].end}" for row in rows))
    return (
        f"{MARK} Still improving when training ended: from step {since} the held-out loss fell by more than its seeds "
        f"differ (one-sided t-test, {LEVEL:.0%}): {len(rows)} of {len(found)} rows. What is said of them holds for "
        "this many steps."
    )


def _clear(falls: Array) -> bool | None:
    if len(falls) < 2:
        return None
    error = falls.std(ddof=1) / np.sqrt(len(falls))
    return bool(falls.mean() > stats.t.ppf(LEVEL, len(falls) - 1) * error)


def _curves(trials: Sequence[Trial]) -> tuple[Array, Array] | None:
    """Steps (E,) and losses (S, E); None where the steps of the seeds differ or a loss is not finite."""
    found = [trial.curve.dropna(subset=LOSS) for trial in trials]
    steps = {tuple(each["step"]) for each in found}
    if len(steps) != 1 or len(next(iter(steps))) < 2:
        return None
    losses = np.stack([each[LOSS].to_numpy(np.float64) for each in found])
    return (np.array(next(iter(steps)), dtype=np.float64), losses) if np.isfinite(losses).all() else None
