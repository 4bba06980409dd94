"""Send a study to W&B: its offline runs, their scores and costs, a saved view, a report.

In: a study folder with a report, an account. Out: runs on the server, marked on disk as synced (W&B's own marker);
STUDY/wandb/board.json keeps the ids of view and report, so the next call rewrites them. Deletes nothing.
Run:  python -m launch.wandb_mirror studies/quick [--entity TEAM] [--project NAME]      (or `make wandb-sync`)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.config import TrackingConfig
from cinelora.core.files import read_json, write_json
from cinelora.core.paths import StudyFolder
from launch.wandb_mirror import study as wandb_study
from launch.wandb_mirror.board import Board, Place, report, workspace
from launch.wandb_mirror.study import (
    RunRecord,
    is_synced,
    logged,
    read_run,
    run_of,
    run_records,
    runs,
    study_name,
    to_send,
    write_figures_run,
)

BATCH = 8  # runs at once
RUN_SECONDS = 300  # per run of a batch; a batch that takes longer is stopped, its runs can be sent again
PING_SECONDS, MAX_UNANSWERED = 10, 3  # during a batch; after so many pings without an answer the server is down
MAX_REFUSED = 3  # runs refused one after another: the server is down
# W&B marks a run as synced even if it gave up sending its data, so it must go on longer than a batch does.
RETRIES = {
    "WANDB_X_GRAPHQL_RETRY_MAX": "4",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "5",
    "WANDB_X_FILE_STREAM_RETRY_MAX": "1000",
    "WANDB_X_FILE_TRANSFER_RETRY_MAX": "1000",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, 1 if W&B refused something, 2 after one line for bad input."""

    def command() -> int:
        parser = Parser(prog="python -m launch.wandb_mirror", description=__doc__.splitlines()[0])
        parser.add_argument("study", type=Path, help="the study folder")
        parser.add_argument("--entity", default=os.environ.get("WANDB_ENTITY", ""), help="team or user; default: yours")
        parser.add_argument("--project", default="", help="default: the project that the study's runs name")
        options = parser.parse_args(arguments)
        return send(StudyFolder(options.study), options.entity, options.project)

    return exit_status(command)


def send(study: StudyFolder, entity: str, project: str) -> int:
    """Send all that W&B accepts; 1 if it refused something. Raises UserError before anything is sent."""
    name = study_name(study)
    api, own_entity = log_in(study)
    keys, logged_project = logged(study)
    place = Place(entity or own_entity, project or logged_project or TrackingConfig().project)
    records = run_records(study, name)
    write_figures_run(study, name, place.project)
    ready, waiting = to_send(study)
    if waiting:
        print(f"{len(waiting)} runs of unfinished trials are not sent yet")
    lost = upload(ready, place, api.settings["base_url"])
    on_server = {run_of(path) for path in runs(study) if path not in (*lost, *waiting)}
    refused = [f"{folder}: did not reach W&B" for folder in lost]
    refused += update_runs(api, place, [record for record in records if record.run_id in on_server])
    refused += publish(study, wandb_study.board(study, name, records, keys), place)
    for line in refused:
        print(f"cinelora: {line}; run the same command again", file=sys.stderr)
    return 1 if refused else 0


def log_in(study: StudyFolder) -> tuple[Any, str]:
    """W&B's API and the account's own entity. Raises UserError: no account, wrong key, no server."""
    os.environ["WANDB_MODE"] = "online"  # the shell may say offline, for training
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    try:
        if wandb.login(prompt=False, verify=True):
            api = wandb.Api(timeout=30)
            return api, api.default_entity or ""
    except (wandb.errors.Error, ValueError) as error:
        raise UserError(f"W&B: {_reason(error)}; nothing was sent, the runs are unchanged") from error
    raise UserError(
        "no W&B account: run `wandb login` once (or set WANDB_API_KEY), then this command again; without one, "
        f"`make dashboard STUDY={study.typed}` shows the runs in the terminal and {study.report}/index.html "
        "the answer, tables, figures and clips"
    )


