"""The choice of a learning rate per rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.rates import main, searches
from analysis.study.load import load_study
from cinelora.core.files import write_json
from cinelora.core.records import TrialSpec
from sweeps.rates import Search
from tests.analysis.paper_study import Builder, spec


def test_the_lowest_loss_wins_and_an_edge_is_named() -> None:
    inside = Search(4, {1e-3: 0.5, 3e-3: 0.4, 1e-2: 0.6})
    assert inside.best == 3e-3 and not inside.at_edge
    assert Search(1, {1e-3: 0.5, 3e-3: 0.4}).at_edge


def rated(builder: Builder) -> Path:
    """The paper study whose two seeds of a rank have two rates; losses 0.8, 0.7 of rank 4, 0.6, 0.6 of rank 8."""
    root = builder.build()
    plan = [spec(name) for name in ("base", "r4s0", "r4s1", "r8s0", "r8s1")]
    for index, each in enumerate(plan):
        rate = 1e-3 if each.config.seed == 0 else 3e-3
        config = replace(each.config, seed=0, train=replace(each.config.train, learning_rate=rate))
        plan[index] = TrialSpec(each.trial_id, config, each.fingerprints)
    write_json(builder.folder.plan, {"trials": [each.to_json() for each in plan]})
    return root


def test_table_and_yaml(builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    root = rated(builder)
    found = {each.name: each for each in searches(load_study(root))}
    assert found["rank 4"].losses == {1e-3: 0.8, 3e-3: 0.7} and found["rank 4"].best == 3e-3
    assert main([str(root)]) == 0
    printed = capsys.readouterr().out
    assert "| rank 4 | 0.8000 | **0.7000** | 0.003 |" in printed
    assert "learning_rate_by_rank: {4: 0.003, 8: 0.001}" in printed and "rank 4: 0.003 is at the edge" in printed
    assert (root / "report" / "rates.md").read_text() == printed


def test_one_rate_is_no_search(builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(builder.build())]) == 2
    assert capsys.readouterr().err.count("\n") == 1
