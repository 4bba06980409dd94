"""A large rank, truncated by SVD, against adapters trained at the smaller ranks: a small rank without its training.

In: `Estimates`, and the files of `cinelora/export/truncate.py` in the study folder, which may be incomplete or absent.
Out: `Truncated` records, a CSV file, sentences. Truncated ("cut") and trained adapters are compared by clip and seed;
`analysis/statistics/intervals.py` gives the interval over seeds and shots.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.statistics.differences import DIGITS
from analysis.statistics.intervals import LEVEL, Interval, crossed_interval
from analysis.study.clip_values import Scorer
from analysis.study.files import Array, csv_text, read_clip_scores, read_features
from analysis.study.load import Study, Trial
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, LOWER, NONE
from cinelora.core.cli import UserError
from cinelora.core.files import read_json
from cinelora.core.paths import SampleFolder
from cinelora.core.records import TruncationResult

HEAD = ["score", "series", "source_rank", "rank", "kept", "cut", "trained", "difference", "low", "high", "verdict"]
HEAD += ["seeds", "shots"]
CUT_BETTER, TRAINED_BETTER, UNDECIDED = "cut is better", "training is better", "undecided"


@dataclass(frozen=True)
class Truncated:
    """One score of one series at one rank: at `source_rank` the adapter is whole, below it is truncated."""

    score: str
    series: str
    source_rank: int
    rank: int
    kept: float  # share of the squared norm of the updates, mean over seeds
    cut: tuple[float, ...]  # one a seed
    trained: tuple[float, ...]  # one a seed; () where no such trial has finished
    difference: Interval | None  # trained - cut on the seeds that both have

    @property
    def verdict(self) -> str:
        """What the interval shows; "" where nothing is compared or the score has no better direction."""
        found, way = self.difference, DIRECTIONS[self.score]
        if found is None or self.rank == self.source_rank or way == NONE:
            return ""
        if not (found.low > 0 or found.high < 0):
            return UNDECIDED
        return CUT_BETTER if (found.mean > 0) == (way == LOWER) else TRAINED_BETTER


@dataclass(frozen=True, eq=False)
class _Cut:
    result: TruncationResult
    trial: Trial  # that was cut, with the scores and features of the cut


def truncations(estimates: Estimates) -> tuple[Truncated, ...]:
    """One per score with values per clip, series and smaller rank; only the largest source rank of a series counts."""
    study, clips = estimates.study, estimates.scores.clips
    found = _load(study, clips)
    if not found or len(clips) < 3:
        return ()
    out = []
    for series in estimates.series:
        rows = estimates.finished(series)
        own = [each for each in found if any(each.result.trial_id in row.trial_ids for row in rows)]
        largest = max((each.result.source_rank for each in own), default=0)
        own = [each for each in own if each.result.source_rank == largest]
        trained = {row.key.rank: estimates.by_seed(row) for row in rows}
        for score in estimates.clip_scores:
            out += _of_series(score, series, own, trained, estimates.scorers[score], estimates.shots)
    return tuple(out)


def _load(study: Study, clips: tuple[str, ...]) -> list[_Cut]:
    """The truncations of the adapters that the study has now, sorted by folder."""
    out = []
    folders = {study.home(trial_id).folder.truncation for trial_id in study.by_id}
    for path in sorted(path for folder in folders for path in folder.root.glob("trials/*/result.json")):
        result, place = _result(path), SampleFolder(path.parent)
        trial = study.by_id.get(result.trial_id)
        if trial is None or trial.result.adapter_sha256 != result.adapter_sha256:
            continue  # of a trial that is no longer planned, or that was trained again
        scores = read_clip_scores(place.clip_scores)
        if any(not set(clips) <= set(values.ids) for values in scores.values()):
            raise UserError(f"{place.clip_scores}: lacks clips of the study; remove the folder and cut again")
        features = read_features(place) if result.scored else {}
        out.append(_Cut(result, replace(trial, scores=scores, features=features)))
    return out


def _result(path: Path) -> TruncationResult:
    try:
        return TruncationResult.from_json(read_json(path))
    except TypeError as error:
        raise UserError(f"{path}: not a cut this program reads ({error})") from error


def _of_series(
    score: str,
    series: str,
    cuts: Sequence[_Cut],
    trained: Mapping[int, Mapping[int, Trial]],
    of_score: Scorer,
    shots: Sequence[str],
) -> list[Truncated]:
    out = []
    for rank in sorted({each.result.rank for each in cuts}):
        at_rank = {each.trial.spec.config.seed: each for each in cuts if each.result.rank == rank}
        source = next(iter(at_rank.values())).result.source_rank
        # at the source rank nothing is cut: the scores are those of the trial
        own = {seed: each.trial if rank < source else trained[source][seed] for seed, each in at_rank.items()}
        cut, other = _values(own, of_score), _values(trained.get(rank, {}), of_score)
        if not cut:
            continue
        both = sorted(set(cut) & set(other))
        paired = [other[seed] - cut[seed] for seed in both]
        out.append(
            Truncated(
                score=score,
                series=series,
                source_rank=source,
                rank=rank,
                kept=float(np.mean([each.result.kept for each in at_rank.values()])),
                cut=tuple(float(cut[seed].mean()) for seed in sorted(cut)),
                trained=tuple(float(other[seed].mean()) for seed in sorted(other)),
                difference=crossed_interval(np.stack(paired), shots) if paired else None,
            )
        )
    return out if any(each.rank < each.source_rank for each in out) else []


def _values(trials: Mapping[int, Trial], of_score: Scorer) -> dict[int, Array]:
    found = {seed: of_score(trial) for seed, trial in trials.items()}
    return {seed: values for seed, values in found.items() if values is not None}


def as_csv(found: Iterable[Truncated]) -> str:
    """One line per record; `difference` is trained - cut."""
    lines = []
    for each in found:
        line = {name: value for name, value in vars(each).items() if name != "difference"}
        for name in ("cut", "trained"):
            line[name] = float(np.mean(line[name])) if line[name] else None
        if pair := each.difference:
            ends = {"difference": pair.mean, "low": pair.low, "high": pair.high}
            line |= {**ends, "seeds": pair.seeds, "shots": pair.shots}
        lines.append({**line, "verdict": each.verdict})
    return csv_text(HEAD, lines)


def sentences(found: Iterable[Truncated], compared: Collection[str]) -> list[str]:
    """One line per series and score of `compared`: the loss by truncation against training, at each smaller rank."""
    lines: dict[tuple[str, str], list[str]] = {}
    for each in found:
        if each.score in compared and each.verdict and each.difference:
            lines.setdefault((each.score, each.series), []).append(_words(each, each.difference))
    heads = {key: f"{key[0]}, {key[1]}" if key[1] else key[0] for key in lines}
    ranks = {(each.score, each.series): each.source_rank for each in found}
    return [f"{heads[key]}: rank {ranks[key]} {'; '.join(parts)}" for key, parts in lines.items()]


def heading(found: Sequence[Truncated]) -> str:
    pairs = [each.difference for each in found if each.difference]
    seeds = "/".join(dict.fromkeys(str(pair.seeds) for pair in pairs))
    return (
        f"Cut by SVD instead of trained: what is lost against training that rank, {LEVEL:.0%} interval, {seeds} "
        "training seeds (one seed shows nothing about others)"
    )


def _words(each: Truncated, found: Interval) -> str:
    """A positive number: the loss by truncation, or the gain."""
    loss = -found.mean if DIRECTIONS[each.score] == LOWER else found.mean
    turn = -1.0 if found.mean < 0 else 1.0
    low, high = sorted((turn * found.low, turn * found.high))
    text = f"cut to {each.rank} {'loses' if loss > 0 else 'gains'} {abs(loss):.{DIGITS}g}"
    text += f" [{low:.{DIGITS}g}, {high:.{DIGITS}g}] against training rank {each.rank}"
    return f"{text} (undecided)" if each.verdict == UNDECIDED else text