def upload(ready: Sequence[Path], place: Place, url: str) -> list[Path]:
    """Send the runs in batches with `wandb sync`; returns those that did not reach the server at `url`."""
    if not ready:
        print("no new runs")
    for start in range(0, len(ready), BATCH):
        batch = ready[start : start + BATCH]
        print(f"sending runs {start + 1} to {start + len(batch)} of {len(ready)}", flush=True)
        if not _sync(batch, place, url):
            break
        mark_unended(batch)
        if not any(map(is_synced, batch)):
            break  # the server accepts no more
    lost = [folder for folder in ready if not is_synced(folder)]
    if ready:
        print(f"{len(ready) - len(lost)} of {len(ready)} runs sent")
    return lost


def _sync(batch: Sequence[Path], place: Place, url: str) -> bool:
    """Whether `wandb sync` ended by itself. Its exit status is no help: it is 0 even when no run arrived."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", "-n", str(BATCH), "--project", place.project]
    command += ["--entity", place.entity] if place.entity else []
    environment = {**os.environ, **RETRIES, "WANDB_SILENT": "false"}
    process = subprocess.Popen([*command, *map(str, batch)], env=environment, start_new_session=True)
    end, unanswered = time.monotonic() + RUN_SECONDS * len(batch), 0
    try:
        while time.monotonic() < end and unanswered < MAX_UNANSWERED:
            try:
                process.wait(PING_SECONDS)
                return True
            except subprocess.TimeoutExpired:
                unanswered = 0 if _answers(url) else unanswered + 1
        reason = "the server does not answer" if unanswered else "it takes too long"
        print(f"stopped sending these runs: {reason}", file=sys.stderr)
        return False
    finally:  # also after Ctrl-C
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        requests.head(url, timeout=PING_SECONDS)
    except requests.RequestException:
        return False
    return True


def mark_unended(batch: Sequence[Path]) -> None:
    """Mark sent runs of killed workers as synced: W&B marks no run without an end, so it would be sent each time."""
    for folder in batch:
        if is_synced(folder):
            continue
        run, sent = read_run(folder), any(folder.glob("*.wandb.syncstate"))
        if run["exit_code"] is None and (sent or not run["run_id"]):
            for path in folder.glob("*.wandb"):
                path.with_name(f"{path.name}.synced").touch()


def update_runs(api: Any, place: Place, records: Sequence[RunRecord]) -> list[str]:
    """Update every run on the server; returns a line for each refused. Stops after MAX_REFUSED in a row."""
    import wandb

    updated, refused, in_a_row = 0, [], 0
    for record in records:
        try:
            updated += update_run(api.run(f"{place.entity}/{place.project}/{record.run_id}"), record)
            in_a_row = 0
        except (ValueError, wandb.errors.Error) as error:
            refused.append(f"{record.labels['name']}: not updated: {_reason(error)}")
            in_a_row += 1
        if in_a_row == MAX_REFUSED:
            break
    print(f"{updated} runs updated")
    return refused


def update_run(run: Any, record: RunRecord) -> bool:
    """Give a run (of W&B's public API) the labels, scores and costs of its trial. False if it has them already."""
    name, config, summary = record.labels["name"], record.labels["config"], dict(record.summary)
    tags = list(dict.fromkeys([*run.tags, *record.labels["tags"]]))  # tags that a user added stay
    known = {key: run.summary.get(key) for key in summary}
    if (run.name, list(run.tags), known) == (name, tags, summary) and {**run.config, **config} == dict(run.config):
        return False
    run.tags, run.name = tags, name
    run.config.update(config)
    run.summary.update(summary)
    run.update()
    return True


def publish(study: StudyFolder, board: Board, place: Place) -> list[str]:
    """Save view and report in place of the last ones and print their addresses; returns a line for each refused."""
    path, here = study.wandb / "board.json", list(place)
    known = read_json(path) if path.exists() else {}
    known = known if known.get("place") == here else {}
    view, page = workspace(board, place), report(board, place)
    view._internal_name, view._internal_id = known.get("view", ["", ""])
    page.id = known.get("report", "")
    refused = []
    for kind, item in (("view", view), ("report", page)):
        try:
            item.save()
            print(f"{kind}: {item.url}")
        except Exception as error:  # requests, GraphQL, validation: each layer of W&B has its own
            refused.append(f"{kind} not saved: {_reason(error)}")
    write_json(path, {"place": here, "view": [view._internal_name, view._internal_id], "report": page.id})
    return refused


def _reason(error: BaseException) -> str:
    """An error of W&B on one line."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


if __name__ == "__main__":
    raise SystemExit(main())
