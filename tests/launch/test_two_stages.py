"""Two-stage sweeps through the command line: the published studies at small size, and a first stage that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.plugins.sweeper import Sweeper

from cinelora.core.config import ClusterConfig, TrackingConfig, TrialConfig
from cinelora.core.files import read_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from cinelora.trial.job import Job
from launch.engine.loop import Engine
from sweeps.ledger import Ledger
from sweeps.scheduling.cluster import Node
from sweeps.scheduling.tasks import task_for
from tests.launch.test_sweep import plan_of, sweep

TINY_STAGE = [
    "stage1.data.frames=5", "stage1.data.stride=5", "stage1.train.steps=4", "stage1.train.batch_size=4",
    "stage1.train.heldout_every=2", "stage1.train.heldout_windows=2",
]  # fmt: skip
HERE = ["cluster=local", "cluster.cpus_per_worker=2", "sample=small", "train.gradient_checkpointing=true"]


def test_the_paper_at_small_size(sweep_root: Path) -> None:
    """One style adapter lies under all motion ranks; the base row has it too, the published checkpoint has not."""
    place = ["+study=paper", *HERE, "train.learning_rate=1e-2", "stage1.train.learning_rate=1e-2", *TINY_STAGE]
    done = sweep(sweep_root, *place, "lora.rank=4,8", "seed=0")
    assert done.returncode == 0, done.stderr[-3000:]
    found = {}
    for path in (sweep_root / "sweep" / "trials").glob("*/result.json"):
        result, config = read_json(path), read_json(path.parent / "spec.json")["config"]
        found[result["arm"] or result["method"], result["rank"]] = (result, config, path.parent)
    assert set(found) == {("first stage", 8), ("base", 0), ("untouched", 0), ("lora", 4), ("lora", 8)}
    style = found["first stage", 8][0]["trial_id"]
    base, untouched = found["base", 0][0], found["untouched", 0][0]
    assert {config["first"] for (arm, _), (_, config, _) in found.items() if arm in ("base", "lora")} == {style}
    assert base["heldout_loss"] < untouched["heldout_loss"], "the first stage helps the second's windows"
    for rank in (4, 8):
        result, _, folder = found["lora", rank]
        start = (folder / "train.csv").read_text().splitlines()[1].split(",")[2]
        assert float(start) == pytest.approx(base["heldout_loss"], rel=1e-6)
        assert result["heldout_loss"] < base["heldout_loss"] and result["scale"] == 16 / rank


def test_the_rank_ablation_at_small_size(sweep_root: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both target sets; the whole grid, with all alpha rules, is 108 trials and the base."""
    place = ["+study=rank_ablation", *HERE, "train.learning_rate=1e-2"]
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", lambda *_: None)  # composes all of it once more
    assert plan_of(sweep_root, monkeypatch, *place) == 0
    assert "109 trials: 0 done, 109 to run" in capsys.readouterr().out
    done = sweep(sweep_root, *place, "lora.rank=4", "seed=0", "lora.scaling=rslora")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 of 3 trials done" in done.stdout


def test_a_failed_first_stage_ends_what_starts_from_it_and_nothing_else(tmp_path: Path) -> None:
    ledger = Ledger(StudyFolder(tmp_path / "study"))
    engine = Engine(ledger, ClusterConfig())
    engine.scheduler.add_node(Node("here", 4, 0))
    tasks = {}
    for name, first in (("first", ""), ("second", "first"), ("third", "second"), ("alone", "")):
        spec = TrialSpec(name, TrialConfig(first=first), {"model": "m"})
        tasks[name] = task_for(ClusterConfig(), spec, 1.0)
        engine.add(Job(spec, ledger.folder, "study", tmp_path, TrackingConfig()), tasks[name])
    engine._fail(tasks["first"], "user", "out of luck")
    assert set(engine.jobs) == {"alone"} and engine.scheduler.dependent == 0
    assert engine.errors["second"] == "starts from first, which has no adapter: out of luck"
    assert engine.errors["third"].startswith("starts from second, which has no adapter: starts from first")
    assert (ledger.folder.trial("third").failed).exists()
