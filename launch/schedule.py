"""Order, placement and second chances: run every pending trial once, on gangs that stay warm.

In: jobs in order. Out: results on disk; the reason for each trial that ended without one.
The head of the queue is never overtaken, so a large trial cannot starve. A lost process costs the steps
since the last checkpoint; an error of the trial itself fails that trial at once and leaves the others alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError

from cinelora.job import Job
from launch.gangs import Gang, Node, Shape, cluster_nodes, gangs_that_fit, start_gang, stop_gang
from launch.messages import is_disk_full
from sweeps.ledger import Ledger

LOST = (RayActorError, ActorDiedError, ActorUnavailableError)
SETTLE_SECONDS = 5.0  # for the peers of a dead worker to fail too, so that the first cause is seen
POLL_SECONDS = 0.3
START_TRIES = 5
MOST_GANGS = 10_000


@dataclass
class Running:
    job: Job
    gang: Gang
    waiting: list[Any]


@dataclass
class Schedule:
    """The state of one sweep in this driver. Disk is the truth; this is only what is in flight."""

    ledger: Ledger
    shape: Shape
    max_restarts: int
    queue: deque[Job]
    running: list[Running] = field(default_factory=list)
    idle: list[Gang] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    most: int = MOST_GANGS

    @property
    def nodes(self) -> list[Node]:
        return cluster_nodes()

    @property
    def gangs(self) -> int:
        return len(self.idle) + len(self.running)

    @property
    def room(self) -> int:
        """How many gangs at once: by the cluster's size, less what turned out not to be free."""
        return min(gangs_that_fit(self.shape, self.nodes), self.most)

    def open_gang(self) -> bool:
        """Add an idle gang. Where others can go on without it a failed start only lowers `most`.

        A node just lost stays in Ray's table for some 14 s, so the first gang is tried several times; then the
        last error is raised.
        """
        for attempt in range(START_TRIES):
            try:
                self.idle.append(start_gang(self.shape, self.nodes))
                return True
            except Exception as error:
                self.ledger.event("gang_start_failed", error=f"{type(error).__name__}: {error}"[:300])
                if self.gangs:
                    self.most = self.gangs
                    return False
                if attempt == START_TRIES - 1:
                    raise
                time.sleep(SETTLE_SECONDS)
        return False

    def open_gangs(self, wanted: int) -> None:
        """Start as many gangs as fit and are wanted."""
        while self.gangs < min(wanted, self.room) and self.open_gang():
            pass

    def close(self) -> None:
        for gang in [*self.idle, *(run.gang for run in self.running)]:
            stop_gang(gang)
        self.idle, self.running = [], []


def run_all(schedule: Schedule, tick: Callable[[Schedule], None]) -> dict[str, str]:
    """Run the queue to its end; returns {trial_id: reason} of the trials that failed."""
    while schedule.queue or schedule.running:
        _fill(schedule)
        tick(schedule)
        refs = [ref for run in schedule.running for ref in run.waiting]
        ready, _ = ray.wait(refs, num_returns=1, timeout=POLL_SECONDS)
        for ref in ready:
            run = next((r for r in schedule.running if ref in r.waiting), None)
            if run is not None:
                _settle(schedule, run, ref)
    return schedule.errors


def _fill(schedule: Schedule) -> None:
    """Give waiting jobs to idle gangs, opening new ones while there is room."""
    while schedule.queue:
        if not schedule.idle and not (schedule.gangs < schedule.room and schedule.open_gang()):
            return
        gang, job = schedule.idle.pop(), schedule.queue.popleft()
        schedule.ledger.event("started", trial_id=job.spec.trial_id, pids=gang.pids, restarts=job.restarts)
        schedule.running.append(Running(job, gang, [worker.run.remote(job) for worker in gang.workers]))


def _settle(schedule: Schedule, run: Running, ref: Any) -> None:
    """Take one finished call of a run: the last good one frees the gang, a bad one ends it."""
    try:
        ray.get(ref)
        run.waiting.remove(ref)
        if run.waiting:
            return
        schedule.idle.append(run.gang)
        schedule.ledger.event("done", trial_id=run.job.spec.trial_id)
    except Exception as error:
        lost = _is_lost(error, [other for other in run.waiting if other != ref])
        stop_gang(run.gang)
        _second_chance(schedule, run.job, error, lost)
    schedule.running.remove(run)


def _is_lost(error: Exception, others: list[Any]) -> bool:
    """True if a process or node went away: a peer of a dead worker only sees its connection break."""
    if isinstance(error, LOST):
        return True
    if not others:
        return False
    finished, _ = ray.wait(others, num_returns=len(others), timeout=SETTLE_SECONDS)
    for ref in finished:
        try:
            ray.get(ref)
        except LOST:
            return True
        except Exception:
            continue
    return False


def _second_chance(schedule: Schedule, job: Job, error: Exception, lost: bool) -> None:
    """A lost trial goes back to the head of the queue; any other error is recorded as final."""
    if lost and job.restarts < schedule.max_restarts:
        schedule.ledger.event("lost", trial_id=job.spec.trial_id, error=type(error).__name__)
        schedule.queue.appendleft(replace(job, restarts=job.restarts + 1))
        return
    kind = "lost" if lost else failure_kind(error)
    text = first_cause(error)
    schedule.errors[job.spec.trial_id] = text
    schedule.ledger.fail(job.spec.trial_id, kind, text)


def failure_kind(error: Exception) -> str:
    """Class of a final error: user, diverged, out_of_memory, disk_full or error."""
    cause = root_cause(error)
    if is_disk_full(cause):
        return "disk_full"
    names = {"UserError": "user", "NonFiniteLoss": "diverged", "OutOfMemoryError": "out_of_memory"}
    return names.get(type(cause).__name__, "error")


def root_cause(error: Exception) -> Exception:
    """What was raised in the worker, without Ray's wrapping."""
    return error.cause if isinstance(error, RayTaskError) else error


def first_cause(error: Exception) -> str:
    """One line: the class and the message of what was raised."""
    cause = root_cause(error)
    if failure_kind(error) == "disk_full":
        return f"{cause}; free some space and run the same command again"
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[-1] if isinstance(error, LOST) else lines[0]}"
