"""`train.csv`: one row a step, appended as it happens, cut back to the checkpoint on resume.

Columns: step (0 is before training), loss, heldout_loss (blank where not evaluated), grad_norm (before
clipping), learning_rate, seconds (of the step, without evaluation).
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable
from pathlib import Path

from cinelora.core.files import whole_file

Mirror = Callable[[dict[str, float | None], int], None]  # a row of train.csv, step
COLUMNS = ("step", "loss", "heldout_loss", "grad_norm", "learning_rate", "seconds")


class TrainLog:
    """Rows after step `done` are dropped on opening; workers other than 0 keep rows in memory only."""

    def __init__(self, path: Path, done: int, write: bool, mirror: Mirror) -> None:
        self.path, self.to_disk, self.mirror = path, write, mirror
        self.rows = [row for row in _read(path) if int(row["step"]) <= done and done > 0]
        if write:
            with whole_file(path) as temporary, open(temporary, "w", newline="") as stream:
                writer = csv.DictWriter(stream, COLUMNS)
                writer.writeheader()
                writer.writerows(self.rows)

    def write(self, step: int, *values: float | None) -> None:
        """Append a row; `values` in the order of COLUMNS."""
        row = {name: "" if each is None else repr(each) for name, each in zip(COLUMNS, (step, *values), strict=True)}
        self.rows.append(row)
        self.mirror(dict(zip(COLUMNS[1:], values, strict=True)), step)
        if self.to_disk:
            with open(self.path, "a", newline="") as stream:
                csv.DictWriter(stream, COLUMNS).writerow(row)

    @property
    def seconds(self) -> float:
        """Of all steps so far."""
        return sum(float(row["seconds"]) for row in self.rows)

    @property
    def median_seconds(self) -> float | None:
        values = [float(row["seconds"]) for row in self.rows if row["loss"] != ""]
        return statistics.median(values) if values else None

    def mean_last_tenth(self, steps: int) -> float | None:
        """Mean training loss of the last tenth of the steps."""
        first = steps - max(1, steps // 10)
        values = [float(row["loss"]) for row in self.rows if row["loss"] != "" and int(row["step"]) > first]
        return statistics.fmean(values) if values else None


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as stream:
        return [row for row in csv.DictReader(stream) if all(row.get(name) is not None for name in COLUMNS)]
