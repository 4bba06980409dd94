"""Trial scores -> one row per rank: mean over seeds, smallest and largest seed, how many of how many.

In: a `Study` and its `TrialScores`. Out: `Estimates`, rows sorted with the base first. Pure: no files.
A row is everything that was planned alike but for the seed. Settings that differ between rows beyond
rank, alpha rule, targets and learning rate (say train.steps) make rows of their own, named in `other`:
trials that are not alike are never averaged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from analysis.study.clip_values import Scorer, clip_scorers
from analysis.study.files import Array
from analysis.study.load import BASE, GRID, Study, Trial, sort_key, standalone
from analysis.study.scores import DIRECTIONS, METRICS, SET_SCORES, TrialScores, diversities, name_of, trial_scores
from cinelora.core.config import Method, Scaling
from cinelora.core.records import TrialSpec
from cinelora.metrics.primary import PrimaryScores, primary_scores
from sweeps.looks import row_id
from sweeps.memory import BYTES
from sweeps.plan import identity

UNIQUE = ("seed", "adapter_sha256", "adapter_alpha", "clips_sha256", "clips_rank")  # of a trial, not of its row
OWN_COLUMNS = {"method", "train.learning_rate", "lora.rank", "lora.scaling", "lora.alpha", "lora.targets"}
HERE = "trained here"  # the series of our own beside those of other trainers
MEGA = 1e6  # bytes in a megabyte (decimal)


class RowKey(NamedTuple):
    """What a row's trials share. `rank` is 0 without adapter, whose settings are then blank."""

    kind: int  # BASE, GRID or CONTROL; rows are sorted by it first
    label: str  # of a row CONTROL the grid: its arm, "full" or "frozen first frame"
    rank: int
    scaling: str
    alpha: float
    targets: str
    learning_rate: float
    other: tuple[tuple[str, str], ...]  # dotted setting -> value, only settings that vary in the study


@dataclass(frozen=True)
class Estimate:
    """One score of one row over its seeds, sorted by seed."""

    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def low(self) -> float:
        return float(np.min(self.values))

    @property
    def high(self) -> float:
        return float(np.max(self.values))


@dataclass(frozen=True)
class Row:
    """One line of the rank table. `estimates` lacks a score that no trial of the row has."""

    key: RowKey
    series: str  # names what varies beside the rank; "" if nothing does
    scale: float
    planned: int  # trials
    trial_ids: tuple[str, ...]  # the finished ones, by seed
    parameters: int | None  # None until a trial has finished, and of finished clips
    adapter_megabytes: float | None  # of a full fine-tune: all weights of the denoiser
    seconds_per_step: float | None  # mean over seeds; None for the base
    estimates: Mapping[str, Estimate]

    @property
    def done(self) -> int:
        return len(self.trial_ids)

    @property
    def is_base(self) -> bool:
        return self.key.kind == BASE

    @property
    def in_grid(self) -> bool:
        return self.key.kind == GRID

    @property
    def is_frozen(self) -> bool:
        """Whether it is the frozen first frame, whose scores may be far from all others."""
        return self.key.label == Method.frozen.title

    @property
    def name(self) -> str:
        """base, rank 8, full, or an arm such as source clips, rank 8."""
        adapter = name_of(self.key.rank) if self.key.rank or self.is_base else ""
        return ", ".join(part for part in (self.key.label, adapter) if part)

    @property
    def full_name(self) -> str:
        """The name and what varies beside the rank; of one row only."""
        return f"{self.name}, {self.series}" if self.series else self.name


