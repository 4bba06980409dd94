"""A study in W&B: the view shows keys that runs have, sending can be repeated, and a failure loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.report import report as write_report
from cinelora.core.config import TrackingConfig
from cinelora.core.files import read_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult, TrialSpec
from cinelora.trial.tracking import Tracker
from launch.wandb_mirror import study as wandb_study
from launch.wandb_mirror.__main__ import mark_unended
from launch.wandb_mirror.board import Board, Place, grouping, report, workspace
from launch.wandb_mirror.study import is_synced, read_run, run_of, run_records, runs, to_send, write_figures_run
from tests.analysis.paper_study import Builder, spec
from tests.launch.wandb_mirror.fake_wandb import FakeWandb

NAME = "paper numbers"
RUN = "r4s0-paper-numbers"
PLACE = Place("me", "cinelora")
LOGGED = {"loss": 1.0, "heldout_loss": 0.8, "grad_norm": 2.0, "learning_rate": 1e-4}


def track(study: StudyFolder, trial: TrialSpec, ended: bool = True) -> None:
    """Write the offline run of this trial."""
    result = TrialResult.from_json(read_json(study.trial(trial.trial_id).result))
    tracker = Tracker(trial, TrackingConfig(), NAME, study.wandb, active=True)
    if trial.config.method.value != "base":
        tracker.log(LOGGED, step=1)
    values = {"psnr": np.array([10.875, 11.125]), "consistency[mnv2]": np.array([0.9])}
    tracker.scores(values, [study.trial(trial.trial_id).sample("c0")])
    tracker.finish(result if ended else None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper study with its report and two offline runs; tests must not write to it."""
    root = Builder(tmp_path_factory.mktemp("wandb") / "study").build()
    write_report([root])
    for name in ("base", "r4s0"):
        track(StudyFolder(root), spec(name))
    return root


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> StudyFolder:
    shutil.copytree(finished, tmp_path / "study", symlinks=True)
    return StudyFolder(tmp_path / "study")


@pytest.fixture(scope="module")
def board(finished: Path) -> Board:
    study = StudyFolder(finished)
    keys, project = wandb_study.logged(study)
    assert project == "cinelora"
    return wandb_study.board(study, NAME, run_records(study, NAME), keys)


def view_of(board: Board) -> dict[str, Any]:
    sent = workspace(board, PLACE)._to_model().model_dump(by_alias=True, exclude_none=True)
    return dict(json.loads(json.dumps(sent))["spec"]["section"])


def panels(view: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for section in view["panelBankConfig"]["sections"] for panel in section["panels"]]


def keys_of(panel: dict[str, Any]) -> set[str]:
    """Every metric and media key that a panel shows; no config keys."""
    config = panel["config"]
    axes = [config.get(axis, "") for axis in ("xAxis", "yAxis")] + [c["accessor"] for c in config.get("columns", [])]
    known = {axis.removeprefix("summary:") for axis in axes if axis.startswith("summary:")}
    return known | set(config.get("metrics", [])) | set(config.get("mediaKeys", []))


def test_every_key_of_the_view_is_logged_or_updated(finished: Path, board: Board) -> None:
    study = StudyFolder(finished)
    shown = set().union(*map(keys_of, panels(view_of(board))))
    run = next(path for path in runs(study) if run_of(path) == RUN)
    logged = set(read_run(run)["summary"])
    record = next(record for record in run_records(study, NAME) if record.run_id == RUN)
    assert shown <= logged | set(record.summary)
    assert {"score/kvd_tnv2", "score/heldout_loss", "train/heldout_loss", "clip/c0", "cost/seconds"} <= shown
    assert {key for key in logged if key.startswith("score/")} <= set(record.summary), "one name for one score"
    assert (record.summary["score/kvd_tnv2"], record.summary["score/psnr"]) == (7.0, 11.0)


def test_the_view_is_of_one_study_grouped_by_rank(board: Board) -> None:
    view = view_of(board)
    (runset,) = view["runSets"]
    assert [key["name"] for key in runset["grouping"]] == ["row.value"]
    assert [(f["key"]["name"], f["op"], f["value"]) for f in runset["filters"]["filters"]] == [
        ("group", "=", NAME),
        ("jobType", "!=", "report"),
    ]
    kinds = {panel["viewType"] for panel in panels(view)}
    assert kinds >= {"Scatter Plot", "Bar Chart", "Run History Line Plot", "Media Browser", "Run Comparer"}
    assert all("[" not in key for panel in panels(view) for key in keys_of(panel)), "W&B cannot plot by such a name"


