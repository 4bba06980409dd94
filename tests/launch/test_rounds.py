"""A sweep in rounds: ranks are dropped, seeds added, and one that stops anywhere goes on with the same looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from cinelora.core.cli import UserError
from cinelora.core.config import AnswerConfig, ClusterConfig, LoraConfig, Method, Prune, StudyConfig, TrialConfig
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from launch import rounds
from launch.status import main as status
from sweeps.ledger import Ledger
from sweeps.looks import Look, row_id
from sweeps.plan import Plan, build_plan

FINGERPRINTS = {"model": "m" * 64}


def _plan(ranks: tuple[int, ...] = (4, 8), seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> Plan:
    grid = [TrialConfig(lora=LoraConfig(rank=rank), seed=seed, **changes) for seed in seeds for rank in ranks]
    control = TrialConfig(lora=LoraConfig(rank=8), arm="source clips", seed=7)
    return build_plan([(config, FINGERPRINTS) for config in (*grid, control)])


def _study(**answer: Any) -> StudyConfig:
    settings = AnswerConfig(**({"until_decided": True, "most_seeds": 5} | answer))
    return StudyConfig(answer=settings, cluster=ClusterConfig(gpus_per_worker=0))


def _look(seeds: int, dropped: dict[str, str], live: dict[str, str], word: str) -> Look:
    settled = () if live else ("all",)
    return Look(0.0, seeds, {"": {"kvd": {"4": "worse"}}}, dropped, settled, live, (f"Decision: {word}.",), 6.0, 2.0)


class Sweep:
    """What the launcher does, with trials that end at once; `stop_after`: trials of a run until it is stopped."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger, self.ran, self.stop_after = Ledger(StudyFolder(root / "study")), [], 99  # type: ignore[var-annotated]
        rows = {spec.config.lora.rank: row_id(spec) for spec in _plan().trials if spec.config.method is Method.lora}
        self.four, self.eight = {rows[4]: "rank 4"}, {rows[8]: "rank 8"}
        monkeypatch.setattr(rounds, "run_missing", self.run)
        expected = SimpleNamespace(lines=("2 hours",), seconds={}, silence={})
        monkeypatch.setattr(rounds, "estimate", lambda *_: expected)
        monkeypatch.setattr("analysis.power.rounds.look", self.look)

    def look(self, root: Path, gpus: float) -> Look:
        looks = self.ledger.looks()
        assert looks is not None
        assert not self.ledger.pending(self.ledger.plan())
        if not looks.taken:
            return _look(3, self.four, self.eight, "no winner yet")
        return _look(looks.seeds, {}, {} if looks.seeds == 5 else self.eight, "rank 8 is the winner")

    def run(self, study: StudyConfig, ledger: Ledger, plan: Plan, *_: Any) -> dict[str, str]:
        for done, spec in enumerate(ledger.pending(plan)):
            if done == self.stop_after:
                raise KeyboardInterrupt
            write_json(ledger.folder.trial(spec.trial_id).result, {})
            self.ran.append((spec.config.lora.rank, spec.config.seed, spec.config.arm))
        return {}

    def start(self, **answer: Any) -> Plan:
        study = _study(**answer)
        plan = rounds.with_rounds(study, self.ledger, _plan())
        self.ledger.open("test")
        rounds.begin(study, self.ledger, plan)
        self.ledger.write_plan(plan)
        self.run(study, self.ledger, plan)
        return rounds.go_on(study, self.ledger, plan)[0]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    yield Sweep(tmp_path, monkeypatch)


def test_only_live_ranks_get_seeds_and_a_stopped_sweep_goes_on(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.stop_after = 8  # base, six of the grid, the control; then in the second run none of the two
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "run_missing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sweep.start()
    first = sweep.ledger.looks()
    assert first is not None and len(first.taken) == 1 and len(sweep.ran) == 8
    assert "1 more seed of rank 8" in capsys.readouterr().out
    assert status([str(sweep.ledger.folder.root)]) == 0
    out = capsys.readouterr().out
    assert "round 2 of at most 3: 4 seeds of rank 8" in out and "no more seeds: rank 4 (look 1)" in out
    assert "it stops with a winner, or at 5 seeds" in out

    plan = sweep.start()
    assert sweep.ran[8:] == [(8, 3, ""), (8, 4, "")]
    looks = sweep.ledger.looks()
    assert looks is not None and looks.taken[0] == first.taken[0] and looks.levels == first.levels
    assert [look.seeds for look in looks.taken] == [3, 4, 5]
    assert "decided after look 3, 5 seeds\nDecision: rank 8 is the winner." in capsys.readouterr().out
    assert {spec.trial_id for spec in plan.trials} == {spec.trial_id for spec in sweep.ledger.plan().trials}

    again = sweep.start()
    assert again == plan and len(sweep.ran) == 10 and sweep.ledger.looks() == looks
    assert "rank 8 is the winner" in capsys.readouterr().out


def test_a_budget_ends_it_and_a_larger_one_goes_on(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.start(budget_gpu_hours=7.9)
    assert len(sweep.ran) == 8
    told = "undecided after look 1, 3 seeds: answer.budget_gpu_hours=7.9 is reached, 6 hours used"
    assert told in capsys.readouterr().out
    sweep.start(budget_gpu_hours=8.0)
    assert sweep.ran[8:] == [(8, 3, ""), (8, 4, "")]


def test_what_cannot_go_on_in_rounds_is_refused(tmp_path: Path, sweep: Sweep) -> None:
    fresh = Ledger(StudyFolder(tmp_path / "fresh"))
    for study, plan, message in (
        (_study(most_seeds=3), _plan(), "answer.most_seeds=3: must exceed the 3 seeds of the grid"),
        (_study(), _plan(seeds=(0,)), "needs two ranks and the same two seeds"),
        (_study(), _plan(ranks=(4,)), "needs two ranks and the same two seeds"),
        (_study(), _plan().merged(_plan(ranks=(16,), seeds=(0, 1))), "needs two ranks and the same two seeds"),
        (replace(_study(), prune=Prune.halving), _plan(), "prune=halving: not with answer.until_decided"),
    ):
        with pytest.raises(UserError, match=message):
            rounds.with_rounds(study, fresh, plan)
    sweep.start()
    for study, plan, message in (
        (_study(until_decided=False), _plan(), "answer.until_decided=false: this study began with true"),
        (_study(most_seeds=8), _plan(), "answer.most_seeds=8: this study began with 5"),
        (_study(), _plan(ranks=(4, 8, 16)), "this study began with other ranks"),
        (_study(), _plan(seeds=(0, 1)), "this study began with other ranks, seeds"),
    ):
        with pytest.raises(UserError, match=message):
            rounds.with_rounds(study, sweep.ledger, plan)
    sweep.ledger.folder.looks.unlink()
    with pytest.raises(UserError, match="this study began with false and has results"):
        rounds.with_rounds(_study(), sweep.ledger, _plan())
    for sweeper in ({"_target_": "a.OptunaSweeper"}, {"_target_": "a.BasicSweeper", "max_batch_size": 2}):
        with pytest.raises(UserError, match="gives the grid in parts"):
            rounds.check_batches(OmegaConf.create(sweeper), "answer.until_decided")
    rounds.check_batches(OmegaConf.create({"_target_": "a.BasicSweeper", "max_batch_size": None}), "rates.search")
