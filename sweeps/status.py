"""The state of a study, read from its folder alone: no driver, no Ray, from any shell that sees the disk.

In: a ledger. Out: a StudyStatus. A trial is running if its last event is a start and a sweep holds the study.
"""

from __future__ import annotations

import fcntl
import time
from dataclasses import dataclass
from typing import Any

from cinelora.core.files import read_json
from cinelora.core.records import TrialSpec
from sweeps.ledger import Ledger, check_schema

DONE, RUNNING, WAITING, FAILED, PRUNED = "done", "running", "waiting", "failed", "pruned"
STATES = (DONE, RUNNING, WAITING, FAILED, PRUNED)
ENDS = ("done", "failed", "stopped", "pruned", "lost", "hang", "out_of_memory", "disk_full")  # after which none runs
# Share of a trial at the start and the end of a stage; rough, for the time left only.
STAGE_SHARE = {"train": (0.0, 0.7), "evaluate": (0.7, 0.7), "generate": (0.7, 1.0)}
NO_CLIPS = {"train": (0.0, 0.95), "evaluate": (0.95, 1.0)}  # of one that ends after its held-out loss
LEAST_WORK = 0.05  # trials done before a time left is given


@dataclass(frozen=True)
class TrialStatus:
    """`silent_seconds`: since the trial last wrote its progress; `reason`: of a failure or of pruning."""

    spec: TrialSpec
    state: str
    restarts: int
    reason: str = ""
    progress: dict[str, Any] | None = None  # stage, done, total, loss; of a running trial
    silent_seconds: float | None = None


@dataclass(frozen=True)
class StudyStatus:
    """`driver`: a sweep holds the study now. `seconds_left`: at the pace so far; None if unknown."""

    name: str
    driver: bool
    stopping: bool
    trials: tuple[TrialStatus, ...]
    seconds_left: float | None
    question: tuple[str, ...] = ()  # of a study that goes on until it knows: where that stands

    def count(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)

    def to_json(self) -> dict[str, Any]:
        """Plain data: what the command prints with --json."""
        names = ("state", "progress", "silent_seconds", "restarts", "reason")
        trials = [{"trial_id": t.spec.trial_id, **{name: getattr(t, name) for name in names}} for t in self.trials]
        head = {"name": self.name, "driver": self.driver, "stopping": self.stopping, "seconds_left": self.seconds_left}
        counts = {state: self.count(state) for state in STATES}
        return {**head, **counts, "question": self.question, "trials": trials}


def study_status(ledger: Ledger, now: float | None = None) -> StudyStatus:
    """Read it. Raises UserError for a folder that is no study of this schema; `now`: seconds since 1970."""
    now = time.time() if now is None else now
    name = check_schema(ledger.folder)["name"]
    driver, events = _driver(ledger), ledger.events()
    started = {event["trial_id"]: event for event in events if event["event"] == "started"}
    last = {event["trial_id"]: event["event"] for event in events if event["event"] in ("started", *ENDS)}
    trials = tuple(
        _trial(ledger, spec, driver and last.get(spec.trial_id) == "started", started.get(spec.trial_id), now)
        for spec in ledger.plan().trials
    )
    looks, left = ledger.looks(), _left(trials, events, now) if driver else None
    return StudyStatus(name, driver, ledger.folder.stop.exists(), trials, left, tuple(looks.state) if looks else ())


def _trial(ledger: Ledger, spec: TrialSpec, runs: bool, started: dict[str, Any] | None, now: float) -> TrialStatus:
    folder = ledger.folder.trial(spec.trial_id)
    restarts = started["restarts"] if started else 0
    if ledger.is_done(spec.trial_id):
        return TrialStatus(spec, DONE, restarts)
    if runs:
        written = folder.progress.stat().st_mtime if folder.progress.exists() else (started or {}).get("time", now)
        return TrialStatus(spec, RUNNING, restarts, "", ledger.progress(spec.trial_id), max(0.0, now - written))
    if folder.failed.exists():
        return TrialStatus(spec, FAILED, restarts, str(read_json(folder.failed)["error"]))
    if (record := ledger.pruned(spec.trial_id)) is not None:
        return TrialStatus(spec, PRUNED, restarts, record["why"])
    return TrialStatus(spec, WAITING, restarts)


def _driver(ledger: Ledger) -> bool:
    """Whether a sweep holds the lock of the study; on a file system without locks it is always False."""
    if not ledger.folder.lock.exists():
        return False
    with open(ledger.folder.lock) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _left(trials: tuple[TrialStatus, ...], events: list[dict[str, Any]], now: float) -> float | None:
    """At the pace since the first trial of this sweep started; a running trial counts by its share."""
    sweep = max((index for index, event in enumerate(events) if event["event"] == "sweep"), default=0)
    began = min((event["time"] for event in events[sweep:] if event["event"] == "started"), default=now)
    now_running = (trial for trial in trials if trial.state == RUNNING)
    running = sum(_fraction(trial.progress, trial.spec.config.sample.clips) for trial in now_running)
    ended = sum(event["event"] == "done" for event in events[sweep:]) + running
    left = sum(trial.state in (RUNNING, WAITING) for trial in trials) - running
    return (now - began) / ended * left if ended >= LEAST_WORK else None


def _fraction(progress: dict[str, Any] | None, clips: bool = True) -> float:
    """Share of a running trial that is done, 0..1."""
    shares = STAGE_SHARE if clips else NO_CLIPS
    stage = progress and progress.get("during", progress["stage"])
    if progress is None or stage not in shares:
        return 0.0
    low, high = shares[stage]
    return float(low + (high - low) * progress["done"] / max(1, progress["total"]))
