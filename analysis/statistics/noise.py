"""The noise floor of the scores: true clips against true clips, and the base against itself under other sampling noise.

In: `Estimates`. Out: `Halves` and `Reseed` records, noise_floor.csv, one sentence. Pure: no files.

Halves: the true clips are cut in two at random, SPLITS times, shots kept whole as far as the middle allows; one half
is scored against the other. A distance between sets depends on their size, so each row is scored alike: its clips of
the one half against the true clips of the other, and no clip against its own truth.

Reseed: a control arm of method base that differs from the base in `sample.seed` alone. Both are draws of one thing,
so their difference is expected to be zero and what is seen is noise. Ranks share their starting noise with each other,
which takes part of it out of their differences. A difference within the floor is not shown to be more than another
draw; one beyond it may still be chance.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.intervals import LEVEL, reach_about_zero
from analysis.statistics.pairwise import Pairwise
from analysis.statistics.rank_tests import RankTests
from analysis.study.load import Reference, Study, Trial
from analysis.study.rows import Estimates, flatten
from analysis.study.scores import DIRECTIONS, SET_SCORES
from cinelora.core.config import Method
from cinelora.core.records import TrialSpec
from cinelora.metrics.catalogue import metric
from cinelora.metrics.distances import standardise
from cinelora.metrics.feature_nets import WEIGHTS
from sweeps.plan import identity

Array = NDArray[np.float64]
SPLITS, SEED, FEWEST = 100, 0, 8  # FEWEST clips, for halves with a spread
REAL = "real clips"
SAMPLE_SEED = "sample.seed"
IN_SENTENCE = ("kvd[tnv2]", "psnr")  # in the sentence


@dataclass(frozen=True)
class Halves:
    """A score of `clips` clips a side: the mean over splits, and where the middle LEVEL of them lies."""

    score: str
    row: str  # REAL: true clips against true clips
    series: str
    rank: int  # 0 for the base and the true clips
    clips: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Reseed:
    """`value`: other noise minus base, mean over `draws`. `reach`: LEVEL of such differences fall within +-reach; of a
    score without a value a clip the largest difference seen."""

    score: str
    value: float
    reach: float
    by_clip: bool
    draws: int
    clips: int


def halves(estimates: Estimates) -> tuple[Halves, ...]:
    """Every set score of the first trial's reference, then of base and ranks, mean over seeds; () with few clips."""
    study, clips, out = estimates.study, estimates.scores.clips, []
    if len(clips) < FEWEST:
        return ()
    one, other = _splits(estimates.shots)
    rows = [row for row in estimates.rows if row.done and (row.is_base or row.in_grid)]
    for score, net in SET_SCORES.items():
        if net not in study.reference.features:
            continue
        drawn = _scored(score, net, study.reference, None, clips, one, other)
        out += [_record(score, REAL, "", 0, one, drawn)] if drawn is not None else []
        for row in rows:
            own = [trial for trial in estimates.trials(row) if net in trial.features]
            found = [_scored(score, net, study.reference_of(each), each, clips, one, other) for each in own]
            known = [each for each in found if each is not None]
            if known:
                out.append(_record(score, row.full_name, row.series, row.key.rank, one, np.mean(known, axis=0)))
    return tuple(out)


def reseeds(estimates: Estimates) -> tuple[Reseed, ...]:
    """Every score of the base that moves with the noise; () without a finished `noise_trials`."""
    study, base, clips = estimates.study, estimates.base, estimates.scores.clips
    others = [] if base is None else noise_trials(study, base.spec)
    if base is None or not others or len(clips) < 2:
        return ()
    scorers, out = estimates.scorers, []
    values = estimates.scores.values
    for score in DIRECTIONS:
        pairs = [(values[each.spec.trial_id].get(score), values[base.spec.trial_id].get(score)) for each in others]
        moved = [after - before for after, before in pairs if after is not None and before is not None]
        if not any(moved) or not np.isfinite(moved).all():
            continue  # nothing is sampled in a loss
        by_clip = [] if len(clips) < 3 or score not in scorers else _by_clip([*others, base], scorers[score])
        reach = (
            reach_about_zero(np.stack(by_clip[:-1]) - by_clip[-1], estimates.shots) if by_clip else np.abs(moved).max()
        )
        out.append(Reseed(score, float(np.mean(moved)), float(reach), bool(by_clip), len(moved), len(clips)))
    return tuple(out)


