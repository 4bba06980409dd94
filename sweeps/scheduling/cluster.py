"""Where a gang fits: nodes, what is free on them, and the idle workers that still hold a base model.

In: nodes, shapes. Out: the nodes for a gang, and bookings of CPUs and GPUs. Standard library only.
A gang lies on as few nodes as the cluster allows, in equal shares. GPUs are counted one by one in parts of 1/10,000,
Ray's own resolution, so that fractions share a GPU only as far as it goes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

WHOLE = 10_000  # parts of a GPU


class Infeasible(Exception):
    """The cluster can never hold this gang. One line: the shape, the cluster, the remedy."""


@dataclass(frozen=True)
class GangShape:
    """What one trial occupies. Raises ValueError for a shape that no cluster could give."""

    workers: int
    cpus: int  # per worker
    gpus: float  # per worker; below 1 only for one-worker trials that share a GPU

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus < 1 or self.gpus < 0:
            raise ValueError(f"{self}: needs at least one worker, one CPU a worker and no negative GPUs")
        if self.gpus % 1 and (self.gpus > 1 or self.workers > 1):
            raise ValueError(f"{self}: a share of a GPU is for gangs of one worker and lies below 1")

    @cached_property
    def size(self) -> tuple[float, float]:
        """(GPUs, CPUs where there are no GPUs): gangs compare by it."""
        return (self.workers * self.gpus, 0.0) if self.gpus else (0.0, float(self.workers * self.cpus))

    @cached_property
    def parts(self) -> int:
        """Of each GPU that a worker has."""
        return round(min(self.gpus, 1) * WHOLE)

    @cached_property
    def each(self) -> tuple[int, float]:
        """What one worker is."""
        return self.cpus, self.gpus


@dataclass(frozen=True)
class Node:
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True, eq=False)
class Worker:
    """One process on one node: its CPUs, its GPUs by index and the part that it has of each, its base."""

    node: str
    shape: GangShape
    gpus: tuple[int, ...]
    base: str


@dataclass
class FreeResources:
    """What is free on one node: CPUs and parts of each GPU."""

    cpus: int
    gpus: list[int]

    @staticmethod
    def of(node: Node) -> FreeResources:
        return FreeResources(node.cpus, [WHOLE] * node.gpus)

    def copy(self) -> FreeResources:
        return FreeResources(self.cpus, self.gpus.copy())

    def common(self, other: FreeResources) -> FreeResources:
        """What is free in both."""
        return FreeResources(
            min(self.cpus, other.cpus), [min(pair) for pair in zip(self.gpus, other.gpus, strict=True)]
        )

    def workers(self, shape: GangShape) -> int:
        """How many workers of this shape fit."""
        by_cpu = self.cpus // shape.cpus
        if not shape.parts or not by_cpu:
            return by_cpu
        if shape.parts == WHOLE:
            return min(by_cpu, self.gpus.count(WHOLE) // int(shape.gpus))
        return min(by_cpu, sum(free // shape.parts for free in self.gpus))

    def holds(self, worker: Worker) -> bool:
        parts = worker.shape.parts
        return self.cpus >= worker.shape.cpus and all(self.gpus[index] >= parts for index in worker.gpus)

    def take(self, worker: Worker, sign: int = -1) -> None:
        self.cpus += sign * worker.shape.cpus
        for index in worker.gpus:
            self.gpus[index] += sign * worker.shape.parts

    def give(self, worker: Worker) -> None:
        self.take(worker, 1)

    def pick(self, shape: GangShape, last: Callable[[int], bool]) -> tuple[int, ...]:
        """GPUs for one worker that fits: the fullest that hold it, those of `last` only if there are no others."""
        if not shape.parts:
            return ()
        fits = [index for index, free in enumerate(self.gpus) if free >= shape.parts]
        return tuple(heapq.nsmallest(max(1, int(shape.gpus)), fits, key=lambda i: (self.gpus[i], last(i), i)))


@dataclass(frozen=True, eq=False)
class GangLayout:
    """How a gang must lie: `share` workers on each of `count` nodes, none of them in `avoid`."""

    shape: GangShape
    count: int
    avoid: frozenset[str]

    @cached_property
    def share(self) -> int:
        return self.shape.workers // self.count


Limits = Mapping[str, FreeResources]  # nodes where less than what is free may be used


@dataclass
class Cluster:
    """The nodes and who is on them. `idle`: per node, workers that nobody uses, the longest idle first."""

    nodes: dict[str, Node] = field(default_factory=dict)
    free: dict[str, FreeResources] = field(default_factory=dict)
    idle: dict[str, list[Worker]] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)  # node: until when nothing may start there
    _layouts: dict[tuple[GangShape, frozenset[str]], GangLayout | None] = field(default_factory=dict)
    _fitting: dict[GangLayout, set[str]] = field(default_factory=dict)

    def add(self, node: Node) -> None:
        self.nodes[node.name] = node
        self.free[node.name], self.idle[node.name] = FreeResources.of(node), []
        self._forget()

    def remove(self, name: str) -> None:
        for table in (self.nodes, self.free, self.idle, self.held):
            table.pop(name, None)
        self._forget()

    def _forget(self) -> None:
        self._layouts.clear()
        self._fitting.clear()

    def layout(self, shape: GangShape, avoid: frozenset[str]) -> GangLayout | None:
        """Fewest nodes that divide the workers evenly, without those to avoid if that is possible at all.

        None: the empty cluster cannot hold the gang.
        """
        key = shape, avoid
        if key not in self._layouts:
            self._layouts[key] = self._fewest(shape, avoid) or self._fewest(shape, frozenset())
        return self._layouts[key]

    def _fewest(self, shape: GangShape, avoid: frozenset[str]) -> GangLayout | None:
        fits = sorted(
            (FreeResources.of(n).workers(shape) for n in self.nodes.values() if n.name not in avoid), reverse=True
        )
        for count, share in enumerate(fits, start=1):
            if shape.workers % count == 0 and share >= shape.workers // count:
                return GangLayout(shape, count, avoid)
        return None

    def fitting(self, layout: GangLayout) -> set[str]:
        """Nodes with room for a share of the gang, whether held or to be avoided or not. Kept up to date."""
        if layout not in self._fitting:
            room = self.free.items()
            self._fitting[layout] = {name for name, free in room if free.workers(layout.shape) >= layout.share}
        return self._fitting[layout]

    def choose(self, layout: GangLayout, base: str, now: float, limits: Limits) -> tuple[str, ...]:
        """Nodes for a gang that starts now, by name; none if it does not fit.

        Those whose idle workers have the base first, then best fit: the node with the least free.
        """
        names = [
            name
            for name in self.fitting(layout)
            if name not in layout.avoid
            and self.held.get(name, now) <= now
            and (name not in limits or self.free[name].common(limits[name]).workers(layout.shape) >= layout.share)
        ]
        if len(names) < layout.count:
            return ()
        rank = {
            name: (self.warm(name, layout, base) < layout.share, *fullness(self.free[name]), name) for name in names
        }
        return tuple(sorted(heapq.nsmallest(layout.count, names, key=rank.__getitem__)))

    def warm(self, name: str, layout: GangLayout, base: str) -> int:
        """Idle workers on the node that are of this shape and have this base."""
        each = layout.shape.each
        return sum(worker.base == base and worker.shape.each == each for worker in self.idle[name])

    def book(self, layout: GangLayout, base: str, names: Iterable[str], limits: Limits) -> tuple[Worker, ...]:
        """Occupy the nodes with the gang's workers; idle ones in its way are gone."""
        return tuple(worker for name in names for worker in self._occupy(name, layout, base, limits))

    def _occupy(self, name: str, layout: GangLayout, base: str, limits: Limits) -> list[Worker]:
        free, idle, shape = self.free[name], self.idle[name], layout.shape
        room = free.common(limits[name]) if name in limits else free.copy()
        chosen: list[Worker] = []
        for worker in sorted(idle, key=lambda w: w.base != base):
            if len(chosen) < layout.share and worker.shape.each == shape.each and room.holds(worker):
                room.take(worker)
                idle.remove(worker)
                chosen.append(Worker(name, shape, worker.gpus, base))
        settled = {index for worker in idle for index in worker.gpus}
        while len(chosen) < layout.share:
            chosen.append(Worker(name, shape, room.pick(shape, settled.__contains__), base))
            room.take(chosen[-1])
        for worker in chosen:
            free.take(worker)
        self._drop_idle(name)
        self._refit(name)
        return chosen

    def _drop_idle(self, name: str) -> None:
        """Keep the idle workers for which there is still room, the last used first."""
        room, kept = self.free[name].copy(), []
        for worker in reversed(self.idle[name]):
            if room.holds(worker):
                room.take(worker)
                kept.append(worker)
        self.idle[name] = kept[::-1]

    def release(self, workers: Iterable[Worker], resident: bool) -> None:
        """Free what they had; `resident`: they stay as idle workers with their base."""
        names = set()
        for worker in workers:
            if worker.node in self.nodes:
                names.add(worker.node)
                self.free[worker.node].give(worker)
                if resident:
                    self.idle[worker.node].append(worker)
        for name in names:
            self._refit(name)

    def _refit(self, name: str) -> None:
        for layout, names in self._fitting.items():
            if self.free[name].workers(layout.shape) >= layout.share:
                names.add(name)
            else:
                names.discard(name)


