"""Show the state of a study from any shell: reads the study folder, needs neither the running sweep nor Ray.

    python -m launch.status studies/quick                 (or `make status STUDY=studies/quick`)
    python -m launch.status studies/quick --watch         refresh every few seconds
    python -m launch.status studies/quick --json          for scripts
    python -m launch.status studies/quick --stop          running trials save a checkpoint and stop

In: a study folder. Out: counts, and one line for each trial that runs, failed or was pruned.
Exit status 0, 1 if a trial has failed, 2 bad input.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cinelora.core.cli import Parser, clock, exit_status
from cinelora.core.config import UNKNOWN_SEED, Method
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.status import DONE, FAILED, PRUNED, RUNNING, WAITING, StudyStatus, TrialStatus, study_status

WATCH_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: _status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    parser = Parser(prog="python -m launch.status", description="Show the state of a study.")
    parser.add_argument("study", help="the study folder")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="plain data on stdout")
    how.add_argument("--watch", action="store_true", help="refresh every few seconds, until the sweep has ended")
    how.add_argument("--stop", action="store_true", help="let running trials save a checkpoint and stop")
    options = parser.parse_args(arguments)
    ledger = Ledger(StudyFolder(Path(options.study)))
    status = study_status(ledger)
    if options.stop:
        print(stop(ledger, status))
    elif options.json:
        print(json.dumps(status.to_json(), indent=2))
    else:
        status = show(ledger, status, options.watch)
    return 1 if status.count(FAILED) else 0


def stop(ledger: Ledger, status: StudyStatus) -> str:
    """Write the stop file if a sweep is there to see it; returns the line to print."""
    if not status.driver:
        return "no sweep is running here"
    ledger.folder.stop.touch()
    return f"stopping: {status.count(RUNNING)} running trials save a checkpoint; the same sweep command continues later"


def show(ledger: Ledger, status: StudyStatus, watch: bool) -> StudyStatus:
    """Print the status; with `watch` until the sweep has ended. Returns the last one."""
    console = Console()
    while True:
        if watch:
            console.clear()
        console.print(headline(status), *status.question, sep="\n", highlight=False)
        console.print(table(status))
        if not watch or not status.driver:
            return status
        time.sleep(WATCH_SECONDS)
        status = study_status(ledger)


def headline(status: StudyStatus) -> str:
    stopping = ", stopping" if status.stopping else ""
    driver = f"a sweep is running{stopping}" if status.driver else "no sweep is running"
    states = {state: status.count(state) for state in (DONE, RUNNING, WAITING, FAILED, PRUNED)}
    left = f"; about {clock(status.seconds_left)} left" if status.seconds_left is not None else ""
    return f"{status.name}: {counts(**states)}; {driver}{left}"


def table(status: StudyStatus, shown: Sequence[str] = (RUNNING, FAILED, PRUNED)) -> Table:
    """One line per trial in these states; the headline counts the others."""
    found = Table(show_header=False, box=None)
    for trial in status.trials:
        if trial.state in shown:
            found.add_row(trial.spec.trial_id, label(trial.spec), trial.state, _details(trial))
    return found


def _details(trial: TrialStatus) -> str:
    if trial.state in (FAILED, PRUNED):
        return trial.reason
    silent = [] if trial.silent_seconds is None else [f"last update {clock(trial.silent_seconds)} ago"]
    return ", ".join([*activity(trial.progress, trial.restarts), *silent])


def label(spec: TrialSpec) -> str:
    """e.g. `rank 8 seed 1` or `base`."""
    config = spec.config
    if config.method in (Method.base, Method.frozen):
        return config.method.title
    what = "full" if config.method is Method.full else f"rank {config.rank}"
    if config.method is Method.clips and config.clips_rank < 1:
        what = "" if config.clips_rank else "base"
    seed = "" if config.seed == UNKNOWN_SEED else f"seed {config.seed}"
    return " ".join(part for part in (what, seed, config.arm, config.trainer, config.label) if part)


def counts(failed: int = 0, pruned: int = 0, **states: int) -> str:
    """e.g. `3 done, 2 waiting`; failed and pruned trials only where there are any."""
    rare = {name: count for name, count in (("failed", failed), ("pruned", pruned)) if count}
    return ", ".join(f"{count} {name}" for name, count in (states | rare).items())


def plan_counts(plan: Plan, ledger: Ledger, keep_pruned: bool) -> str:
    """e.g. `5 trials: 3 done, 2 to run`; `keep_pruned`: pruned trials are not run again."""
    done, pending = sum(ledger.is_done(spec.trial_id) for spec in plan.trials), len(ledger.pending(plan, keep_pruned))
    states = {"done": done, "to run": pending, "pruned": len(plan.trials) - done - pending}
    return f"{len(plan.trials)} trials: {counts(**states)}"


def activity(progress: dict[str, Any] | None, restarts: int) -> list[str]:
    """What a running trial does, e.g. `train 3/6`, `loss 0.2500`, `restart 1`; `progress`: its progress.json."""
    if progress is None:
        parts = ["starting"]
    else:
        loss = progress["loss"]
        parts = [
            f"{progress['stage']} {progress['done']}/{progress['total']}" if progress["total"] else progress["stage"]
        ]
        parts += [] if loss is None else [f"loss {loss:.4f}"]
    return parts + ([f"restart {restarts}"] if restarts else [])


if __name__ == "__main__":
    raise SystemExit(main())
