"""The noise floor of the scores: real clips against real clips, and the base against the base under other noise.

In: `Estimates`. Out: `Halves` and `Reseed` records, noise_floor.csv, one sentence. Pure: no files.

Halves: the real clips are split into two random halves, SPLITS times. Shots stay whole, except the one in the middle.
One half is scored against the other. A distance depends on the number of clips, so each row of the table is scored
likewise: its generated clips of one half against the real clips of the other half.

Reseed: a control arm of method base that differs from the base in `sample.seed` alone. The expected difference is
zero, so the observed one is noise. Ranks share their starting noise, which removes part of it from their differences.
A difference within the floor may be sampling noise; one beyond the floor may still be chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.intervals import LEVEL, number, reach_about_zero
from analysis.statistics.pairwise import Pairwise
from analysis.statistics.rank_tests import RankTests
from analysis.study.files import Array, csv_text
from analysis.study.load import Reference, Study, Trial
from analysis.study.rows import Estimates, flatten
from analysis.study.scores import DIRECTIONS, SET_SCORES
from cinelora.core.config import Method
from cinelora.core.records import TrialSpec
from cinelora.metrics.catalogue import metric
from cinelora.metrics.primary import PrimaryScores
from cinelora.metrics.set_metrics import scaled
from sweeps.plan import identity

SPLITS, SEED, FEWEST = 100, 0, 8  # FEWEST clips, for halves with a spread
REAL = "real clips"
SAMPLE_SEED = "sample.seed"


@dataclass(frozen=True)
class Halves:
    """A score of `clips` clips a side: the mean over splits, and where the middle LEVEL of them lies."""

    score: str
    row: str  # REAL: real clips against real clips
    series: str
    rank: int  # 0 for the base and the real clips
    clips: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Reseed:
    """`value`: other noise minus base, mean over `draws`. LEVEL of such differences fall within +-`reach`; for a score
    without one value per clip, `reach` is the largest observed difference."""

    score: str
    value: float
    reach: float
    by_clip: bool
    draws: int
    clips: int


def halves(estimates: Estimates) -> tuple[Halves, ...]:
    """Each set score: of the real clips, of base and ranks, mean over seeds; () with fewer than FEWEST clips."""
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
    """Each score of the base that changes with the sampling noise; () without finished `noise_trials`."""
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
        paired = len(clips) > 2 and score in estimates.clip_scores
        by_clip = _by_clip([*others, base], scorers[score]) if paired else []
        reach = (
            reach_about_zero(np.stack(by_clip[:-1]) - by_clip[-1], estimates.shots) if by_clip else np.abs(moved).max()
        )
        out.append(Reseed(score, float(np.mean(moved)), float(reach), bool(by_clip), len(moved), len(clips)))
    return tuple(out)


def noise_trials(study: Study, base: TrialSpec) -> list[Trial]:
    """The finished trials that differ from this base in the sampling noise alone."""
    return [
        trial
        for trial in study.trials
        if trial.spec.config.method is Method.base and trial.spec.config.arm and _differing(trial.spec, base)
    ]


def within(pairs: Pairwise, floor: Reseed) -> list[int]:
    """The ranks whose difference to the best rank is within the noise floor."""
    return [each.rank for each in pairs.others if abs(each.difference.mean) <= floor.reach]


def sentence(
    found: Sequence[Halves], reseeds: Sequence[Reseed], tests: Iterable[RankTests], primary: PrimaryScores
) -> str:
    """The noise floor in one sentence; "" where nothing was computed."""
    known = {each.score: each for each in reseeds}
    tested = list(tests)
    parts = []
    for score in (name for name in primary.sampled if name in known):
        pairs = [each.pairs for each in tested if each.score == score and each.pairs]
        inside = sum(len(within(each, known[score])) for each in pairs)
        part = f"{score} \N{PLUS-MINUS SIGN}{number(known[score].reach, '.2g')}"
        total = sum(len(each.others) for each in pairs)
        parts.append(f"{part} ({inside} of {total} differences of a rank to the best lie within)" if total else part)
    parts_of_sentence = [f"the base under other sampling noise moves by {', '.join(parts)}"] if parts else []
    for each in found:
        if each.row == REAL and each.score == primary.distance:
            spread = f"{number(each.mean, '.2g')} [{number(each.low, '.2g')}, {number(each.high, '.2g')}]"
            parts_of_sentence.append(f"real clips against real clips, {each.clips} a side, have {each.score} {spread}")
    return f"Noise floor, {LEVEL:.0%}: {'; '.join(parts_of_sentence)}." if parts_of_sentence else ""


def as_csv(found: Iterable[Halves], reseeds: Iterable[Reseed]) -> str:
    """Halves: mean and the middle LEVEL of the splits. Reseed: the difference to the base and -reach, reach."""
    lines: list[dict[str, object]] = [
        {"floor": "halves", "draws": SPLITS, "value": half.mean, **vars(half)} for half in found
    ]
    for each in reseeds:
        ends = {"low": -each.reach, "high": each.reach}
        lines.append({"floor": "redraw", "row": "base", **vars(each), **ends})
    return csv_text(["floor", "score", "row", "clips", "draws", "value", "low", "high"], lines)


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
    score: str, net: str, reference: Reference, trial: Trial | None, clips: tuple[str, ...], one: Array, other: Array
) -> Array | None:
    """One half of the trial's clips (None: of the real clips) against the other half of the real clips, (SPLITS,)."""
    if net not in reference.features:
        return None
    real = reference.features[net].of(clips)
    generated = real if trial is None else trial.features[net].of(clips)
    if not (np.isfinite(real).all() and np.isfinite(generated).all()):
        return None
    real, generated = scaled(net, real, generated)
    distance = metric(score).distance  # the halves hold different clips, so no pair is left out
    return distance.statistic(distance.grams(generated, real), one, other)


def _record(score: str, row: str, series: str, rank: int, one: Array, drawn: Array) -> Halves:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Halves(score, row, series, rank, round(one[0].sum()), float(drawn.mean()), float(low), float(high))


def _by_clip(trials: Sequence[Trial], of_score: Callable[[Trial], Array | None]) -> list[Array]:
    """The values per clip of each trial; [] if a trial lacks them."""
    found = [of_score(trial) for trial in trials]
    return [each for each in found if each is not None] if all(each is not None for each in found) else []


def _differing(spec: TrialSpec, base: TrialSpec) -> bool:
    one, other = (flatten(identity(each.config, each.fingerprints)) for each in (spec, base))
    return {name for name in {*one, *other} if one.get(name) != other.get(name)} == {f"config.{SAMPLE_SEED}"}