def noise_trials(study: Study, base: TrialSpec) -> list[Trial]:
    """The finished trials that are this base under other sampling noise and nothing else."""
    return [
        trial
        for trial in study.trials
        if trial.spec.config.method is Method.base and trial.spec.config.arm and _differing(trial.spec, base)
    ]


def within(pairs: Pairwise, floor: Reseed) -> list[int]:
    """The ranks whose difference to the best is no larger than what another draw of the noise does."""
    return [each.rank for each in pairs.others if abs(each.difference.mean) <= floor.reach]


def sentence(found: Sequence[Halves], reseeds: Sequence[Reseed], tests: Iterable[RankTests]) -> str:
    """What the noise alone does; "" where nothing was computed."""
    known = {each.score: each for each in reseeds}
    tested = list(tests)
    parts = []
    for score in (name for name in IN_SENTENCE if name in known):
        pairs = [each.pairs for each in tested if each.score == score and each.pairs]
        inside = sum(len(within(each, known[score])) for each in pairs)
        part = f"{score} \N{PLUS-MINUS SIGN}{known[score].reach:.2g}"
        total = sum(len(each.others) for each in pairs)
        parts.append(f"{part} ({inside} of {total} differences of a rank to the best lie within)" if total else part)
    parts_of_sentence = [f"the base under other sampling noise moves by {', '.join(parts)}"] if parts else []
    for each in found:
        if each.row == REAL and each.score == IN_SENTENCE[0]:
            spread = f"{each.mean:.2g} [{each.low:.2g}, {each.high:.2g}]"
            parts_of_sentence.append(f"real clips against real clips, {each.clips} a side, have {each.score} {spread}")
    return f"Noise floor, {LEVEL:.0%}: {'; '.join(parts_of_sentence)}." if parts_of_sentence else ""


def as_csv(found: Iterable[Halves], reseeds: Iterable[Reseed]) -> str:
    """Halves: mean and the middle LEVEL of the splits. Reseed: the difference to the base and -reach, reach."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["floor", "score", "row", "clips", "draws", "value", "low", "high"])
    for half in found:
        numbers = [f"{number:.9g}" for number in (half.mean, half.low, half.high)]
        writer.writerow(["halves", half.score, half.row, half.clips, SPLITS, *numbers])
    for each in reseeds:
        numbers = [f"{number:.9g}" for number in (each.value, -each.reach, each.reach)]
        writer.writerow(["redraw", each.score, "base", each.clips, each.draws, *numbers])
    return stream.getvalue()


def _splits(shots: Sequence[str]) -> tuple[Array, Array]:
    """Counts (SPLITS, N) of two equal halves without a clip in common; at most one shot is on both sides."""
    random, count = np.random.default_rng(SEED), len(shots)
    names, member = np.unique(np.asarray(shots), return_inverse=True)
    one, other = np.zeros((SPLITS, count)), np.zeros((SPLITS, count))
    for split in range(SPLITS):
        place = random.permutation(len(names))
        order = np.lexsort((random.permutation(count), place[member]))
        one[split, order[: count // 2]] = 1.0
        other[split, order[count - count // 2 :]] = 1.0
    return one, other


def _scored(
    score: str, net: str, truth: Reference, trial: Trial | None, clips: tuple[str, ...], one: Array, other: Array
) -> Array | None:
    """One half of the trial's clips (None: of the true ones) against the other half of the true ones, (SPLITS,)."""
    if net not in truth.features:
        return None
    real = truth.features[net].of(clips)
    made = real if trial is None else trial.features[net].of(clips)
    if not (np.isfinite(real).all() and np.isfinite(made).all()):
        return None
    if WEIGHTS[net].standardised:
        real, made = standardise(real, made)
    distance = metric(score).distance  # the halves hold different clips, so no pair is left out
    return distance.statistic(distance.grams(made, real), one, other)


def _record(score: str, row: str, series: str, rank: int, one: Array, drawn: Array) -> Halves:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Halves(score, row, series, rank, round(one[0].sum()), float(drawn.mean()), float(low), float(high))


def _by_clip(trials: Sequence[Trial], of_score: Callable[[Trial], Array | None]) -> list[Array]:
    """The values a clip of every trial; [] where one lacks them."""
    found = [of_score(trial) for trial in trials]
    return [each for each in found if each is not None] if all(each is not None for each in found) else []


def _differing(spec: TrialSpec, base: TrialSpec) -> bool:
    one, other = (flatten(identity(each.config, each.fingerprints)) for each in (spec, base))
    return {name for name in {*one, *other} if one.get(name) != other.get(name)} == {f"config.{SAMPLE_SEED}"}
