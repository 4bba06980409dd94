"""What a study is judged by: the best distance that its trials have, in every statement, figure and view of it."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import report
from analysis.figures.noise import fvd_vs_n, noise_floor
from analysis.figures.pareto import pareto
from analysis.figures.quality import differences, quality_vs_rank
from analysis.page.page import page
from analysis.statistics.answer import lines, sentence
from analysis.statistics.findings import Findings, find
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.study.scores import DIRECTIONS
from analysis.tables.rank_table import rank_table
from benchmarks.ledgers import FVD, RANKS, ledger
from benchmarks.planted import FLAT, look
from cinelora.metrics.primary import LOSS, primary_scores
from launch.wandb_mirror.study import board, run_records
from tests.analysis.paper_study import SHIFTS, Builder

ROOT = Path(__file__).parents[3]
REGISTRY = ROOT / "analysis/study/scores.py"  # beside `cinelora/metrics`


@pytest.fixture
def root(builder: Builder) -> Path:
    """The study on paper with the same three clips and, besides, 2 I3D features of each."""
    folder = builder.build()
    for name, shift in {"reference": 0.0, **SHIFTS}.items():
        place = builder.reference if name == "reference" else builder.folder.trial(name)
        with np.load(place.features("tnv2")) as known:
            own = known["features"] - shift
            np.savez(place.features("i3d"), ids=known["ids"], features=np.hstack([own + shift, own**2 + shift]))
    return folder


def titles(findings: Findings) -> dict[str, list[str]]:
    plots = {plot.__name__: plot(findings) for plot in (quality_vs_rank, differences, pareto, noise_floor, fvd_vs_n)}
    return {
        name: [text for axes in figure.axes for text in (axes.get_title(), axes.get_ylabel())]
        for name, figure in plots.items()
        if figure is not None
    }


def test_with_i3d_features_everything_is_about_i3d(root: Path) -> None:
    found = find(load_study(root))
    assert {each.score for each in found.answers} == {"consistency_gap[mnv2]", "kvd[i3d]", LOSS}
    lines = [line for _, lines in report.sections(found) for line in lines] + [sentence(each) for each in found.answers]
    assert any("kvd[i3d]" in line for line in lines) and not any("tnv2" in line for line in lines)
    shown = (
        page(found, rank_table(found), {}).partition("Against the base, clip by clip")[2].partition("<h2>Protocol")[0]
    )
    assert "<small>[i3d]</small>" in shown and "<small>[tnv2]</small>" not in shown
    drawn = titles(found)
    assert {"quality_vs_rank", "differences", "pareto"} <= drawn.keys()
    for texts in drawn.values():
        assert any("i3d" in text for text in texts) and not any("tnv2" in text for text in texts)


def test_without_them_everything_is_about_the_packaged_net(builder: Builder) -> None:
    found = find(load_study(builder.build()))
    assert [each.score for each in found.answers] == ["consistency_gap[mnv2]", "kvd[tnv2]", LOSS]
    assert found.estimates.primary.compared == ("consistency_gap[mnv2]", "kvd[tnv2]", LOSS, "psnr")
    assert all(any("tnv2" in text for text in texts) for texts in titles(found).values())


def test_the_view_of_w_and_b_begins_with_them(root: Path, builder: Builder) -> None:
    assert report.main([str(root)]) == 0
    records = run_records(builder.folder, "paper")
    shown = board(builder.folder, "paper", records, set()).scores
    assert shown[:3] == ("score/consistency_gap_mnv2", "score/kvd_i3d", "score/heldout_loss")
    assert shown[3:5] == ("score/consistency_mnv2", "score/motion_absdiff")


def test_scores_that_were_asked_for_decide(root: Path, builder: Builder) -> None:
    """Of three clips a Frechet distance has no value per clip; no trial has LPIPS."""
    builder.edit_json(builder.folder.study, scores=["fvd[i3d]", "psnr", "lpips"])
    found = find(load_study(root))
    assert found.estimates.primary.answered == ("fvd[i3d]", "psnr", "lpips")
    assert [each.score for each in found.answers] == ["psnr"]
    *_, few, none = lines(found.estimates, found.answers)
    assert "(fvd[i3d]): no answer: 3 clips for features that vary in about 2 directions: " in few
    assert none.endswith("(lpips): no answer: no finished trial has it (needs LPIPS weights).")
    assert report.main([str(root)]) == 0
    shown = board(builder.folder, "paper", run_records(builder.folder, "paper"), set())
    assert shown.scores[:2] == ("score/fvd_i3d", "score/psnr")
    assert few in shown.answer and none in shown.answer


def test_a_frechet_distance_that_was_asked_for_is_answered_and_tested() -> None:
    study = replace(ledger(FLAT, np.random.default_rng(0)), chosen=(FVD, LOSS))
    found = look(study, (FVD, LOSS))[FVD]
    assert found.answer.ranks and len(found.differences) == len(RANKS) and found.tests.pairs is not None
    usual = estimate(replace(study, chosen=()))
    assert FVD in estimate(study).clip_scores and FVD not in usual.clip_scores


@pytest.mark.parametrize(
    ("trials", "distance"),
    [
        ([{"kvd[i3d]", "kvd[vjepa]", "kvd[tnv2]"}], "kvd[vjepa]"),
        ([{"kvd[i3d]", "fvd[i3d]"}, {"kvd[i3d]"}], "kvd[i3d]"),
        ([{"fvd[i3d]", "kvd[videomae]"}], "fvd[i3d]"),  # the net counts more than the formula
        ([{"kvd[videomae]", "kvd[tnv2]"}], "kvd[videomae]"),
        ([{"kvd[i3d]", "kvd[tnv2]"}, {"kvd[tnv2]"}], "kvd[tnv2]"),  # the other trial could not be compared
        ([{"kvd[i3d]"}, set()], "kvd[i3d]"),
        ([], "kvd[tnv2]"),
    ],
)
def test_the_best_distance_that_all_trials_have(trials: list[set[str]], distance: str) -> None:
    found = primary_scores(trials)
    assert (found.answered, found.distance) == ((distance, LOSS), distance)


def test_the_gap_in_consistency_comes_first_of_the_best_net_that_all_trials_have() -> None:
    both, one = {"consistency_gap[mnv2]", "consistency_gap[dino]"}, {"consistency_gap[mnv2]"}
    assert primary_scores([both, both]).answered == ("consistency_gap[dino]", "kvd[tnv2]", LOSS)
    assert primary_scores([both, one]).gap == primary_scores([one]).answered[0] == "consistency_gap[mnv2]"
    assert primary_scores([both], ["psnr"]).answered == ("psnr",)


def test_no_score_is_named_outside_the_registry() -> None:
    named = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"
        for folder in ("analysis", "launch/wandb_mirror")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != REGISTRY
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in DIRECTIONS or any(score in node.value for score in DIRECTIONS if "[" in score)
    ]
    assert not named
