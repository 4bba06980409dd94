"""Send a study to W&B: its offline runs, what the ledger says of each, a saved view, a report.

In: a study folder with a report, an account. Out: runs on the server, marked on disk as synced (W&B's own mark);
STUDY/wandb/board.json remembers view and report: the next time they are rewritten, not doubled. Deletes nothing.
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
    Facts,
    facts,
    is_synced,
    logged,
    read_run,
    run_of,
    runs,
    study_name,
    to_send,
    write_figures_run,
)

BATCH = 8  # runs at once
RUN_SECONDS = 300  # for one run of a batch; a batch that takes longer is given up, its runs stay to be sent
PING_SECONDS, SILENCES = 10, 3  # while a batch is under way; so many without an answer: the server is gone
GIVE_UP = 3  # refused runs one after another: the server is gone
# A run whose data W&B stops trying to send is marked as synced all the same, so it must not stop before we do.
RETRIES = {
    "WANDB_X_GRAPHQL_RETRY_MAX": "4",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "5",
    "WANDB_X_FILE_STREAM_RETRY_MAX": "1000",
    "WANDB_X_FILE_TRANSFER_RETRY_MAX": "1000",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, 1 if some runs did not get through, 2 after one line on what is missing."""
    parser = Parser(prog="python -m launch.wandb_mirror", description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="the study folder")
    parser.add_argument("--entity", default=os.environ.get("WANDB_ENTITY", ""), help="team or user; default: your own")
    parser.add_argument("--project", default="", help="default: the project that the study's runs name")

    def run() -> int:
        options = parser.parse_args(arguments)
        return send(StudyFolder(options.study), options.entity, options.project)

    return exit_status(run)


def send(study: StudyFolder, entity: str, project: str) -> int:
    """Everything of the study, whatever of it W&B refuses; 1 if it did. Raises UserError before anything is sent."""
    name = study_name(study)
    api, own = log_in(study)
    keys, named = logged(study)
    place = Place(entity or own, project or named or TrackingConfig().project)
    of_trials = facts(study, name)
    write_figures_run(study, name, place.project)
    ready, waiting = to_send(study)
    if waiting:
        print(f"{len(waiting)} runs of unfinished trials wait until these have ended")
    lost = upload(ready, place, api.settings["base_url"])
    there = {run_of(path) for path in runs(study) if path not in (*lost, *waiting)}
    refused = [f"{folder}: did not reach W&B" for folder in lost]
    refused += mirror_all(api, place, [fact for fact in of_trials if fact.run_id in there])
    refused += publish(study, wandb_study.board(study, name, of_trials, keys), place)
    for line in refused:
        print(f"cinelora: {line}; run the same command again", file=sys.stderr)
    return 1 if refused else 0


def log_in(study: StudyFolder) -> tuple[Any, str]:
    """W&B's API and the account's own entity. Raises UserError: no account, wrong key, no server."""
    os.environ["WANDB_MODE"] = "online"  # whatever the shell says for training
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    try:
        known = wandb.login(prompt=False, verify=True)
        api = wandb.Api(timeout=30) if known else None
        own = api.default_entity or "" if api else ""
    except (wandb.errors.Error, ValueError) as error:
        raise UserError(f"W&B: {_reason(error)}; nothing was sent, the runs stay as they are") from error
    if api is None:
        raise UserError(
            "no W&B account: run `wandb login` once (or set WANDB_API_KEY), then this again; without one "
            f"`make dashboard STUDY={study.root}` shows the runs in the terminal and {study.report}/index.html "
            "the answer, tables, figures and clips"
        )
    return api, own


def upload(ready: Sequence[Path], place: Place, url: str) -> list[Path]:
    """Hand the runs to `wandb sync`, some at a time; returns those that did not get through to the server at `url`."""
    if not ready:
        print("no new runs")
        return []
    for start in range(0, len(ready), BATCH):
        batch = ready[start : start + BATCH]
        print(f"sending runs {start + 1} to {start + len(batch)} of {len(ready)}", flush=True)
        if not _sync(batch, place, url):
            break
        settle(batch)
        if not any(map(is_synced, batch)):
            break  # nothing arrives any more
    lost = [folder for folder in ready if not is_synced(folder)]
    print(f"{len(ready) - len(lost)} of {len(ready)} runs sent")
    return lost


def _sync(batch: Sequence[Path], place: Place, url: str) -> bool:
    """False if it was given up. Its exit status says nothing: it is 0 even when no run arrived."""
    command = [sys.executable, "-m", "wandb", "sync", "--yes", "-n", str(BATCH), "--project", place.project]
    command += ["--entity", place.entity] if place.entity else []
    environment = {**os.environ, **RETRIES, "WANDB_SILENT": "false"}
    process = subprocess.Popen([*command, *map(str, batch)], env=environment, start_new_session=True)
    end, silent = time.monotonic() + RUN_SECONDS * len(batch), 0
    try:
        while time.monotonic() < end and silent < SILENCES:
            try:
                process.wait(PING_SECONDS)
                return True
            except subprocess.TimeoutExpired:
                silent = 0 if _answers(url) else silent + 1
        print("gave up on these: " + ("the server is gone" if silent else "it takes too long"), file=sys.stderr)
        return False
    finally:  # also when somebody interrupts us
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        requests.head(url, timeout=PING_SECONDS)
    except requests.RequestException:
        return False
    return True


def settle(batch: Sequence[Path]) -> None:
    """Mark what killed workers left, once it is up: W&B never marks a run without an end and would send it for ever."""
    for folder in batch:
        if is_synced(folder):
            continue
        run, sent = read_run(folder), any(folder.glob("*.wandb.syncstate"))
        if run["exit_code"] is None and (sent or not run["run_id"]):
            for path in folder.glob("*.wandb"):
                path.with_name(f"{path.name}.synced").touch()


def mirror_all(api: Any, place: Place, of_trials: Sequence[Facts]) -> list[str]:
    """Bring every run up to the ledger; returns a line for each refused. Stops after GIVE_UP on end."""
    import wandb

    changed, refused, on_end = 0, [], 0
    for fact in of_trials:
        try:
            changed += mirror(api.run(f"{place.entity}/{place.project}/{fact.run_id}"), fact)
            on_end = 0
        except (ValueError, wandb.errors.Error) as error:
            refused.append(f"{fact.labels['name']}: not brought up to the ledger: {_reason(error)}")
            on_end += 1
        if on_end == GIVE_UP:
            break
    print(f"{changed} runs brought up to the ledger")
    return refused


def mirror(run: Any, fact: Facts) -> bool:
    """Make a run (of W&B's public API) say what the ledger says: labels, scores, cost. False if it did already."""
    named, config = fact.labels, dict(fact.labels["config"])
    tags = [*run.tags, *(tag for tag in named["tags"] if tag not in run.tags)]  # a person's own tags stay
    said = {key: run.summary.get(key) for key in fact.summary}
    same = {**run.config, **config} == dict(run.config) and said == dict(fact.summary) and tags == list(run.tags)
    if same and run.name == named["name"]:
        return False
    run.tags, run.name = tags, named["name"]
    run.config.update(config)
    run.summary.update(dict(fact.summary))
    run.update()
    return True


def publish(study: StudyFolder, board: Board, place: Place) -> list[str]:
    """Save view and report, over those of the last time, and print where they are; returns a line for each refused."""
    path, here = study.wandb / "board.json", [place.entity, place.project]
    known = read_json(path) if path.exists() else {}
    known = known if known.get("place") == here else {"place": here}
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
