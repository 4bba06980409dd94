"""Each row of the rank table against the base: paired differences with 95 % intervals.

In: `Study`, `Estimates`. Out: `Difference` records, as CSV and as lines to read. Pure: no files.
Row and base are compared clip by clip: same first frame, caption, starting noise. A draw resamples training seeds,
then shots, then clips (`analysis/resample.py`) and takes the difference inside the draw. The base has no seed.
The reference that standardises features is held fixed. Several shots of few clips make wide intervals: as it is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from analysis.estimates import Estimates, Row
from analysis.load import Study, Trial
from analysis.resample import LEVEL, clip_counts, interval, seed_weights
from analysis.scores import CLIP_SCORES, DIRECTIONS, HIGHER, LOWER
from cinelora.distances import polynomial_kernel, resampled_mmd, standardise
from cinelora.records import reference_key

Array = NDArray[np.float64]
COMPARED = ("heldout_loss", "kvd[tnv2]", "psnr")  # scores told in words; the CSV has all
DIGITS = 3  # significant, of a difference


@dataclass(frozen=True)
class Difference:
    """Row minus base. `verdict` is "better" or "worse" where the interval is clear of zero, else "undecided"."""

    row: str
    score: str
    value: float
    low: float
    high: float
    seeds: int
    clips: int

    @property
    def verdict(self) -> str:
        if not (self.low > 0 or self.high < 0):
            return "undecided"
        if DIRECTIONS[self.score] not in (LOWER, HIGHER):
            return "different"
        return "better" if (self.value > 0) == (DIRECTIONS[self.score] == HIGHER) else "worse"


def differences(study: Study, estimates: Estimates) -> tuple[Difference, ...]:
    """Every row with finished trials against the base, every score that can be resampled; () without a base."""
    trials = {trial.spec.trial_id: trial for trial in study.trials}
    base = next((trials[row.trial_ids[0]] for row in estimates.rows if row.is_base and row.done), None)
    if base is None or len(estimates.scores.clips) < 2:
        return ()
    clips = estimates.scores.clips
    counts = clip_counts([study.reference.shots.get(clip, clip) for clip in clips])
    counts = counts[(counts > 0).sum(1) > 1]  # a draw of one clip alone has no pairs
    found = []
    for row in estimates.rows:
        if row.done and not row.is_base:
            own = [trials[trial_id] for trial_id in row.trial_ids]
            found += _of_row(study, row, base, own, clips, counts)
    return tuple(found)


def _of_row(
    study: Study, row: Row, base: Trial, own: list[Trial], clips: tuple[str, ...], counts: Array
) -> list[Difference]:
    ways: dict[str, Callable[[Trial], tuple[float, Array] | None]] = {
        score: partial(_mean_of, score, clips, counts) for score in CLIP_SCORES
    }
    ways["kvd[tnv2]"] = partial(_kernel_distance, study, clips, counts)
    weights = seed_weights(len(own), len(counts))
    out = []
    for score in DIRECTIONS:
        if score not in ways:
            continue
        before, after = ways[score](base), [ways[score](trial) for trial in own]
        known = [each for each in after if each is not None]
        if before is None or len(known) < len(own):
            continue
        draws = sum(weights[:, index] * each[1] for index, each in enumerate(known)) - before[1]
        value = float(np.mean([each[0] for each in known])) - before[0]
        low, high = interval(np.asarray(draws))
        out.append(Difference(row.name, score, value, low, high, len(own), len(clips)))
    return out


def _mean_of(score: str, clips: tuple[str, ...], counts: Array, trial: Trial) -> tuple[float, Array] | None:
    """(mean over clips, mean in each draw) of a clip score."""
    if score not in trial.scores:
        return None
    values = np.array([trial.scores[score][clip] for clip in clips])
    return float(values.mean()), counts @ values / counts.sum(1)


def _kernel_distance(study: Study, clips: tuple[str, ...], counts: Array, trial: Trial) -> tuple[float, Array] | None:
    """(kvd[tnv2], the same in each draw)."""
    reference = study.references[reference_key(trial.spec)].features.get("tnv2")
    made = trial.features.get("tnv2")
    if reference is None or made is None:
        return None
    rows = (reference.of(clips), made.of(clips))
    if not all(np.isfinite(each).all() for each in rows):
        return None
    x, y = standardise(*rows)
    grams = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    whole = resampled_mmd(*grams, np.ones((1, len(clips))))
    return float(whole[0]), resampled_mmd(*grams, counts)


def differences_csv(found: tuple[Difference, ...]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "score", "difference", "low", "high", "verdict", "seeds", "clips"])
    for each in found:
        numbers = [f"{number:.9g}" for number in (each.value, each.low, each.high)]
        writer.writerow([each.row, each.score, *numbers, each.verdict, each.seeds, each.clips])
    return stream.getvalue()


def sentences(found: tuple[Difference, ...]) -> list[str]:
    """One line per row: its COMPARED scores against the base."""
    by_row: dict[str, list[Difference]] = {}
    for each in found:
        if each.score in COMPARED:
            by_row.setdefault(each.row, []).append(each)
    return [f"{row}: " + "; ".join(_words(each) for each in of_row) for row, of_row in by_row.items()]


def heading(found: tuple[Difference, ...]) -> str:
    """What the lines are, with what they rest on."""
    seeds = "/".join(dict.fromkeys(str(each.seeds) for each in found))
    return (
        f"Against the base: paired difference over {found[0].clips} clips, {LEVEL:.0%} interval "
        f"(seeds, shots and clips resampled; {seeds} seeds; an interval from one seed knows nothing of the next)"
    )


def _words(each: Difference) -> str:
    return f"{each.score} {each.value:+.{DIGITS}g} [{each.low:+.{DIGITS}g}, {each.high:+.{DIGITS}g}] {each.verdict}"
