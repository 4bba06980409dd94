"""Every score of every finished trial as one CSV: one line a clip, then one a trial for what it has as a whole.

In: `Study`, `TrialScores`. Out: the file, written line by line, since that of a large study fills the memory.
Where several studies are merged, the first column says which one a line is from.
"""

from __future__ import annotations

import csv
from pathlib import Path

from analysis.study.load import COLUMNS, Study, Trial
from analysis.study.scores import TrialScores
from analysis.tables.rank_table import plain
from cinelora.core.records import whole_file

SET_CLIP = "(set)"  # stands for the clip of a score that a whole trial has
STUDY = "study"


def write_scores(study: Study, scores: TrialScores, path: Path) -> None:
    """Columns COLUMNS, values with nine digits."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*([STUDY] if study.merged else []), *COLUMNS])
        per_clip = {metric for trial in study.trials for metric in trial.scores}
        for trial in study.trials:
            for metric, found in sorted(trial.scores.items()):
                head, values = _head(study, trial), zip(found.ids, found.numbers.tolist(), strict=True)
                writer.writerows((*head, clip, metric, plain(value)) for clip, value in values)
        for trial in study.trials:
            for score, value in sorted(scores.values[trial.spec.trial_id].items()):
                if score not in per_clip:
                    writer.writerow((*_head(study, trial), SET_CLIP, score, plain(value)))


def _head(study: Study, trial: Trial) -> tuple[object, ...]:
    return (study.home(trial.spec.trial_id).name, *trial.head) if study.merged else trial.head
