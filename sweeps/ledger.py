"""The study folder as the record of what is planned, done, failed and pruned. Standard library only.

    study.json  plan.json  rates.json  looks.json  events.jsonl  trials/<id>/{spec,progress,failed,pruned,result}.json

A result file that exists is whole, and is the only proof that a trial is done.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TextIO

from cinelora.core.cli import UserError
from cinelora.core.config import AUTO
from cinelora.core.files import read_json, write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import SCHEMA, TrialResult, TrialSpec
from sweeps.looks import Looks
from sweeps.plan import Plan

SHARE = 0.9  # of the best gain that counts as enough; of studies that do not record another


@dataclass(frozen=True)
class Ledger:
    folder: StudyFolder

    def open(self, name: str, share: float = SHARE, scores: Sequence[str] = ()) -> None:
        """Create the study or check that this program can continue it. `share` and the `scores` that decide, () for
        auto, are fixed before the first result.

        Raises UserError for a folder of another schema, share or scores, or one that holds something else.
        """
        answer = {"share": share, "scores": list(scores) or AUTO}
        if self.folder.study.exists():
            known = {"share": SHARE, "scores": AUTO} | check_schema(self.folder)
            for field, value in answer.items():
                if value != known[field]:
                    raise UserError(
                        f"answer.{field}={value}: this study began with {known[field]}; keep it, or take another "
                        "study_dir"
                    )
            return
        if self.folder.root.exists() and any(self.folder.root.glob("trials/*")):
            raise UserError(f"study_dir={self.folder.root}: has trials but no study.json; choose another study_dir")
        write_json(self.folder.study, {"schema": SCHEMA, "name": name, **answer})

    def write_plan(self, plan: Plan) -> None:
        """Write the plan and each trial's spec."""
        write_json(self.folder.plan, plan.to_json())
        for spec in plan.trials:
            path = self.folder.trial(spec.trial_id).spec
            if not path.exists():
                write_json(path, spec.to_json())

    def plan(self) -> Plan:
        return Plan.from_json(read_json(self.folder.plan))

    def looks(self) -> Looks | None:
        """None where the study does not go on until it knows."""
        return Looks.from_json(read_json(self.folder.looks)) if self.folder.looks.exists() else None

    def write_looks(self, looks: Looks) -> None:
        write_json(self.folder.looks, looks.to_json())

    def rates(self) -> dict[str, Any] | None:
        """What is known of the search for its learning rates (`sweeps/rates.py:record`); None without one."""
        return dict(read_json(self.folder.rates)) if self.folder.rates.exists() else None

    def write_rates(self, record: Mapping[str, Any]) -> None:
        """Once per choice: a file that did not change leaves the reports valid."""
        if self.rates() != record:
            write_json(self.folder.rates, dict(record))
            self.event("rates", folder=record["folder"], chosen=record["chosen"])

    def is_done(self, trial_id: str) -> bool:
        return self.folder.trial(trial_id).result.exists()

    def pending(self, plan: Plan, keep_pruned: bool = False) -> list[TrialSpec]:
        """The trials still to run. `keep_pruned`: pruned trials are over; else they run after all."""
        over = [spec.trial_id for spec in plan.trials if keep_pruned and self.pruned(spec.trial_id)]
        return [spec for spec in plan.trials if not self.is_done(spec.trial_id) and spec.trial_id not in over]

    def result(self, trial_id: str) -> TrialResult | None:
        path = self.folder.trial(trial_id).result
        return TrialResult.from_json(read_json(path)) if path.exists() else None

    def progress(self, trial_id: str) -> dict[str, Any] | None:
        """The last progress that a running trial wrote: stage, done, total, loss."""
        path = self.folder.trial(trial_id).progress
        return read_json(path) if path.exists() else None

    def fail(self, trial_id: str, kind: str, error: str) -> None:
        """Record why a trial ended without a result."""
        record = {"trial_id": trial_id, "kind": kind, "error": error}
        write_json(self.folder.trial(trial_id).failed, record)
        self.event("failed", **record)

    def pruned(self, trial_id: str) -> dict[str, Any] | None:
        """What was recorded of a trial that was ended early and has no result: step, heldout_loss, why."""
        folder = self.folder.trial(trial_id)
        return read_json(folder.pruned) if folder.pruned.exists() and not folder.result.exists() else None

    def prune(self, trial_id: str, step: int, heldout_loss: float | None, why: str) -> None:
        """Record that a trial was ended early, or never begun (step 0)."""
        record = {"trial_id": trial_id, "step": step, "heldout_loss": heldout_loss, "why": why}
        write_json(self.folder.trial(trial_id).pruned, record)
        self.folder.trial(trial_id).stop.unlink(missing_ok=True)
        self.event("pruned", **record)

    def event(self, name: str, **facts: Any) -> None:
        """Append one line to events.jsonl."""
        with open(self.folder.events, "a") as stream:
            stream.write(json.dumps({"time": round(time.time(), 3), "event": name, **facts}) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All events; a line that is being written, or that a killed driver did not end, is left out."""
        if not self.folder.events.exists():
            return []
        found = []
        for line in self.folder.events.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study for one driver. Raises UserError if another one has it."""
        self.folder.root.mkdir(parents=True, exist_ok=True)
        with open(self.folder.lock, "a+") as stream:
            if not _lock(stream):
                stream.seek(0)
                holder = stream.read().strip() or "another sweep"
                raise UserError(f"study_dir={self.folder.root}: {holder} is running here; wait for it")
            job = os.environ.get("SLURM_JOB_ID")
            holder = f"the sweep of process {os.getpid()} on {socket.gethostname()}" + (
                f", Slurm job {job}," if job else ""
            )
            stream.truncate(0)
            stream.write(holder)
            stream.flush()
            yield


def _lock(stream: TextIO) -> bool:
    """Whether the lock is ours now. Tried for a second, since a look at the study holds it for an instant."""
    for _ in range(20):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.05)
    return False


def wall_seconds(events: Sequence[Mapping[str, Any]]) -> float:
    """From the begin of each sweep that started a trial to its last event; a killed driver's end is not known."""
    begins = [index for index, event in enumerate(events) if event["event"] == "sweep"]
    sweeps = [events[begin:end] for begin, end in pairwise([*begins, len(events)])]
    worked = [sweep for sweep in sweeps if any(event["event"] == "started" for event in sweep)]
    return float(sum(sweep[-1]["time"] - sweep[0]["time"] for sweep in worked))


def chosen_scores(study: Mapping[str, Any]) -> tuple[str, ...]:
    """The scores that decide, of what `check_schema` read; () where the best that the trials have are taken."""
    scores = study.get("scores", AUTO)
    return () if scores == AUTO else tuple(scores)


def check_schema(folder: StudyFolder) -> dict[str, Any]:
    """study.json of a study that this program reads. Raises UserError otherwise."""
    if not folder.study.exists():
        raise UserError(f"{folder.root}: not a study folder (no study.json)")
    study = read_json(folder.study)
    if study.get("schema") != SCHEMA:
        raise UserError(
            f"{folder.study}: schema {study.get('schema')}, this program reads {SCHEMA}; use the version that wrote "
            "it, or another study_dir"
        )
    return dict(study)
