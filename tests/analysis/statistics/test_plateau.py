"""Steps to the plateau and whether the loss still fell, on curves that fit on paper."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from analysis.statistics.findings import find
from analysis.statistics.plateau import MARK, Plateau, plateau
from analysis.study.load import load_study
from analysis.tables.csv_files import rank_csv
from analysis.tables.rank_table import rank_table
from tests.analysis.paper_study import STEPS, Builder, write_rows

EVALUATED = np.array([0.0, 50.0, 100.0])


@pytest.mark.parametrize(("middle", "steps"), [(0.52, 50), (0.53, 100), (0.47, 100), (1.0, 100)])
def test_the_plateau_is_a_twentieth_of_the_fall(middle: float, steps: int) -> None:
    """The loss falls from 1 to 0.5: within 0.025 of its end, above and below, it has arrived."""
    assert plateau(EVALUATED, np.array([[1.0, middle, 0.5]])).steps == steps


def test_a_loss_that_rises_has_no_plateau() -> None:
    assert plateau(EVALUATED, np.array([[0.5, 0.4, 0.6]])) == Plateau(None, None, 50, 100)


@pytest.mark.parametrize(("falls", "still"), [((1, 2, 3), True), ((0, 2, 4), False), ((-1, -2, -3), False)])
def test_still_improving_is_beyond_what_seeds_differ(falls: tuple[int, ...], still: bool) -> None:
    """Means of 2, standard errors 0.58 and 1.15; t of two degrees of freedom is 2.92."""
    curves = np.array([[10.0, 5.0 + fall, 5.0] for fall in falls])
    assert plateau(EVALUATED, curves).still is still


def test_one_seed_knows_no_noise() -> None:
    assert plateau(EVALUATED, np.array([[1.0, 0.9, 0.1]])).still is None


def test_the_last_fifth_is_looked_at() -> None:
    found = plateau(np.arange(0.0, 101.0, 20.0), np.array([[6.0, 5, 4, 3, 2, 2], [6.0, 5, 4, 3, 2, 2]]))
    assert found == Plateau(80, False, 80, 100)


def test_table_and_csv_mark_what_was_still_improving(builder: Builder) -> None:
    """Rank 4 falls by 0.2 and 0.21 in the last half, rank 8 not at all."""
    root = builder.build()
    for name, losses in {"r4s0": (0.9, 0.8, 0.6), "r4s1": (0.9, 0.8, 0.59), "r8s0": (0.9, 0.6, 0.6)}.items():
        _curve(builder.folder.trial(name).train_csv, losses)
    _curve(builder.folder.trial("r8s1").train_csv, (0.9, 0.6, 0.6))
    findings = find(load_study(root))
    table = rank_table(findings)
    assert [cell.text for cell in table.columns[0].cells] == ["base", f"4{MARK}", "8", "real clips"]
    assert any(note.startswith(MARK) and "1 of 2 rows" in note for note in table.notes)
    rows = list(csv.DictReader(io.StringIO(rank_csv(findings.estimates, findings.plateaus))))
    ends = [(row["steps_to_plateau"], row["still_improving"], row["clips"]) for row in rows]
    assert ends == [("", "", "3"), (str(STEPS), "yes", "3"), (str(STEPS // 2), "no", "3"), ("", "", "3")]


def _curve(path: Path, losses: tuple[float, ...]) -> None:
    head = ["step", "loss", "heldout_loss", "grad_norm", "learning_rate", "seconds"]
    steps = (0, STEPS // 2, STEPS)
    write_rows(path, head, [(step, 1.0, loss, 1.0, 1e-4, 0.25) for step, loss in zip(steps, losses, strict=True)])
