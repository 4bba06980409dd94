"""Levels of looks are those published, keep their error, and a look drops, settles and goes on as it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from analysis.power.rounds import look_levels, nominal_levels, see, without_use
from analysis.statistics.answer import WORSE, answer_of, answers, sentence
from analysis.study.load import GRID, Study, sort_key
from analysis.study.rows import estimate
from benchmarks.ledgers import CLIPS, RANKS, Kind, ledger
from cinelora.core.paths import StudyFolder
from sweeps.ledger import Ledger
from sweeps.looks import Looks, row_id, schedule


def test_levels_are_those_published() -> None:
    """Bounds of five equal looks, one-sided 2.5 % (Lan, DeMets 1983; Reboussin et al. 2000, table of ld98)."""
    share, alpha = np.arange(1, 6) / 5, 0.025
    o_brien_fleming = 2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(share))
    pocock = alpha * np.log(1 + (np.e - 1) * share)
    for spent, bounds in (
        (o_brien_fleming, (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        (pocock, (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
    ):
        assert norm.isf(nominal_levels(share, spent)) == pytest.approx(bounds, abs=2e-4)


def test_all_looks_together_have_the_error_of_one() -> None:
    counts = (3, 4, 5, 6, 8)
    sums = np.cumsum(np.random.default_rng(0).standard_normal((400_000, 8)), axis=1)[:, np.array(counts) - 1]
    p = norm.sf(sums / np.sqrt(counts))
    for name, error in (("enough", 0.05), ("worse", 0.01)):
        levels = [getattr(each, name) for each in look_levels(counts, 6)]
        assert (p < levels).any(1).mean() == pytest.approx(error, abs=0.0015)
        assert max(levels) < error


def test_the_schedule_begins_with_the_grid_and_ends_with_the_most() -> None:
    assert schedule(3, 8) == (3, 4, 5, 6, 8)
    assert schedule(2, 3) == (2, 3)
    assert schedule(5, 60) == (5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 60)


def _study(kind: Kind, most: int = 8) -> Study:
    study = ledger(replace(kind, seeds=most), np.random.default_rng(3))
    counts = schedule(3, most)
    rows = tuple(dict.fromkeys(row_id(spec) for spec in study.specs if sort_key(spec).kind == GRID))
    hours = {"train": 3600.0, "generate": 3600.0}
    priced = [
        replace(trial, result=replace(trial.result, seconds=hours if trial.spec.config.method.trains else {}))
        for trial in study.trials
    ]
    return replace(study, trials=tuple(priced), looks=Looks(counts, look_levels(counts, len(rows)), rows))


def _until(study: Study, seeds: int) -> Study:
    """What the study has when its grid has so many seeds; dropped rows have those of their look."""
    assert study.looks is not None
    dropped = {row: study.looks.schedule[index] for row, index in study.looks.dropped.items()}
    specs = [spec for spec in study.specs if spec.config.seed < min(seeds, dropped.get(row_id(spec), seeds))]
    ids = {spec.trial_id for spec in specs}
    return replace(study, specs=tuple(specs), trials=tuple(t for t in study.trials if t.spec.trial_id in ids))


def test_looks_drop_ranks_and_end_with_a_winner(tmp_path: Path) -> None:
    study = _study(Kind("flat after 16", (0.5, 0.75, 1.0, 1.0, 1.0, 1.0)))
    looks = study.looks
    assert looks is not None
    seen = []
    while not looks.end:
        look = see(_until(replace(study, looks=looks), looks.seeds), gpus=0)
        looks = replace(looks, taken=(*looks.taken, look))
        seen.append(look)
    assert looks.end == "decided" and 1 < len(seen) < len(looks.schedule)
    assert "rank 16 is the winner" in seen[-1].sentences[0]
    assert {name for each in seen for name in each.dropped.values()} >= {"rank 4", "rank 8"}
    assert seen[0].hours == pytest.approx(3 * 6 * 2) and seen[0].next_hours == pytest.approx(2 * len(seen[0].live))
    Ledger(StudyFolder(tmp_path)).write_looks(looks)
    assert Ledger(StudyFolder(tmp_path)).looks() == looks

    final = answers(estimate(_until(replace(study, looks=looks), looks.seeds)))
    for answer in final:
        assert answer.level == looks.levels[len(seen) - 1].enough
        for each in answer.ranks:
            if each.look is not None:
                assert each.gain.seeds == looks.schedule[each.look]
                assert seen[each.look].verdicts[""][answer.score][str(each.rank)] == each.verdict
        assert [each.rank for each in answer.ranks] == list(RANKS)


def test_a_dropped_rank_keeps_its_verdict_and_says_when() -> None:
    study = _study(Kind("rising", (0.3, 0.44, 0.58, 0.72, 0.86, 1.0)))
    assert study.looks is not None
    first = see(_until(study, 3), gpus=0)
    assert "rank 4" in first.dropped.values() and first.live
    looks = replace(study.looks, taken=(first,))
    second = see(_until(replace(study, looks=looks), 4), gpus=0)
    assert second.seeds == 4 and not set(first.dropped) & {*second.dropped, *second.live, *second.settled}
    found = answers(estimate(_until(replace(study, looks=replace(looks, taken=(first, second))), 4)))
    assert all("rank 4 at look 1, 3 seeds" in sentence(each) for each in found)
    assert {each.by_rank[4].verdict for each in found} == {WORSE}
    assert {each.by_rank[128].gain.seeds for each in found} == {4}


def test_a_rank_that_is_worse_stays_while_it_is_a_rival_elsewhere() -> None:
    """Rank 1 is worse on one score and the best on the other, on which rank 2 is not yet shown to keep its share."""
    shots = [str(index) for index in range(len(CLIPS))]

    def answer(score: str, *gains: float, noise: float):  # type: ignore[no-untyped-def]
        random = np.random.default_rng(1)
        own = {rank: gain + noise * random.standard_normal((3, len(CLIPS))) for rank, gain in enumerate(gains, 1)}
        return answer_of(score, "", own, shots, 0.9)

    loss = answer("heldout_loss", 0.5, 1.0, noise=0.1)
    assert loss.by_rank[1].verdict == WORSE and without_use([loss]) == {1}
    assert without_use([loss, answer("kvd[tnv2]", 1.0, 0.86, noise=0.5)]) == set()
    assert without_use([loss, answer("kvd[tnv2]", 1.0, 0.99, noise=0.05)]) == {1}
