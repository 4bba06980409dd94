"""The loop of a sweep: give each waiting trial a gang, watch it, take its result or act on its failure.

In: jobs with their shapes, a pool of workers. Out: results on disk; the reason for each trial that ended without one.
`sweeps/scheduling/scheduler.py` decides what runs where, `sweeps/failures.py` what a failure means; here both meet Ray.
A stuck collective raises nothing, so a trial counts as hung when its progress.json has not changed for too long. The
first Ctrl-C lets running trials save a checkpoint and stop, the second ends the sweep at once.
"""

from __future__ import annotations

import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from cinelora.core.cli import UserError
from cinelora.core.config import Checkpointing, ClusterConfig
from cinelora.trial.job import Job
from launch.engine.errors import STOPPED, all_stopped, failure_kind, first_cause, is_lost
from launch.engine.pool import RUN, START, Calls, Member, Phases, Pool, gang_phases
from sweeps.failures import FIRST, HANG, LOST, RetryDecision, decide_retry
from sweeps.ledger import Ledger
from sweeps.prune import Pruner
from sweeps.scheduling.cluster import Infeasible
from sweeps.scheduling.scheduler import Scheduler, Start
from sweeps.scheduling.tasks import Task

POLL_SECONDS = 0.3
LOOK_SECONDS = 2.0  # between looks at the cluster and the disk
START_SECONDS = 300.0  # of a gang: imports on a cold disk, process group
HOLD_SECONDS = 60.0  # a node where a gang could not start is left alone
START_TRIES = 5  # in a row, with nothing else running
PATIENCE = 10  # times the longest silence that the plan expects of a trial
GRACE_SECONDS = 120.0  # for the gang of a stopped trial to save and leave
STRANDED_SECONDS = 300.0  # without any node that could hold what waits
GIB = 2**30


def run_all(engine: Engine, tick: Callable[[Engine], None]) -> dict[str, str]:
    """Run the queue to its end, or to the stop; returns {trial_id: reason} of the trials that failed."""
    while engine.running or (engine.jobs and not engine.stopping):
        now = time.monotonic()
        engine.look_around(now)
        if not engine.waits_for_disk and not engine.stopping:
            for start in engine.scheduler.starts(now):
                engine.begin(start, now)
        tick(engine)
        for run, call in _ready(engine.running):
            if run in engine.running:
                engine.settle(run, call, time.monotonic())
        engine.end_hung(time.monotonic())
    return engine.errors


def _ready(running: list[Running]) -> list[tuple[Running, Any]]:
    owner = {call: run for run in running for call in run.calls if call not in run.results}
    if not owner:
        time.sleep(POLL_SECONDS)
        return []
    ready, _ = ray.wait(list(owner), num_returns=1, timeout=POLL_SECONDS)
    return [(owner[call], call) for call in ready]


@contextmanager
def stopped_by_signal(engine: Engine) -> Iterator[None]:
    """While open, the first SIGINT or SIGTERM stops running trials in order, the second raises KeyboardInterrupt.

    While no trial runs, as during encoding, the first raises at once: what was encoded so far is on disk.
    """

    def handle(number: int, frame: Any) -> None:
        if engine.stop_requested or not engine.running:
            raise KeyboardInterrupt
        engine.stop_requested = True  # the loop acts on it: a handler may come in the middle of anything

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(eq=False)
class Running:
    """A trial on its gang. `phase` is START until its workers run it."""

    job: Job
    task: Task
    members: list[Member]
    phases: Phases
    since: float
    phase: str = START
    calls: Calls = field(default_factory=list)
    results: dict[Any, Any] = field(default_factory=dict)
    progress: Any = None  # as last read
    changed: float | None = None  # when another progress was first read

    def silent(self, progress: Any, now: float) -> float:
        """Seconds since its progress last changed, 0 at the first look; by the driver's clock."""
        if self.changed is None or progress != self.progress:
            self.progress, self.changed = progress, now
        return now - self.changed


