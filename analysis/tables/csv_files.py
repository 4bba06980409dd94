"""The rank table and all scores as CSV, numbers with nine digits: rank_table.csv and scores.csv.

In: `Estimates`. Out: the text of rank_table.csv; scores.csv as a file, written row by row because that of a large study
does not fit in memory. Of several merged studies, the first column of scores.csv names the one a row is from.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from analysis.statistics.plateau import Plateau
from analysis.study.files import csv_text
from analysis.study.load import COLUMNS, Study, Trial
from analysis.study.rows import Estimates, Row, RowKey
from analysis.study.scores import CORE, TABLE_SCORES, shown_further, shown_optional
from analysis.tables.rank_table import NOT_AVAILABLE, REAL, only_unavailable
from analysis.votes.results import Preference, Result
from cinelora.core.files import whole_file

SETTINGS = ("row", "rank", "alpha", "scale", "scaling", "targets", "learning_rate", "other")
COSTS = ("parameters", "adapter_megabytes", "seconds_per_step", "seeds_done", "seeds_planned", "clips")
TRAINING = ("steps_to_plateau", "still_improving")
PARTS = ("", "_min", "_max", "_seeds")  # behind the name of a score
VOTES = ("votes", "votes_low", "votes_high")  # worth by the votes of people, and its interval
WHOLE_SET = "(set)"  # the clip_id of a score that belongs to a whole trial
STILL_IMPROVING = {None: "", True: "yes", False: "no"}


def rank_csv(estimates: Estimates, plateaus: Mapping[RowKey, Plateau], votes: Result | None = None) -> str:
    """One line per row of the rank table; of each score its mean, smallest and largest seed and the number of seeds."""
    scores = (*TABLE_SCORES, *(score for score in CORE if score not in TABLE_SCORES))
    scores += (*shown_optional(estimates.scores), *shown_further(estimates.scores))
    absent = only_unavailable(estimates.scores)
    columns = [*SETTINGS, *COSTS, *TRAINING, *(f"{score}{part}" for score in scores for part in PARTS), *absent]
    worths = {row: _worth(each) for row, each in votes.worths.items()} if votes else {}
    columns += VOTES if worths else ()
    lines = []
    for row in estimates.rows:
        line = _settings(row) | _costs(row, estimates) | _training(plateaus.get(row.key))
        for score in scores:
            line |= _score(row, score)
        lines.append(line | dict.fromkeys(absent, NOT_AVAILABLE) | worths.get(row.full_name, {}))
    real = {score: value for score, value in estimates.scores.real.items() if score in scores}
    lines.append({"row": REAL, "clips": len(estimates.scores.clips)} | real | worths.get(REAL, {}))
    return csv_text(columns, lines)


def _settings(row: Row) -> dict[str, object]:
    key = row.key
    line: dict[str, object] = {"row": key.label or ("base" if row.is_base else "lora"), "rank": key.rank}
    if key.scaling:
        line |= {"alpha": key.alpha, "scale": row.scale}
        line |= {"scaling": key.scaling, "targets": key.targets}
    if not row.is_base and (key.learning_rate or not row.in_grid):  # an adopted adapter's is unknown
        line["learning_rate"] = key.learning_rate
    return line | {"other": "; ".join(f"{name}={text}" for name, text in key.other)}


def _costs(row: Row, estimates: Estimates) -> dict[str, object]:
    clips = len(estimates.scores.clips) if row.done else 0
    cost = (row.adapter_megabytes, row.seconds_per_step)
    return dict(zip(COSTS, (row.parameters, *cost, row.done, row.planned, clips), strict=True))


def _training(found: Plateau | None) -> dict[str, object]:
    """Empty where unknown."""
    return {} if found is None else dict(zip(TRAINING, (found.steps, STILL_IMPROVING[found.still]), strict=True))


def _score(row: Row, score: str) -> dict[str, object]:
    found = row.estimates.get(score)
    if found is None:
        return {score: NOT_AVAILABLE if row.done else "", f"{score}_seeds": 0}
    numbers = (found.mean, found.low, found.high)
    return dict(zip((f"{score}{part}" for part in PARTS), (*numbers, len(found.values)), strict=True))


def _worth(found: Preference) -> dict[str, object]:
    return dict(zip(VOTES, (found.worth, found.low, found.high), strict=True))


def write_scores(estimates: Estimates, path: Path) -> None:
    """A line per trial, clip and score, then one per trial and score that only the whole set of clips has."""
    study, scores = estimates.study, estimates.scores
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*(["study"] if study.merged else []), *COLUMNS])
        by_clip = {metric for trial in study.trials for metric in trial.scores}
        for trial in study.trials:
            for metric, found in sorted(trial.scores.items()):
                head, values = _head(study, trial), zip(found.ids, found.numbers.tolist(), strict=True)
                writer.writerows((*head, clip, metric, _nine_digits(value)) for clip, value in values)
        for trial in study.trials:
            for score, value in sorted(scores.values[trial.spec.trial_id].items()):
                if score not in by_clip:
                    writer.writerow((*_head(study, trial), WHOLE_SET, score, _nine_digits(value)))


def _head(study: Study, trial: Trial) -> tuple[object, ...]:
    return (study.home(trial.spec.trial_id).name, *trial.head) if study.merged else trial.head


def _nine_digits(value: float) -> str:
    """Stable against the last bits that differ between machines."""
    return f"{value:.9g}"
