"""The search for learning rates before a study: which jobs it has, on which clips, and what follows from it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import (
    ClusterConfig,
    DataConfig,
    LoraConfig,
    Method,
    Prune,
    RatesConfig,
    SampleConfig,
    Scaling,
    StudyConfig,
    TargetSet,
    TrainConfig,
)
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult
from launch import launcher, rates
from launch.estimate import Estimate
from launch.preflight import Fingerprints, trial_config
from launch.sweep import one_line
from sweeps.ledger import Ledger
from sweeps.plan import Plan, trial_spec
from sweeps.prune import side_by_side
from sweeps.rates import Search, chosen
from tests.tiny_study import write_clips

GRID = RatesConfig(search=True, grid=[1e-3, 1e-2], full_grid=[1e-4, 5e-4])


def job(rank: int = 4, targets: TargetSet = TargetSet.cross, **changes: Any) -> StudyConfig:
    lora = LoraConfig(rank=rank, targets=targets, scaling=changes.pop("scaling", Scaling.alpha_equals_rank))
    start: dict[str, Any] = {"name": "quick", "study_dir": "studies/quick", "rates": GRID, "lora": lora}
    return StudyConfig(**(start | {"data": DataConfig(path="builtin:film")} | changes))


def test_one_job_for_each_rank_of_each_target_set_and_each_rate_on_clips_that_are_not_reported() -> None:
    jobs = [job(rank, to, seed=seed) for seed in (1, 2) for to in (TargetSet.cross, TargetSet.ffn) for rank in (4, 8)]
    jobs += [job(method=Method.base), job(16, arm="control", data=DataConfig(path="builtin:film-control"))]
    jobs += [job(method=Method.full, seed=3), job(4, scaling=Scaling.rslora)]
    found = rates.search_jobs(jobs)
    cells = [("cross", 4), ("cross", 8), ("ffn", 4), ("ffn", 8), ("cross", 16)]
    wanted = [(*cell, rate) for cell in cells for rate in GRID.grid] + [("full", 0, rate) for rate in GRID.full_grid]
    assert [
        ("full", 0, each.train.learning_rate)
        if each.method is Method.full
        else (each.lora.targets.value, each.lora.rank, each.train.learning_rate)
        for each in found
    ] == wanted
    assert {(each.name, each.study_dir, each.seed, each.arm) for each in found} == {
        ("quick-rates", "studies/quick-rates", 0, "")
    }
    assert {each.data.path for each in found} == {"builtin:film-select"} and not any(e.data.selection for e in found)
    assert {each.lora.scaling for each in found} == {Scaling.alpha_equals_rank} and not found[0].rates.search
    assert not any(each.sample.clips for each in found), "the choice reads losses alone"
    (own, *_) = rates.search_jobs([job(data=DataConfig(path="/data/film"))])
    assert own.data == DataConfig(path="/data/film", selection=True)
    (given, *_) = rates.search_jobs([job(rates=replace(GRID, data="/data/other"))])
    assert given.data == DataConfig(path="/data/other")


def test_a_search_that_began_with_clips_goes_on_with_them(tmp_path: Path) -> None:
    for clips in (True, False):
        one = trial_spec(replace(trial_config(job()), sample=SampleConfig(clips=clips)), {})
        Ledger(StudyFolder(tmp_path / f"{clips}-rates")).write_plan(Plan((one,)))
        assert {each.sample.clips for each in rates.search_jobs([job(study_dir=str(tmp_path / str(clips)))])} == {clips}


def test_what_cannot_be_searched_is_refused() -> None:
    for jobs, message in (
        ([job(method=Method.adapter), job(method=Method.base)], "nothing is trained with method=adapter, base"),
        ([job(), job(train=TrainConfig(learning_rate=1e-2))], "train.learning_rate varies"),
        ([job(), job(train=TrainConfig(steps=7))], "train.steps varies"),
        ([job(), job(data=DataConfig(path="/a"))], "data.path varies"),
    ):
        with pytest.raises(UserError, match=message):
            rates.search_jobs(jobs)
    text = "Error merging override rates.grid=0.001: Invalid value assigned: float is not a ListConfig, list or tuple."
    assert one_line(ValueError(text)).endswith("write the list in brackets: rates.grid=[A,B]")
    for bad in ([], [1e-3], [1e-3, -1e-3], [1e-3, 1e-3], [float("nan"), 1e-3]):
        with pytest.raises(ValueError, match="rates.grid=.*two learning rates or more"):
            RatesConfig(grid=bad)


def test_the_study_at_the_chosen_rates_is_that_of_the_same_rates_by_hand() -> None:
    found = [Search(4, {1e-3: 2.0, 1e-2: 1.0}, targets="cross"), Search(0, {1e-4: 1.0, 5e-4: 2.0})]
    by_hand = {4: 1e-2}
    for each in (job(), job(arm="control"), job(method=Method.base), job(8)):
        own = rates.at_rates(replace(each, learning_rate_by_rank={4: 5.0, 8: 5.0}, prune=Prune.halving), found)
        hand = trial_config(replace(each, learning_rate_by_rank=by_hand))
        assert trial_spec(trial_config(own), {}) == trial_spec(hand, {}) and own.prune is Prune.off
    full = trial_config(rates.at_rates(job(method=Method.full), found))
    assert full == trial_config(job(method=Method.full, train=TrainConfig(learning_rate=1e-4)))


def test_a_rate_that_diverged_or_was_pruned_is_over(tmp_path: Path) -> None:
    ledger = Ledger(StudyFolder(tmp_path))
    specs = [trial_spec(trial_config(each), {}) for each in rates.search_jobs([job(), job(8)])]
    plan = Plan(tuple(specs))
    assert chosen(ledger, plan) is None
    for spec, loss in zip(specs[:3], (0.5, 0.4, 0.3), strict=True):
        _finish(ledger, spec.trial_id, loss)
    assert chosen(ledger, plan) is None
    ledger.fail(specs[3].trial_id, "error", "no disk")
    assert chosen(ledger, plan) is None
    ledger.fail(specs[3].trial_id, "diverged", "loss is nan")
    found = chosen(ledger, plan)
    assert found == [
        Search(4, {1e-3: 0.5, 1e-2: 0.4}, targets="cross"),
        Search(8, {1e-3: 0.3}, {1e-2: "diverged"}, "cross"),
    ]
    assert found[0].edge == "rank 4: 0.01 is at the edge of the rates tried; a better one may lie beyond."
    ledger.folder.trial(specs[2].trial_id).result.unlink()
    ledger.fail(specs[2].trial_id, "diverged", "loss is nan")
    with pytest.raises(UserError, match=r"rates.grid: training of rank 8 on cross diverged at every rate"):
        chosen(ledger, plan)


def _finish(ledger: Ledger, trial_id: str, loss: float) -> None:
    facts = {item.name: None for item in fields(TrialResult)} | {"trial_id": trial_id, "heldout_loss": loss}
    facts |= {"clips": 2, "seconds": {"train": 3600.0}, "world_size": 1}
    write_json(ledger.folder.trial(trial_id).result, facts)


def test_clips_of_rates_data_must_not_be_reported(tmp_path: Path) -> None:
    folder, data = write_clips(tmp_path / "clips"), {"frames": 9, "height": 32, "width": 32, "stride": 9}
    study = DataConfig(path=str(folder), heldout_shots=1, **data)
    with pytest.raises(UserError, match=r"rates.data=.*: clip\d.mp4 is held out by the study too"):
        rates.check_folder(study, study, Fingerprints(tmp_path / "cache"))
    fingerprints = Fingerprints(tmp_path / "cache")
    reported = fingerprints.windows_of(study).heldout
    search = fingerprints.windows_of(replace(study, selection=True))
    shots = [{window.shot_id for window in windows} for windows in (reported, search.heldout, search.train)]
    assert [len(each) for each in shots] == [1, 1, 2] and len(set.union(*shots)) == 4
    with pytest.raises(UserError, match="trains on 1 shot, too few"):
        fingerprints.windows_of(replace(study, heldout_shots=3, selection=True))


def test_the_least_that_halving_leaves_and_the_total() -> None:
    assert side_by_side(Prune.halving, 4) == [1.0, 1.0, 0.25, 0.25]
    assert side_by_side(Prune.median, 4) == [1.0] * 4
    cluster = ClusterConfig(gpus_per_worker=1, price_per_gpu_hour=2.0)
    ledger = Ledger(StudyFolder(Path("nowhere")))
    both = [Estimate({}, {}, 60.0, (), 1.5), Estimate({}, {}, 120.0, (), 2.0)]
    (line,) = rates.price_lines(job(cluster=cluster), ledger, Plan(()), None, both)
    assert line == "search and study: 3.5 GPU-hours, 3:00 on this machine, 7.00 at 2 per GPU-hour"
    (line,) = rates.price_lines(job(cluster=cluster), ledger, Plan(()), None, [replace(both[0], hours=None), both[1]])
    assert "cost unknown" in line


def test_a_search_then_the_study_at_its_rates_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, int, float]] = []

    def run(study: StudyConfig, ledger: Ledger, plan: Plan, *_: Any) -> dict[str, str]:
        """Rank 4 is best at 1e-2; rank 8 diverges there."""
        errors = {}
        for spec in ledger.pending(plan, study.prune is not Prune.off):
            rank, rate = spec.config.rank, spec.config.train.learning_rate
            ran.append((study.name, rank, rate))
            if (rank, rate) == (8, 1e-2):
                ledger.fail(spec.trial_id, "diverged", errors.setdefault(spec.trial_id, "loss is nan"))
            else:
                _finish(ledger, spec.trial_id, 1 - rate)
        return errors

    monkeypatch.setattr(launcher, "run_missing", run)
    data = DataConfig(path=str(write_clips(tmp_path / "clips")), frames=9, height=32, width=32, stride=9)
    places = {"study_dir": str(tmp_path / "quick"), "cache_dir": str(tmp_path / "cache"), "data": replace(data)}
    cluster, prune = ClusterConfig(gpus_per_worker=0), {"prune": Prune.halving, "frozen_row": False}
    jobs = [job(rank, seed=seed, cluster=cluster, **places, **prune) for rank in (4, 8) for seed in (0, 1)]

    def whole() -> Ledger:
        fingerprints = Fingerprints(tmp_path / "cache")
        configs, record, model = launcher.search_first(jobs, [[]], fingerprints)
        ready = launcher.prepared(configs, fingerprints, model)
        assert launcher.run_study(ready, [[]], record=record) == {}
        return ready.ledger

    ledger = whole()
    assert {each for each in ran if each[0] == "quick-rates" and each[1]} == {
        ("quick-rates", rank, rate) for rank in (4, 8) for rate in GRID.grid
    }
    assert [each[1:] for each in ran if each[0] == "quick" and each[1]] == [(4, 1e-2)] * 2 + [(8, 1e-3)] * 2
    hand = [trial_config(replace(each, learning_rate_by_rank={4: 1e-2, 8: 1e-3})) for each in jobs]
    prints = ledger.plan().trials[-1].fingerprints
    assert {trial_spec(each, prints).trial_id for each in hand} < {spec.trial_id for spec in ledger.plan().trials}
    record = ledger.rates()
    assert record is not None and record["folder"] == str(tmp_path / "quick-rates") and record["clips"] == 2
    assert [(each["rank"], each["learning_rate"], each["lost"]) for each in record["chosen"]] == [
        (4, 1e-2, {}),
        (8, 1e-3, {"0.01": "diverged"}),
    ]
    assert "learning rates chosen on 2 clips for 4 worker-hours: rank 4 0.01, rank 8 0.001" in capsys.readouterr().out
    before = list(ran)
    whole()
    assert ran == before and [each["event"] for each in ledger.events()].count("rates") == 1
    monkeypatch.setattr("launch.price.chance_lines", lambda *_: [])
    launcher.show_plan(jobs, ())
    assert "study at the chosen rates:" in capsys.readouterr().out