@dataclass
class Engine:
    """The state of one sweep in this driver. Disk is the truth; this is only what is in flight."""

    ledger: Ledger
    cluster: ClusterConfig
    scheduler: Scheduler = field(default_factory=Scheduler)
    pool: Pool = field(default_factory=Pool)
    pruner: Pruner | None = None
    fail_fast: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)  # waiting and running
    running: list[Running] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    stop_requested: bool = False
    stopping: bool = False
    waits_for_disk: bool = False
    failed_starts: int = 0
    looked: float = -LOOK_SECONDS
    stranded_since: float = math.inf

    def add(self, job: Job, task: Task) -> None:
        """Queue a trial. Raises Infeasible if the cluster can never hold its gang."""
        self.scheduler.add(task)
        self.jobs[task.task_id] = job

    def look_around(self, now: float) -> None:
        """Look for new and lost nodes, space on the disk, the stop file; now and then."""
        if self.stop_requested:
            self.stop()
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        self.update_nodes()
        self._look_at_disk()
        self._give_up_stranded(now)
        if self.pruner:
            self.pruner.look(run.job.spec for run in self.running if run.phase == RUN)
        if self.ledger.folder.stop.exists():
            self.stop()

    def update_nodes(self) -> None:
        """Add new nodes to the scheduler and remove those that are gone."""
        self.pool.refresh()
        known, alive = set(self.scheduler.cluster.nodes), set(self.pool.nodes)
        came, gone = alive - known, known - alive
        for name in sorted(gone):
            self.scheduler.remove_node(name)  # the calls of its trials will fail, as lost
        for name in sorted(came):
            self.scheduler.add_node(self.pool.nodes[name])
        if came or gone:
            self.ledger.event("nodes", came=sorted(came), gone=sorted(gone))

    def _look_at_disk(self) -> None:
        free = shutil.disk_usage(self.ledger.folder.root).free / GIB
        short = free < self.cluster.free_disk_gib
        if short != self.waits_for_disk:
            self.waits_for_disk = short
            self.ledger.event("disk_low" if short else "disk_ok", free_gib=round(free, 2))
            what = "no trial starts until there is more" if short else "going on"
            print(f"{self.ledger.folder.root}: {free:.2f} GiB free (cluster.free_disk_gib): {what}", flush=True)

    def stop(self) -> None:
        """Let running trials save a checkpoint and leave; start nothing new."""
        if not self.stopping:
            self.stopping = True
            self.ledger.folder.stop.touch()
            self.ledger.event("stopping", running=[run.task.task_id for run in self.running])
            trials = f"{len(self.running)} running trials"
            print(f"stopping: {trials} save a checkpoint and leave (Ctrl-C again: end at once)", flush=True)

    def begin(self, start: Start, now: float) -> None:
        job = self.jobs[start.task.task_id]
        if self.pruner and (why := self.pruner.verdict(job.spec)):
            self.scheduler.finished(start.task.task_id, now, resident=start.warm)
            self._prune(job, why)
            return
        members = self.pool.take(start)
        run = Running(job, start.task, members, gang_phases(members, job), now)
        self.running.append(run)
        self._enter(run, *next(run.phases))

    def _enter(self, run: Running, phase: str, calls: Calls) -> None:
        run.phase, run.calls, run.results = phase, calls, {}
        if phase == RUN:
            self.failed_starts = 0
            pids, trial_id = [member.pid for member in run.members], run.task.task_id
            self.ledger.event("started", trial_id=trial_id, pids=pids, restarts=run.job.restarts)

    def advance(self, run: Running, now: float) -> None:
        """All calls of this phase have returned: enter the next phase, or take the trial as done."""
        answers = [run.results[call] for call in run.calls]
        try:
            self._enter(run, *run.phases.send(answers))
        except StopIteration:
            for member, answer in zip(run.members, answers, strict=True):
                member.memory.append(answer)
            self.pool.release(run.members)
            self._leave(run, now)
            self.jobs.pop(run.task.task_id)
            self.scheduler.has_result(run.task.task_id)
            self.ledger.event("done", trial_id=run.task.task_id)

    def settle(self, run: Running, call: Any, now: float) -> None:
        """Take one finished call of a run."""
        try:
            run.results[call] = ray.get(call)
        except Exception as error:
            others = [other for other in run.calls if other is not call and other not in run.results]
            self.end(run, LOST if is_lost(error, others) else failure_kind(error), first_cause(error), now)
            return
        if len(run.results) == len(run.calls):
            self.advance(run, now)

    def end(self, run: Running, kind: str, cause: str, now: float) -> None:
        """A trial ended without a result: free or discard its gang and follow the rule of its failure."""
        trial_id = run.task.task_id
        why = self.pruner.leaving.get(trial_id, "") if self.pruner else ""
        if kind == STOPPED and not why:
            self.stop()  # a worker may see the stop file before we do
        whole = kind == STOPPED and all_stopped(run.calls, GRACE_SECONDS)
        (self.pool.release if whole else self.pool.discard)(run.members)
        self._leave(run, now)
        if why and kind in (STOPPED, LOST, HANG):
            self._prune(run.job, why)
        elif kind == STOPPED or (self.stopping and kind in (LOST, HANG)):
            self.ledger.event("stopped", trial_id=trial_id, error=cause)
            self.jobs.pop(trial_id)
        elif run.phase == START and kind != "user":
            self._start_failed(run, cause, now)
        else:
            self._act(run, kind, cause, self._decision(run, kind))

    def _decision(self, run: Running, kind: str) -> RetryDecision:
        config = run.job.spec.config
        micro_batch = config.train.windows_at_once(max(1, len(run.members) // config.model.sequence_workers))
        checkpointed = not config.method.trains or (
            config.train.checkpointing is Checkpointing.all and not config.train.checkpointed_blocks
        )
        return decide_retry(kind, run.job.causes, micro_batch, checkpointed, self.cluster.max_restarts)

    def _prune(self, job: Job, why: str) -> None:
        assert self.pruner is not None
        self.pruner.record(job.spec, why)
        self._drop(job.spec.trial_id, f"pruned, {why}")

    def _start_failed(self, run: Running, cause: str, now: float) -> None:
        """The node is occupied or gone: try elsewhere, and here again later."""
        self.failed_starts += 1
        self.ledger.event("gang_start_failed", trial_id=run.task.task_id, error=cause[:300])
        if self.failed_starts >= START_TRIES and not self.running:
            raise UserError(f"no gang started in {START_TRIES} tries, last: {cause[:300]}; look at the cluster")
        for node in {member.node for member in run.members}:
            if len(self.pool.nodes) > 1:
                self.scheduler.hold(node, now + HOLD_SECONDS)
        self._again(run.task)

    def _act(self, run: Running, kind: str, cause: str, decision: RetryDecision) -> None:
        job, task = run.job, run.task
        if not decision.retry:
            self._fail(task, kind, f"{cause}; {decision.remedy}" if decision.remedy else cause)
            if self.fail_fast:
                self.stop()
            return
        self.ledger.event(kind, trial_id=task.task_id, error=cause)
        job = replace(job, causes=(*job.causes, kind))
        if changes := decision.changes:
            config = job.spec.config
            job = replace(job, spec=replace(job.spec, config=replace(config, train=replace(config.train, **changes))))
            text = ", ".join(f"train.{name}={getattr(value, 'value', value)}" for name, value in changes.items())
            print(f"{task.task_id}: out of memory, once more with {text}", flush=True)
        self.waits_for_disk = self.waits_for_disk or decision.pause
        nodes = frozenset(member.node for member in run.members) if decision.elsewhere else frozenset[str]()
        self.jobs[task.task_id] = job
        self._again(replace(task, avoid=task.avoid | nodes))

    def _again(self, task: Task) -> None:
        try:
            self.scheduler.add(task)
        except Infeasible as error:
            self._fail(task, LOST, f"the nodes that are left cannot hold it: {error}")

    def _fail(self, task: Task, kind: str, text: str) -> None:
        self.errors[task.task_id] = text
        self.ledger.fail(task.task_id, kind, text)
        self._drop(task.task_id, text)

    def _drop(self, trial_id: str, why: str) -> None:
        """A trial leaves the sweep without a result, and so do the trials that start from its adapter."""
        self.jobs.pop(trial_id)
        for task in self.scheduler.has_none(trial_id):
            self._fail(task, FIRST, f"starts from {trial_id}, which has no adapter: {why}")

    def _give_up_stranded(self, now: float) -> None:
        """Nothing runs and nothing can: wait for nodes to come back, then record the trials as failed."""
        stuck = [] if self.running or self.stopping else self.scheduler.stranded
        if not stuck or len(stuck) + self.scheduler.dependent < len(self.jobs):
            self.stranded_since = math.inf
        elif now - min(self.stranded_since, now) > STRANDED_SECONDS:
            for task in stuck:
                self._fail(task, LOST, f"no node that could hold it came back within {STRANDED_SECONDS:.0f} s")
        else:
            self.stranded_since = min(self.stranded_since, now)

    def _leave(self, run: Running, now: float) -> None:
        self.running.remove(run)
        self.scheduler.finished(run.task.task_id, now, resident=run.members[0] in self.pool.idle)

    def end_hung(self, now: float) -> None:
        """End the trials whose progress has not changed for too long, and the gangs that do not start."""
        for run in list(self.running):
            if run.phase == START:
                if now - run.since > START_SECONDS:
                    self.end(run, HANG, f"the gang did not start within {START_SECONDS:.0f} s", now)
                continue
            silent = run.silent(self.ledger.progress(run.task.task_id), now)
            if silent > self.patience(run.task):
                self.end(run, HANG, f"no progress for {silent:.0f} s (cluster.hang_seconds)", now)

    def patience(self, task: Task) -> float:
        """Seconds of silence after which its gang is killed: the setting, or more for a trial planned to be slow."""
        return max(GRACE_SECONDS if self.stopping else self.cluster.hang_seconds, PATIENCE * task.silence)
