"""Which trials are ended early: ranks are never compared; if one seed is pruned, so is its learning rate."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cinelora.core.config import LoraConfig, Method, Prune, TrainConfig, TrialConfig
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from launch.status import main
from sweeps.ledger import Ledger
from sweeps.plan import build_plan
from sweeps.prune import Pruner, cell, halving, median

STEPS = 100
GOOD, FAIR = {0: 10.0, 50: 4.0, 100: 1.0}, {0: 10.0, 50: 6.0, 100: 3.0}  # means by step 50: 7 and 8


def test_median_holds_the_best_so_far_against_means_so_far() -> None:
    assert not median({0: 10.0, 50: 7.5}, [GOOD, FAIR], STEPS), "the median of 7 and 8, not above it"
    assert "7.6 at best, 2 finished trials had 7.5" in median({0: 10.0, 50: 7.6}, [GOOD, FAIR], STEPS)
    assert not median({0: 7.4, 50: 99.0}, [GOOD, FAIR], STEPS), "its best counts, not its last"


def test_median_asks_finished_trials_alone_and_not_too_early() -> None:
    assert not median({0: 10.0, 50: 9.9}, [GOOD, {0: 10.0, 50: 6.0}], STEPS), "one has finished"
    assert not median({0: 11.0, 24: 11.0}, [GOOD, FAIR], STEPS)
    assert median({0: 11.0, 25: 11.0}, [GOOD, FAIR], STEPS)


def test_halving_keeps_the_better_half_at_its_rungs() -> None:
    others = [{25: 1.0}, {25: 2.0}, {25: 3.0}]  # with its own they are four: two go on
    assert not halving({25: 1.5}, others, STEPS)
    assert "2 of 3 others had less" in halving({25: 2.5}, others, STEPS)
    assert not halving({24: 99.0}, [{24: 1.0}] * 3, STEPS), "no rung yet"
    assert not halving({25: 99.0}, others[:1], STEPS), "too few to tell"
    assert halving({25: 0.0, 60: 2.0}, [{25: 1.0, 60: 1.0}] * 2, STEPS), "the rung at half is the first step after it"
    assert halving({25: math.inf}, others, STEPS)


@pytest.mark.parametrize("rule", [median, halving])
def test_equals_stay(rule: object) -> None:
    assert callable(rule) and not rule({0: 5.0, 50: 5.0}, [{0: 5.0, 50: 5.0, 100: 5.0}] * 3, STEPS)


def planned(root: Path, *wanted: tuple[int, float, int]) -> tuple[Ledger, list[TrialSpec]]:
    """A study of (rank, learning rate, seed), nothing done."""
    ledger = Ledger(StudyFolder(root / "study"))
    configs = [
        TrialConfig(lora=LoraConfig(rank=rank), seed=seed, train=TrainConfig(steps=STEPS, learning_rate=rate))
        for rank, rate, seed in wanted
    ]
    plan = build_plan([(config, {"model": "m"}) for config in configs])
    ledger.open("test")
    ledger.write_plan(plan)
    return ledger, [spec for spec in plan.trials if spec.config.method is Method.lora]


def write_curve(ledger: Ledger, spec: TrialSpec, curve: dict[int, float], tail: str = "") -> None:
    rows = "".join(f"{step},0.5,{loss},\n{step + 1},0.5,,\n" for step, loss in curve.items())
    path = ledger.folder.trial(spec.trial_id).train_csv
    path.write_text("step,loss,heldout_loss,seconds\n" + rows + tail)


def test_ranks_are_never_held_against_each_other(tmp_path: Path) -> None:
    ledger, specs = planned(tmp_path, (4, 1e-3, 0), (8, 1e-3, 0), (8, 3e-3, 0), (8, 1e-2, 0), (8, 3e-2, 1))
    assert len({cell(spec) for spec in specs}) == 2 and cell(specs[1]) == cell(specs[4])
    assert cell(ledger.plan().trials[0]) == "", "the base"
    for spec in specs[1:4]:
        write_curve(ledger, spec, {0: 10.0, 50: 1.0, 100: 1.0})
    bad = {0: 10.0, 50: 99.0}
    for spec in (specs[0], specs[4]):
        write_curve(ledger, spec, bad, tail="51,0.5,0.")  # a line that is being written
    for rule in (Prune.median, Prune.halving):
        pruner = Pruner(ledger, rule)
        assert pruner.compares and not pruner.verdict(specs[0]) and pruner.verdict(specs[4])
        assert not any(pruner.verdict(spec) for spec in specs[1:4]), "their training is over"


def test_seeds_of_one_rate_are_not_rivals_but_go_together(tmp_path: Path) -> None:
    ledger, specs = planned(tmp_path, (8, 1e-3, 0), (8, 1e-3, 1), (8, 1e-3, 2), (8, 1e-2, 0))
    for spec, loss in zip(specs, (1.0, 1.0, 99.0), strict=False):
        write_curve(ledger, spec, {0: 10.0, 50: loss})
    pruner = Pruner(ledger, Prune.halving)
    assert not pruner.verdict(specs[2]), "an unlucky seed is not a bad rate"
    pruner.record(specs[1], "why")
    assert pruner.verdict(specs[2]) == "learning rate 0.001 was pruned at seed 1" and not pruner.verdict(specs[3])
    ledger, specs = planned(tmp_path / "going", (8, 1e-4, 0), (8, 1e-3, 0), (8, 1e-2, 0), (8, 1e-2, 1))
    for spec, loss in zip(specs, (1.0, 1.0, 9.0), strict=False):
        write_curve(ledger, spec, {0: 10.0, 50: loss})
    pruner = Pruner(ledger, Prune.halving)
    pruner.look(specs[:3])
    assert pruner.verdict(specs[3]) == "learning rate 0.01 was pruned at seed 0", "though that one has yet to leave"
    write_json(ledger.folder.trial(specs[2].trial_id).result, {})
    assert not pruner.verdict(specs[3]), "it came to its end before it saw the sign"
    alone = planned(tmp_path / "alone", (4, 1e-3, 0), (8, 1e-2, 0))
    assert not Pruner(alone[0], Prune.median).compares, "rates tuned per rank"


def test_what_is_pruned_is_over_until_pruning_is_not_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger, specs = planned(tmp_path, (8, 1e-3, 0), (8, 1e-2, 0))
    write_curve(ledger, specs[0], {0: 10.0, 50: math.nan})
    pruner = Pruner(ledger, Prune.median)
    pruner.record(specs[0], "too slow")
    assert ledger.pruned(specs[0].trial_id) == {
        "trial_id": specs[0].trial_id, "step": 50, "heldout_loss": None, "why": "too slow",
    }  # fmt: skip
    plan = ledger.plan()
    assert specs[0] not in ledger.pending(plan, keep_pruned=True) and specs[0] in ledger.pending(plan)
    assert main([str(ledger.folder.root)]) == 0, "no failure"
    out = capsys.readouterr().out
    assert "2 waiting, 1 pruned" in out and "too slow" in out
    write_json(ledger.folder.trial(specs[0].trial_id).result, {})
    assert ledger.pruned(specs[0].trial_id) is None, "a result counts"
