"""Classes of failures, when a trial counts as hung, and the messages about bad settings."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayTaskError

from cinelora.core.cli import UserError
from cinelora.core.config import ClusterConfig, TrialConfig
from cinelora.core.paths import StudyFolder
from launch.engine.errors import failure_kind, first_cause
from launch.engine.loop import Engine, Running
from launch.engine.worker import TrialTaken, folder_lock
from launch.launcher import extra_overrides
from launch.sweep import known_keys, one_line
from sweeps.ledger import Ledger
from sweeps.scheduling.cluster import GangShape
from sweeps.scheduling.tasks import Task


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full"),
        (UserError("bad"), "user"),
        (ValueError("else"), "error"),
        (MemoryError("cannot allocate"), "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (ActorDiedError(), "lost"),
        (ActorUnschedulableError("node gone"), "lost"),
    ],
)
def test_failure_kinds(error: Exception, kind: str) -> None:
    assert failure_kind(error) == kind
    if not isinstance(error, (ActorDiedError, ActorUnschedulableError)):
        wrapped = RayTaskError("run", "trace", error)
        assert failure_kind(wrapped) == kind and first_cause(wrapped).startswith(type(error).__name__)


def test_a_trial_is_silent_from_its_last_progress_on() -> None:
    def running() -> Running:
        return Running(Any, Any, [], iter(()), since=0.0)  # type: ignore[arg-type]

    run, other = running(), running()
    assert run.silent({"done": 1}, now=10.0) == 0
    assert run.silent({"done": 1}, now=25.0) == 15
    assert run.silent({"done": 2}, now=26.0) == 0
    assert other.silent(None, now=30.0) == 0 and other.silent(None, now=33.0) == 3
    assert running().silent({"done": 2}, now=99.0) == 0, "a restarted trial begins anew"


def test_a_trial_that_is_planned_to_be_slow_may_be_silent_for_longer(tmp_path: Path) -> None:
    engine = Engine(Ledger(StudyFolder(tmp_path)), ClusterConfig(hang_seconds=1800))
    quick, slow = (Task("t", GangShape(1, 1, 0), "base", 1.0, silence=silence) for silence in (30.0, 400.0))
    assert (engine.patience(quick), engine.patience(slow)) == (1800, 4000)
    engine.stopping = True
    assert (engine.patience(quick), engine.patience(slow)) == (300, 4000), "a step ends before the trial leaves"


def test_a_gang_that_cannot_start_by_its_settings_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, cause = Engine(Ledger(StudyFolder(tmp_path)), ClusterConfig()), "UserError: two processes on one GPU"
    monkeypatch.setattr(Engine, "_leave", lambda *_: None)
    job: Any = SimpleNamespace(spec=SimpleNamespace(config=TrialConfig()), causes=())
    engine.jobs["t"] = job
    run = Running(job, Task("t", GangShape(2, 1, 1), "base", 1.0), [], iter(()), 0.0)  # type: ignore[arg-type]
    engine.end(run, "user", cause, 1.0)
    assert (engine.errors, engine.jobs, engine.failed_starts) == ({"t": cause}, {}, 0)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"gpus_per_worker": 0.5, "workers_per_trial": 2}, "gpus_per_worker"),
        ({"gpus_per_worker": 1.5}, "gpus_per_worker"),
        ({"gpus_per_worker": -1}, "gpus_per_worker"),
        ({"gpus_per_worker": "half"}, "gpus_per_worker"),
        ({"workers_by_rank": {8: 0}}, "workers_by_rank"),
        ({"hang_seconds": 0}, "hang_seconds"),
        ({"free_disk_gib": -1}, "free_disk_gib"),
    ],
)
def test_cluster_settings_out_of_range(settings: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"cluster.{field}="):
        ClusterConfig(**settings)  # type: ignore[arg-type]


def test_workers_by_rank() -> None:
    cluster = ClusterConfig(workers_per_trial=2, workers_by_rank={64: 4})
    assert [cluster.workers(rank) for rank in (0, 8, 64)] == [2, 2, 4]


def test_one_line_names_the_nearest_setting() -> None:
    assert "train.learning_rate" in known_keys()
    text = one_line(ValueError("Could not override 'train.learnin_rate'.\nTo append..."))
    assert text == "train.learnin_rate: unknown setting; did you mean train.learning_rate?"


def test_one_line_lists_the_options_and_nothing_after_them() -> None:
    text = "In 'config': Could not find 'lora/nope'\n\nAvailable options in 'lora':\n\tattn\n\tall-linear"
    text += "\nConfig search path:\n\tprovider=main, path=file://conf"
    assert one_line(ValueError(text)) == "lora/nope: no such option; there are attn, all-linear"


def test_trials_outside_the_grid_take_what_all_jobs_share() -> None:
    jobs = [["+study=film", "lora.rank=1", "seed=0", "a=1"], ["+study=film", "lora.rank=4", "seed=0", "a=1"]]
    extra = ["arm=control data.path=/x lora.rank=8 seed=0,1", "method=full a=2"]
    assert extra_overrides(extra, jobs) == [
        ["+study=film", "a=1", "arm=control", "data.path=/x", "lora.rank=8", "seed=0"],
        ["+study=film", "a=1", "arm=control", "data.path=/x", "lora.rank=8", "seed=1"],
        ["+study=film", "seed=0", "method=full", "a=2"],
    ]


def test_one_writer_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.engine.worker.TAKEOVER_SECONDS", 0.2)
    with folder_lock(tmp_path), pytest.raises(TrialTaken, match="another worker"), folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):
        pass
    assert failure_kind(TrialTaken("")) == "lost", "so it is tried again, elsewhere"