def test_the_report_holds_the_answer_the_table_and_the_figures(finished: Path, board: Board) -> None:
    text = json.dumps(report(board, PLACE)._to_model().spec.model_dump(by_alias=True, exclude_none=True))
    assert "5 of 5 planned trials have finished." in board.answer and "|" not in board.answer
    assert json.dumps(board.before)[1:-1] in text and "| rank |" in board.before and "![" not in text
    assert (
        all(f"figure/{path.stem}" in text for path in (finished / "report").glob("*.png")) and board.figures_run in text
    )


def test_a_group_is_what_shares_all_but_the_seed() -> None:
    def config(row: str, **changed: Any) -> dict[str, Any]:
        same = {"targets": "cross", "scaling": "rslora", "alpha": 8, "learning_rate": 1, "steps": 1, "model": "small"}
        return {"row": row, **same, **changed}

    assert grouping([config("base"), config("rank 4"), config("rank 4")]) == ["row"]
    tuned = [config("rank 4", learning_rate=2), config("rank 8", learning_rate=3)]
    assert grouping(tuned) == ["row"], "a rate set by the rank forms no group"
    both = [config("rank 4", targets="block", alpha=4), config("rank 4", targets="cross", alpha=8)]
    assert grouping(both) == ["row", "targets"]


def test_running_trials_wait_and_figures_are_logged_once(study: StudyFolder) -> None:
    study.trial("r4s0").result.unlink()
    ready, waiting = to_send(study)
    assert len(ready) == 2 and not waiting, "a failed trial has ended, too"
    run = next(path for path in ready if run_of(path) == RUN)
    truncate(run)
    ready, waiting = to_send(study)
    assert waiting == [run] and len(ready) == 1
    for _ in range(2):
        write_figures_run(study, NAME, "cinelora")
    assert len(runs(study)) == 3


def truncate(run: Path) -> None:
    """Leave the run as a killed worker does: without its last record."""
    (path,) = run.glob("*.wandb")
    path.write_bytes(path.read_bytes()[:-40])


def test_a_run_without_an_end_is_marked_once_it_was_sent(study: StudyFolder) -> None:
    ended, run = runs(study)
    truncate(run)
    mark_unended([ended, run])
    assert not is_synced(run), "it was never sent"
    for folder in (ended, run):
        (folder / f"run-{run_of(folder)}.wandb.syncstate").touch()
    mark_unended([ended, run])
    assert is_synced(run) and not is_synced(ended), "W&B itself marks a run that has ended"


def sync(study: StudyFolder, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_") and key != "NETRC"}
    return subprocess.run(
        [sys.executable, "-m", "launch.wandb_mirror", str(study.root)],
        env={**kept, "HOME": str(home), **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=180,
    )  # fmt: skip


def files(study: StudyFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(study.wandb.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({}, ("wandb login", "make dashboard", "index.html")),
        ({"WANDB_API_KEY": "a" * 40, "WANDB_HTTP_TIMEOUT": "1"}, ("http://127.0.0.1:9", "nothing was sent")),
    ],
    ids=["no account", "no server"],
)
def test_a_failed_login_prints_one_line_and_loses_nothing(
    study: StudyFolder, tmp_path: Path, environment: dict[str, str], parts: tuple[str, ...]
) -> None:
    before = files(study)
    done = sync(study, tmp_path, WANDB_BASE_URL="http://127.0.0.1:9", **environment)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("cinelora: ") and all(part in line for part in parts) and "aaaa" not in line
    assert files(study) == before


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    with FakeWandb() as fake:
        yield fake


def test_a_refused_run_is_named_and_only_it_is_sent_again(
    study: StudyFolder, server: FakeWandb, tmp_path: Path
) -> None:
    account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40}
    server.refused = {RUN}
    first = sync(study, tmp_path, **account)
    assert first.returncode == 1 and "2 of 3 runs sent" in first.stdout
    assert [RUN in line for line in first.stderr.splitlines() if line.startswith("cinelora: ")] == [True]
    base = server.runs["base-paper-numbers"]
    assert base["tags"] == [NAME, "base"] and json.loads(base["summaryMetrics"])["score/psnr"] == 9.0
    assert {view["type"] for view in server.views.values()} == {"project-view", "runs"}
    assert sum("/figure/" in path for path in server.uploads) == len(list(study.report.glob("*.png")))

    server.refused = set()
    server.runs["base-paper-numbers"]["tags"].append("mine")
    second = sync(study, tmp_path, **account)
    assert second.returncode == 0 and "1 of 1 runs sent" in second.stdout and "1 runs updated" in second.stdout
    assert base["tags"] == [NAME, "base", "mine"] and len(server.views) == 2
    assert json.loads(server.runs[RUN]["summaryMetrics"])["score/kvd_tnv2"] == 7.0
    third = sync(study, tmp_path, **account)
    assert third.returncode == 0 and "no new runs\n0 runs updated" in third.stdout and len(server.views) == 2
    assert all("aaaa" not in done.stdout + done.stderr for done in (first, second, third))
