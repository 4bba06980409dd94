"""The tests of a study: lines and CSV of the paper study, whose differences fit on paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.statistics.rank_tests import RankTests, _tested, as_csv, heading, rank_tests, rates_note, sentences
from analysis.statistics.trend import NOT_SHOWN
from analysis.study.load import Study, load_study
from analysis.study.rows import Estimates, estimate
from cinelora.metrics.primary import primary_scores
from tests.analysis.paper_study import Builder

COMPARED = primary_scores(()).compared

SHOTS = [f"s{i}" for i in range(30)]


def read(root: Path) -> tuple[Study, Estimates]:
    study = load_study(root)
    return study, estimate(study)


def by_score(root: Path) -> dict[str, RankTests]:
    return {each.score: each for each in rank_tests(read(root)[1])}


def planted(score: str, seeds: int = 3, rates: Mapping[int, float] | None = None) -> RankTests:
    """A score that rises by 1 a doubling from 2 at rank 1; the base is at 0."""
    random = np.random.default_rng(0)
    values = {2**i: 2.0 + i + 0.05 * random.normal(size=(seeds, 30)) for i in range(4)}
    return _tested(score, "", values, np.zeros(30), SHOTS, 0.7, rates)


def test_ranks_of_the_paper_study(study: Path) -> None:
    found = by_score(study)
    assert all(each.trend is None for each in found.values()), "two ranks have no trend"
    pairs = found["psnr"].pairs
    assert pairs is not None and (pairs.best, pairs.tied, pairs.equivalent) == (8, (4,), ())
    (other,) = pairs.others
    half = 12.706204736432095 * 0.5  # seeds -3 and -2, every clip alike: one degree of freedom
    assert (other.difference.low, other.difference.high) == pytest.approx((-2.5 - half, -2.5 + half))
    assert other.over_best == 0.0 and pairs.over_base == {4: 1.0, 8: 1.0}
    assert other.keeps is not None and other.keeps.mean == pytest.approx(3 - 0.9 * 5.5)
    assert "motion[absdiff]" not in found, "it has no better, and two ranks have no trend"


def test_lower_is_turned_so_that_larger_is_better() -> None:
    low, high = planted("heldout_loss"), planted("psnr")
    assert low.trend is not None and high.trend is not None and low.pairs is not None and high.pairs is not None
    assert (low.word, high.word) == ("quality falls with rank", "quality rises with rank")
    assert (low.pairs.best, high.pairs.best) == (1, 8)
    assert high.pairs.equivalent == (4,)  # 4 of 5 is above 0.7, 3 of 5 is not
    moved = planted("motion[absdiff]")
    assert moved.word == "score rises with rank" and moved.pairs is None


def test_what_changes_with_the_learning_rate_is_not_called_a_trend_of_rank() -> None:
    found = planted("psnr", rates={1: 0.01, 2: 0.01, 4: 0.003, 8: 0.001})
    assert found.word == "quality rises over ranks each at its own learning rate"
    assert set(found.within) == {0.01} and found.within[0.01].mean == pytest.approx(1, abs=0.05)
    (line,) = sentences([found], ["psnr"])
    assert "slope within one learning rate, ranks 1, 2 at 0.01: +" in line and "with rank" not in line
    lines = {each["test"]: each for each in csv.DictReader(io.StringIO(as_csv([found])))}
    assert lines["slope"]["verdict"] == "rises over ranks each at its own learning rate"
    assert lines["slope_within_rate"]["against"] == "learning rate 0.01"
    alike = planted("psnr", rates=dict.fromkeys((1, 2, 4, 8), 0.01))
    assert alike.word == "quality rises with rank" and not alike.within


def test_ranks_of_different_learning_rates_are_named_with_the_price_of_a_grid(study: Path) -> None:
    found = read(study)[1]
    assert rates_note(found) == ""
    rows = tuple(
        replace(row, key=row.key._replace(learning_rate=0.01 / row.key.rank)) if row.in_grid else row
        for row in found.rows
    )
    note = rates_note(replace(found, rows=rows))
    assert note.startswith("Ranks were trained at different learning rates (4 at 0.0025; 8 at 0.00125): a difference")
    assert "Every rank at every rate would take 4 trials more, " in note  # two ranks, two seeds


def test_a_rank_with_a_broken_number_is_not_compared() -> None:
    values = {rank: np.full((2, 30), float(rank)) for rank in (1, 2, 4)}
    values[1][0, 0] = np.nan
    found = _tested("psnr", "", values, None, SHOTS, 0.9)
    assert found.trend is None and found.pairs is not None and found.pairs.best == 4
    found = _tested("psnr", "", {rank: values[rank] for rank in (1, 4)}, None, SHOTS, 0.9)
    assert found.pairs is None
    found = _tested("psnr", "", values, None, SHOTS, 0.9)
    assert found.pairs is not None and found.pairs.best == 4 and found.pairs.over_base == {}


def test_a_half_finished_study_has_no_tests_or_those_of_common_seeds(builder: Builder) -> None:
    assert by_score(builder.build(only=("base", "r4s0", "r4s1"))) == {}
    found = by_score(builder.build(only=("base", "r4s0", "r4s1", "r8s1")))
    assert found["psnr"].seeds == 1 and found["psnr"].shots == 3


def test_a_line_a_score(study: Path) -> None:
    found = rank_tests(read(study)[1])
    lines = sentences(found, COMPARED)
    assert lines[0] == "heldout_loss: best rank 8; no difference from it shown: 4; as good as it: none"
    assert [line.partition(":")[0] for line in lines] == ["heldout_loss", "kvd[tnv2]", "psnr"]
    assert "3 shots, 2 training seeds; a trend needs 3 seeds or more" in heading(found)
    assert sentences([planted("psnr")], COMPARED)[0].startswith(
        "psnr: quality rises with rank (+0.997 [+0.991, +1] per"
    )
    assert planted("psnr", seeds=2).word == NOT_SHOWN


def test_csv_has_every_test_of_every_rank() -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv([planted("psnr")]))))
    assert [line["test"] for line in lines[:4]] == ["slope", "page_rising", "page_falling", "umbrella"]
    assert lines[0]["verdict"] == "rises" and float(lines[0]["estimate"]) == pytest.approx(1, abs=0.02)
    four = {line["test"]: line for line in lines if line["rank"] == "4" and line["against"] == "8"}
    assert set(four) == {"difference", "wilcoxon", "improvement", "keeps_share_of_gain", "best_keeps_share_of_gain"}
    assert four["difference"]["verdict"] == "distinguishable" and float(four["difference"]["p_holm"]) < 0.05
    assert four["keeps_share_of_gain"]["verdict"] == "equivalent" and four["improvement"]["estimate"] == "0"
    assert {(line["seeds"], line["shots"]) for line in lines} == {("3", "30")}
