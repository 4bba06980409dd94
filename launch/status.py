"""How a study stands, from any shell: reads the study's folder, needs no driver and no Ray.

    python -m launch.status studies/quick                 (or `make status STUDY=studies/quick`)
    python -m launch.status studies/quick --watch         again every few seconds
    python -m launch.status studies/quick --json          for scripts
    python -m launch.status studies/quick --stop          running trials save a checkpoint and leave

Exit status 0, 1 if a trial has failed, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cinelora.core.cli import UserError
from launch.wording import clock, label
from sweeps.ledger import Ledger, study_folder
from sweeps.status import DONE, FAILED, PRUNED, RUNNING, WAITING, StudyStatus, TrialStatus, study_status

WATCH_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.status", description="How a study stands.")
    parser.add_argument("study", help="the study folder")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="plain data on stdout")
    how.add_argument("--watch", action="store_true", help="again every few seconds, until the driver has left")
    how.add_argument("--stop", action="store_true", help="let running trials save a checkpoint and leave")
    options = parser.parse_args(arguments)
    ledger = Ledger(study_folder(options.study))
    try:
        status = study_status(ledger)
        if options.stop:
            print(stop(ledger, status))
        elif options.json:
            print(json.dumps(status.to_json(), indent=2))
        else:
            status = show(ledger, status, options.watch)
    except UserError as error:
        print(f"cinelora: {error}", file=sys.stderr)
        return 2
    return 1 if status.count(FAILED) else 0


def stop(ledger: Ledger, status: StudyStatus) -> str:
    """Put up the stop sign if there is anybody to see it; returns what to tell."""
    if not status.driver:
        return "no sweep is running here"
    ledger.folder.stop.touch()
    return f"asked {status.count(RUNNING)} running trials to save and leave; the same sweep command continues later"


def show(ledger: Ledger, status: StudyStatus, watch: bool) -> StudyStatus:
    console = Console()
    while True:
        if watch:
            console.clear()
        console.print(headline(status), highlight=False)
        console.print(table(status))
        if not watch or not status.driver:
            return status
        time.sleep(WATCH_SECONDS)
        status = study_status(ledger)


def headline(status: StudyStatus) -> str:
    sign = ", stopping" if status.stopping else ""
    driver = f"a sweep is running{sign}" if status.driver else "no sweep is running"
    states = (DONE, RUNNING, WAITING, FAILED) + ((PRUNED,) if status.count(PRUNED) else ())
    counts = ", ".join(f"{status.count(state)} {state}" for state in states)
    left = f"; about {clock(status.seconds_left)} left" if status.seconds_left is not None else ""
    return f"{status.name}: {counts}; {driver}{left}"


def table(status: StudyStatus) -> Table:
    """One line per trial that runs, failed or was pruned; the rest is counted in the headline."""
    found = Table(show_header=False, box=None)
    for trial in status.trials:
        if trial.state in (RUNNING, FAILED, PRUNED):
            found.add_row(trial.spec.trial_id, label(trial.spec), trial.state, _doing(trial))
    return found


def _doing(trial: TrialStatus) -> str:
    if trial.state in (FAILED, PRUNED):
        return trial.reason
    note, parts = trial.progress, []
    if note is not None:
        parts.append(f"{note['stage']} {note['done']}/{note['total']}")
        parts += [f"loss {note['loss']:.4f}"] if note["loss"] is not None else []
    parts += [f"last word {clock(trial.silent_seconds)} ago"] if trial.silent_seconds is not None else []
    parts += [f"restart {trial.restarts}"] if trial.restarts else []
    return ", ".join(parts)


if __name__ == "__main__":
    raise SystemExit(main())