@dataclass(frozen=True, eq=False)
class Estimates:
    """The rows of a study, and what every comparison of rows starts from."""

    study: Study
    rows: tuple[Row, ...]  # the base first
    scores: TrialScores  # with those that only a row gives: how far its seeds are apart

    @cached_property
    def base(self) -> Trial | None:
        """The trial that gains are counted from; None where no base has finished."""
        first = next((row for row in self.rows if row.is_base and row.done), None)
        return None if first is None else self.study.by_id[first.trial_ids[0]]

    @cached_property
    def shots(self) -> list[str]:
        """The source shot of each of `scores.clips`."""
        return self.study.shots(self.scores.clips)

    @cached_property
    def scorers(self) -> Mapping[str, Scorer]:
        """Score -> its values of a trial on `scores.clips`."""
        return clip_scorers(self.study, self.scores.clips)

    @cached_property
    def primary(self) -> PrimaryScores:
        """The scores that the report is about."""
        return primary_scores(self.scores.values.values(), self.study.chosen)

    @property
    def clip_scores(self) -> list[str]:
        """The scores of the comparisons: all with a value per clip, in the order of the table. A biased distance is
        compared only where it is a primary score."""
        biased = {score for score in SET_SCORES if not METRICS[score].distance.unbiased}.difference(
            self.primary.answered
        )
        return [score for score in DIRECTIONS if score in self.scorers and score not in biased]

    @property
    def series(self) -> tuple[str, ...]:
        """The names of the adapter series in order of appearance; ("",) where only the rank varies."""
        return series_of(self.rows)

    def finished(self, series: str) -> list[Row]:
        """The rows of one adapter series that have a finished trial, by rank."""
        return [row for row in self.rows if row.in_grid and row.series == series and row.done]

    def rates(self, series: str) -> dict[int, float]:
        """Rank -> its learning rate, of a series whose finished ranks have several; else {}."""
        found = {row.key.rank: row.key.learning_rate for row in self.finished(series)}
        return found if len(set(found.values())) > 1 else {}

    def trials(self, row: Row) -> list[Trial]:
        """The finished trials of a row, by seed."""
        return [self.study.by_id[trial_id] for trial_id in row.trial_ids]

    def by_seed(self, row: Row) -> dict[int, Trial]:
        return {trial.spec.config.seed: trial for trial in self.trials(row)}

    def dropped(self, series: str) -> dict[int, int]:
        """Rank -> index of the look that dropped it."""
        found = self.study.looks.dropped if self.study.looks else {}
        return {rank: found[own] for rank, own in self.row_ids(series).items() if own in found}

    def row_ids(self, series: str) -> dict[int, str]:
        """Rank -> what looks.json calls its row."""
        return {row.key.rank: row_id(self.trials(row)[0].spec) for row in self.finished(series)}

    def values_by_rank(
        self, series: str, score: str, ranks: Collection[int] | None = None, seeds: int | None = None
    ) -> dict[int, Array]:
        """Rank -> (S, N) on the seeds that all finished rows of the series have; without ranks that lack the score.
        `ranks`, `seeds`: of these ranks and the first so many of their seeds alone."""
        rows = [row for row in self.finished(series) if ranks is None or row.key.rank in ranks]
        by_rank = {row.key.rank: self.by_seed(row) for row in rows}
        common = sorted(set.intersection(*map(set, by_rank.values())))[:seeds] if by_rank else []
        found: dict[int, Array] = {}
        for rank, trials in by_rank.items():
            values = [each for seed in common if (each := self.scorers[score](trials[seed])) is not None]
            if values and len(values) == len(common):
                found[rank] = np.stack(values)
        return found


def estimate(study: Study) -> Estimates:
    """Score all trials, group the plan into rows and average what has finished."""
    scores = trial_scores(study)
    groups: dict[RowKey, list[TrialSpec]] = {}
    for family in _families(study.specs):
        own = [settings(spec) for spec in family]
        others = [name for name in varying(own) if name not in OWN_COLUMNS]
        for spec, values in zip(family, own, strict=True):
            groups.setdefault(_row_key(spec, values, others), []).append(spec)
    names = _series([key for key in groups if key.kind == GRID])
    done = study.by_id
    found = {key: [done[spec.trial_id] for spec in groups[key] if spec.trial_id in done] for key in sorted(groups)}
    apart = diversities(study, found.values(), scores.clips)
    scores = replace(scores, values={name: {**own, **apart.get(name, {})} for name, own in scores.values.items()})
    rows = [_row(key, names.get(key, ""), groups[key], trials, scores) for key, trials in found.items()]
    return Estimates(study, tuple(rows), scores)


def _row_key(spec: TrialSpec, values: Mapping[str, str], others: Iterable[str]) -> RowKey:
    names = [*others, *(("trainer", "label") if spec.config.method in (Method.adapter, Method.clips) else ())]
    other = tuple((name, values[name]) for name in dict.fromkeys(names) if name in values)
    config, place = spec.config, sort_key(spec)
    label = config.arm or standalone(config)
    adapter = (place.rank, place.scaling, place.alpha, place.targets, place.learning_rate)
    return RowKey(place.kind, label, *adapter, other)


def series_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """The names of the adapter series in order of appearance; ("",) where only the rank varies."""
    return tuple(dict.fromkeys(row.series for row in rows if row.in_grid))


