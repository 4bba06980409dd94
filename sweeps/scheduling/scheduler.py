"""Which trial starts when and where. No clock, no Ray: the caller says what time it is and what has ended.

In: nodes, tasks with their shapes and estimated times, what ended. Out: starts. Standard library only.

Tasks are in one order (`longest_first`). The first is never delayed by a later one: if it cannot start now, it is
reserved the nodes where, by the estimates, it can start soonest. Others start only if they end before that or use what
it leaves (EASY backfill: Lifka, JSSPP 1995; Mu'alem and Feitelson, IEEE TPDS 12(6), 2001). There is never a second
reservation. A task that needs the result of another waits outside the queue until the caller reports that result.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from sweeps.scheduling.cluster import (
    Cluster,
    GangLayout,
    GangShape,
    Infeasible,
    Limits,
    Node,
    Reservation,
    Worker,
    reserve,
)
from sweeps.scheduling.tasks import Key, Order, Task, longest_first


@dataclass(frozen=True)
class Start:
    task: Task
    places: tuple[tuple[str, int], ...]  # (node name, workers there), rank order
    warm: bool  # idle workers with its base are there


@dataclass(frozen=True)
class Running:
    task: Task
    workers: tuple[Worker, ...]
    end: float  # by the estimate


@dataclass
class Scheduler:
    """Decides, and records what is booked; the caller starts, watches and ends the trials."""

    order: Order = longest_first
    cluster: Cluster = field(default_factory=Cluster)
    _groups: dict[tuple[GangShape, str, frozenset[str]], list[Task]] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)  # ids, waiting, running or dependent
    _dependent: dict[str, list[Task]] = field(default_factory=dict)  # by the id of the task that they wait for
    reservation: Reservation | None = None  # of the head, when another task could take its nodes; may be outdated
    _stale: bool = False  # the reservation must be computed again

    def add(self, task: Task) -> None:
        """Queue a task, new or again. Raises Infeasible if the nodes known could not hold it even when empty."""
        if task.task_id in self._known:
            raise ValueError(f"task {task.task_id} is waiting or running already")
        if self._layout(task) is None:
            raise Infeasible(f"{task.task_id}: {self.cluster.misfit(task.shape)}; ask for less or add nodes")
        self._known.add(task.task_id)
        if task.after in self._known:
            self._dependent.setdefault(task.after, []).append(task)
        else:
            self._queue(task)

    def _queue(self, task: Task) -> None:
        group = self._groups.setdefault((task.shape, task.base, task.avoid), [])
        insort(group, task, key=lambda t: (-t.seconds, t.task_id))

    def add_node(self, node: Node) -> None:
        """A new node, empty. Raises ValueError for a name in use."""
        if node.name in self.cluster.nodes:
            raise ValueError(f"node {node.name} is known already")
        self.cluster.add(node)
        self._stale = True

    def remove_node(self, name: str) -> tuple[Task, ...]:
        """Forget a node and the tasks that ran there. Returns these tasks: the caller decides on a retry."""
        lost = [run.task for run in self.running.values() if any(worker.node == name for worker in run.workers)]
        self.cluster.remove(name)
        for task in lost:
            self._drop(task.task_id, resident=False)
        self._stale = True
        return tuple(lost)

    def hold(self, node_name: str, until: float) -> None:
        """Start nothing on this node before `until`; what runs there goes on."""
        if node_name in self.cluster.nodes:
            self.cluster.held[node_name] = until
            self._stale = True

    def starts(self, now: float) -> list[Start]:
        """What is to start now, in order. Its resources are booked."""
        found: list[Start] = []
        while (start := self._next(now)) is not None:
            found.append(start)
        return found

    def finished(self, task_id: str, now: float, resident: bool = True) -> None:
        """Free the resources of a task; nothing is left to do if its node is gone.

        `resident`: its workers are alive and keep the base.
        """
        run = self.running.get(task_id)
        if run is not None:
            self._stale |= run.end != now  # sooner or later than estimated
            self._drop(task_id, resident)

    def has_result(self, task_id: str) -> None:
        """Queue the tasks that waited for it."""
        for task in self._dependent.pop(task_id, []):
            self._queue(task)

    def has_none(self, task_id: str) -> tuple[Task, ...]:
        """There will be no result: forget the tasks that waited for it, and return them. Their own dependents stay."""
        left = self._dependent.pop(task_id, [])
        self._known -= {task.task_id for task in left}
        return tuple(left)

    @property
    def waiting(self) -> tuple[Task, ...]:
        """In order."""
        return tuple(sorted((task for group in self._groups.values() for task in group), key=self._key))

    @property
    def dependent(self) -> int:
        """How many tasks wait for the result of another."""
        return sum(len(tasks) for tasks in self._dependent.values())

    @property
    def stranded(self) -> tuple[Task, ...]:
        """Waiting tasks that the nodes now known can never hold. They wait for new nodes and delay no other task."""
        return tuple(task for task in self.waiting if self._layout(task) is None)

    def _key(self, task: Task) -> tuple[Key, float, str]:
        return self.order(task), -task.seconds, task.task_id

    def _layout(self, task: Task) -> GangLayout | None:
        return self.cluster.layout(task.shape, task.avoid)

    def _drop(self, task_id: str, resident: bool) -> None:
        self._known.discard(task_id)
        self.cluster.release(self.running.pop(task_id).workers, resident)

    def _next(self, now: float) -> Start | None:
        """The first task in order if it can start, else one that does not delay it."""
        fronts = [(group[0], layout) for group in self._groups.values() if (layout := self._layout(group[0]))]
        fronts.sort(key=lambda front: self._key(front[0]))
        found = [(start, layout) for task, layout in fronts if (start := self._places(task, layout, now, {}))]
        if not found:
            return None
        head, first = fronts[0], found[0][0]
        if first.task is head[0]:
            promised = self.reservation is not None and self.reservation.task_id == first.task.task_id
            equals = [start for start, _ in found]
            return self._start(first if promised else _warm_first(equals, self.order), now, {})
        reserved = self._reserve(*head, now)
        fillers = [filler for start, layout in found if (filler := self._filler(start.task, layout, reserved, now))]
        if not fillers:
            return None
        chosen = _warm_first(sorted(fillers, key=lambda start: self._key(start.task)), lambda task: task.shape.size)
        in_time = now + chosen.task.seconds <= reserved.time
        return self._start(chosen, now, {} if in_time else reserved.spare)

    def _places(self, task: Task, layout: GangLayout, now: float, limits: Limits) -> Start | None:
        """Where the task could start now."""
        names = self.cluster.choose(layout, task.base, now, limits)
        if not names:
            return None
        warm = all(self.cluster.is_warm(name, layout, task.base) for name in names)
        return Start(task, tuple((name, layout.share) for name in names), warm)

    def _reserve(self, head: Task, layout: GangLayout, now: float) -> Reservation:
        """The reservation of the first task. It stays as long as trials end when estimated."""
        kept = self.reservation
        if kept is None or kept.task_id != head.task_id or kept.time <= now or self._stale:
            self._stale = False
            ends = [(run.end, run.workers) for run in self.running.values()]
            kept = self.reservation = reserve(head.task_id, layout, self.cluster, ends, now)
        return kept

    def _filler(self, front: Task, layout: GangLayout, reserved: Reservation, now: float) -> Start | None:
        """The longest task of a group that either leaves the reserved nodes alone or ends before they are needed."""
        if start := self._places(front, layout, now, reserved.spare):
            return start
        group = self._groups[front.shape, front.base, front.avoid]
        at = bisect_left(group, -reserved.time, key=lambda task: -(now + task.seconds))
        return self._places(group[at], layout, now, {}) if at < len(group) else None

    def _start(self, start: Start, now: float, limits: Limits) -> Start:
        """Book it. What is booked within limits is taken from them too: it still runs when the first task starts."""
        task, layout = start.task, self._layout(start.task)
        assert layout is not None
        workers = self.cluster.book(layout, task.base, [name for name, _ in start.places], limits)
        for worker in workers:
            if worker.node in limits:
                limits[worker.node].take(worker)
        if self.reservation and self.reservation.task_id == task.task_id:
            self.reservation = None
        self.running[task.task_id] = Running(task, workers, now + task.seconds)
        key = task.shape, task.base, task.avoid
        self._groups[key].remove(task)
        if not self._groups[key]:
            del self._groups[key]
        return start


def _warm_first(starts: list[Start], equal: Callable[[Task], Key]) -> Start:
    """The first in order, or the first of its equals whose base is loaded in its place."""
    first = equal(starts[0].task)
    return next((start for start in starts if start.warm and equal(start.task) == first), starts[0])