def fullness(room: FreeResources) -> tuple[int, int]:
    """Key of best fit, least free first."""
    return sum(room.gpus), room.cpus


def named(shape: GangShape, nodes: Iterable[Node]) -> str:
    """The shape and the cluster in words."""
    kinds: dict[tuple[int, int], int] = {}
    for node in nodes:
        kinds[node.cpus, node.gpus] = kinds.get((node.cpus, node.gpus), 0) + 1
    has = ", ".join(f"{count} x ({cpus} CPU, {gpus} GPU)" for (cpus, gpus), count in sorted(kinds.items()))
    return f"{shape.workers} x ({shape.cpus} CPU, {shape.gpus:g} GPU): the cluster has {has or 'no nodes'}"


# ~ When and where a gang that does not fit now will fit, by the estimates of what is running.
# ~
# ~ In: the cluster, expected ends. Out: a reservation: the time, and what it leaves to others. Standard library only.

Change = tuple[float, str, Worker | None]  # time, node, the worker that leaves it (None: a hold ends)


@dataclass(frozen=True)
class Reservation:
    """From `time` on the gang can have its nodes, of which it then leaves `spare` free. It needs no other node."""

    task_id: str
    time: float
    spare: dict[str, FreeResources]


def reserve(
    task_id: str, layout: GangLayout, cluster: Cluster, ends: Iterable[tuple[float, tuple[Worker, ...]]], now: float
) -> Reservation:
    """Play the ends of what is running in order of time until the gang fits. What is over its time is to end now."""
    rooms = {name: room.copy() for name, room in cluster.free.items() if name not in layout.avoid}
    closed = {name for name in rooms if cluster.held.get(name, now) > now}
    ready = {name for name in cluster.fitting(layout) if name in rooms} - closed
    changes: list[Change] = [(cluster.held[name], name, None) for name in closed]
    changes += [(max(end, now), w.node, w) for end, workers in ends for w in workers if w.node in rooms]
    changes.sort(key=lambda change: change[:2])
    for time, group in groupby(changes, key=lambda change: change[0]):
        for _, name, worker in group:
            if worker is None:
                closed.discard(name)
            else:
                rooms[name].give(worker)
            if name not in closed and name not in ready and rooms[name].workers(layout.shape) >= layout.share:
                ready.add(name)
        if len(ready) >= layout.count:
            names = sorted(ready, key=lambda name: (*fullness(rooms[name]), name))[: layout.count]
            return Reservation(task_id, time, {name: _left(rooms[name], cluster.free[name], layout) for name in names})
    raise AssertionError(f"{task_id}: a layout is a place in the empty cluster, so it fits when everything has ended")


def _left(room: FreeResources, free_now: FreeResources, layout: GangLayout) -> FreeResources:
    """The room less the gang's share: GPUs busy now where possible, so that the others can be used for long."""
    shape = layout.shape
    for _ in range(layout.share):
        gpus = room.pick(shape, last=lambda index: free_now.gpus[index] >= shape.parts)
        room.take(Worker("", shape, gpus, base=""))
    return room