def _row(key: RowKey, series: str, specs: list[TrialSpec], trials: list[Trial], scores: TrialScores) -> Row:
    known_size = trials and specs[0].config.method is not Method.clips  # of finished clips nothing is known
    times = [trial.result.seconds_per_step for trial in trials]
    known = [seconds for seconds in times if seconds is not None]
    return Row(
        key=key,
        series=series,
        scale=specs[0].config.lora.scale if key.scaling else 0.0,
        planned=len(specs),
        trial_ids=tuple(trial.spec.trial_id for trial in trials),
        parameters=trials[0].result.trainable_parameters if known_size else None,
        adapter_megabytes=_adapter_bytes(trials[0]) / MEGA if known_size else None,
        seconds_per_step=float(np.mean(known)) if known else None,
        estimates=_estimates(trials, scores),
    )


def _adapter_bytes(trial: Trial) -> int:
    """As recorded; older full fine-tunes recorded 0: there the weights of the denoiser in its precision."""
    result, config = trial.result, trial.spec.config
    whole = config.method is Method.full and not result.adapter_bytes
    return result.trainable_parameters * BYTES[config.model.dtype] if whole else result.adapter_bytes


def _estimates(trials: list[Trial], scores: TrialScores) -> dict[str, Estimate]:
    found: dict[str, list[tuple[int, float]]] = {}
    for trial in trials:
        for score, value in scores.values[trial.spec.trial_id].items():
            found.setdefault(score, []).append((trial.spec.config.seed, value))
    return {score: Estimate(*zip(*sorted(pairs), strict=True)) for score, pairs in sorted(found.items())}


def settings(spec: TrialSpec) -> dict[str, str]:
    """Dotted settings that count for this trial, without its seed, and its content hashes, as text."""
    flat = flatten(identity(spec.config, spec.fingerprints)["config"])
    flat |= {f"{name} content": digest[:8] for name, digest in spec.fingerprints.items()}
    if spec.config.method is Method.clips:
        named = spec.config.label if spec.config.clips_rank >= 0 else ""
        flat |= {"trainer": spec.config.trainer, "label": named}
        flat = {name: text for name, text in flat.items() if text}
    if spec.config.method is Method.adapter:
        flat |= {"trainer": spec.config.trainer or "unknown"}
        flat |= {"label": spec.config.label} if spec.config.label else {}
    return {name: text for name, text in flat.items() if name not in UNIQUE}


def _families(specs: Iterable[TrialSpec]) -> list[list[TrialSpec]]:
    """The sweep with its base; the full fine-tunes; each control: what varies is named within each."""
    families: dict[tuple[str, str], list[TrialSpec]] = {}
    for spec in specs:
        families.setdefault((spec.config.arm, standalone(spec.config)), []).append(spec)
    return list(families.values())


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in tree.items():
        out |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: str(value)}
    return out


def distinct(facts: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Name -> its different texts, in order of appearance."""
    found: dict[str, dict[str, None]] = {}
    for each in facts:
        for name, text in each.items():
            found.setdefault(name, {})[text] = None
    return {name: list(texts) for name, texts in found.items()}


def varying(facts: Iterable[Mapping[str, str]]) -> list[str]:
    """The names that have several texts, sorted."""
    return sorted(name for name, texts in distinct(facts).items() if len(texts) > 1)


def _series(keys: list[RowKey]) -> dict[RowKey, str]:
    """A short name per row of what varies among adapters beside the rank and what the rank implies.

    A learning rate tuned per rank (each rank of a series has one) belongs to the rank: the ranks stay one series.
    """
    rates: dict[tuple[int, tuple[str, ...]], set[float]] = {}
    for key in keys:
        rates.setdefault((key.rank, tuple(_parts(key, tuned=True))), set()).add(key.learning_rate)
    tuned = all(len(found) == 1 for found in rates.values())
    parts = {key: _parts(key, tuned) for key in keys}
    shared = set.intersection(*(set(each) for each in parts.values())) if parts else set()
    names = {key: ", ".join(part for part in each if part not in shared) for key, each in parts.items()}
    mixed = any("trainer" in dict(key.other) for key in keys)
    return {key: name or HERE * (mixed and "trainer" not in dict(key.other)) for key, name in names.items()}


def _parts(key: RowKey, tuned: bool) -> list[str]:
    if not key.scaling:  # finished clips
        return ["clips", *(f"{name} {text}" for name, text in key.other)]
    implied = key.scaling == Scaling.alpha_equals_rank.value
    alpha = [] if implied else [f"alpha {key.alpha:g}"]
    rate = [] if tuned else [f"learning rate {key.learning_rate:g}"]
    rest = [f"{name} {text}" for name, text in key.other]
    return [key.scaling.replace("_", " "), *alpha, key.targets, *rate, *rest]
