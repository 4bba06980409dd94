"""Where a gang fits: the nodes, what is free on them, and the idle workers that still hold a base model.

In: nodes, shapes of gangs. Out: the nodes for a gang, the workers booked there, and reservations for a gang that does
not fit yet. Standard library only.

A gang takes as few nodes as the cluster allows, with the same number of workers on each. GPUs are counted one by one in
parts of 1/10,000, Ray's own resolution, so that trials with fractions of a GPU never exceed a single GPU.
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
    """The resources of one trial's workers, as `ClusterConfig` has checked them."""

    workers: int
    cpus: int  # per worker
    gpus: float  # per worker; below 1 only for one-worker trials that share a GPU

    @cached_property
    def size(self) -> tuple[float, float]:
        """(GPUs, CPUs where there are no GPUs): gangs compare by it."""
        return (self.workers * self.gpus, 0.0) if self.gpus else (0.0, float(self.workers * self.cpus))

    @cached_property
    def parts(self) -> int:
        """Parts that a worker takes of each of its GPUs."""
        return round(min(self.gpus, 1) * WHOLE)

    @cached_property
    def of_worker(self) -> tuple[int, float]:
        """(CPUs, GPUs) of one worker."""
        return self.cpus, self.gpus


@dataclass(frozen=True)
class Node:
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True, eq=False)
class Worker:
    """One process on one node, with the indices of its GPUs and the base model that it holds."""

    node: str
    shape: GangShape
    gpus: tuple[int, ...]
    base: str


@dataclass
class FreeResources:
    """What is free on one node: CPUs, and parts of each GPU."""

    cpus: int
    gpus: list[int]

    @staticmethod
    def of(node: Node) -> FreeResources:
        return FreeResources(node.cpus, [WHOLE] * node.gpus)

    def copy(self) -> FreeResources:
        return FreeResources(self.cpus, self.gpus.copy())

    def common(self, other: FreeResources) -> FreeResources:
        """What is free in both."""
        gpus = [min(pair) for pair in zip(self.gpus, other.gpus, strict=True)]
        return FreeResources(min(self.cpus, other.cpus), gpus)

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
        """GPUs for one worker that fits: those with the least free; GPUs of `last` only if there are no others."""
        if not shape.parts:
            return ()
        fits = [index for index, free in enumerate(self.gpus) if free >= shape.parts]
        return tuple(heapq.nsmallest(max(1, int(shape.gpus)), fits, key=lambda i: (self.gpus[i], last(i), i)))

    @property
    def fullness(self) -> tuple[int, int]:
        """Sort key of best fit: the node with the least free comes first."""
        return sum(self.gpus), self.cpus


@dataclass(frozen=True, eq=False)
class GangLayout:
    """How a gang is spread: `share` workers on each of `count` nodes, none of them in `avoid`."""

    shape: GangShape
    count: int
    avoid: frozenset[str]

    @cached_property
    def share(self) -> int:
        return self.shape.workers // self.count

    def fits(self, free: FreeResources) -> bool:
        """Whether a node with these free resources has room for the gang's share."""
        return free.workers(self.shape) >= self.share


Limits = Mapping[str, FreeResources]  # nodes where less than what is free may be used


@dataclass
class Cluster:
    """The nodes and their workers. `idle`: per node, workers without a trial, the longest idle first."""

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
        """Fewest nodes that divide the workers evenly, without the nodes to avoid if that is possible at all.

        None: the empty cluster cannot hold the gang.
        """
        key = shape, avoid
        if key not in self._layouts:
            self._layouts[key] = self._fewest(shape, avoid) or self._fewest(shape, frozenset())
        return self._layouts[key]

    def _fewest(self, shape: GangShape, avoid: frozenset[str]) -> GangLayout | None:
        fits = [FreeResources.of(node).workers(shape) for node in self.nodes.values() if node.name not in avoid]
        for count, share in enumerate(sorted(fits, reverse=True), start=1):
            if shape.workers % count == 0 and share >= shape.workers // count:
                return GangLayout(shape, count, avoid)
        return None

    def fitting(self, layout: GangLayout) -> set[str]:
        """Nodes with room for a share of the gang, including held nodes and nodes to avoid. Kept up to date."""
        if layout not in self._fitting:
            self._fitting[layout] = {name for name, free in self.free.items() if layout.fits(free)}
        return self._fitting[layout]

    def choose(self, layout: GangLayout, base: str, now: float, limits: Limits) -> tuple[str, ...]:
        """Names of the nodes for a gang that starts now; none if it does not fit.

        Nodes whose idle workers have the base come first, then best fit: the node with the least free.
        """
        names = [
            name
            for name in self.fitting(layout)
            if name not in layout.avoid
            and self.held.get(name, now) <= now
            and (name not in limits or layout.fits(self.free[name].common(limits[name])))
        ]
        if len(names) < layout.count:
            return ()
        rank = {name: (not self.is_warm(name, layout, base), *self.free[name].fullness, name) for name in names}
        return tuple(sorted(heapq.nsmallest(layout.count, names, key=rank.__getitem__)))

    def is_warm(self, name: str, layout: GangLayout, base: str) -> bool:
        """Whether the node has idle workers with this base for the gang's whole share."""
        kind = layout.shape.of_worker
        return sum(w.base == base and w.shape.of_worker == kind for w in self.idle[name]) >= layout.share

    def book(self, layout: GangLayout, base: str, names: Iterable[str], limits: Limits) -> tuple[Worker, ...]:
        """Occupy the nodes with the gang's workers; idle workers for which no room is left are dropped."""
        return tuple(worker for name in names for worker in self._occupy(name, layout, base, limits))

    def _occupy(self, name: str, layout: GangLayout, base: str, limits: Limits) -> list[Worker]:
        free, idle, shape = self.free[name], self.idle[name], layout.shape
        usable = free.common(limits[name]) if name in limits else free.copy()
        chosen: list[Worker] = []
        for worker in sorted(idle, key=lambda w: w.base != base):
            if len(chosen) < layout.share and worker.shape.of_worker == shape.of_worker and usable.holds(worker):
                usable.take(worker)
                idle.remove(worker)
                chosen.append(Worker(name, shape, worker.gpus, base))
        settled = {index for worker in idle for index in worker.gpus}
        while len(chosen) < layout.share:
            chosen.append(Worker(name, shape, usable.pick(shape, settled.__contains__), base))
            usable.take(chosen[-1])
        for worker in chosen:
            free.take(worker)
        self._drop_idle(name)
        self._refit(name)
        return chosen

    def _drop_idle(self, name: str) -> None:
        """Keep the idle workers for which there is still room, the last used first."""
        free, kept = self.free[name].copy(), []
        for worker in reversed(self.idle[name]):
            if free.holds(worker):
                free.take(worker)
                kept.append(worker)
        self.idle[name] = kept[::-1]

    def release(self, workers: Iterable[Worker], resident: bool) -> None:
        """Free the resources of these workers; `resident`: they stay as idle workers with their base."""
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
            if layout.fits(self.free[name]):
                names.add(name)
            else:
                names.discard(name)

    def misfit(self, shape: GangShape) -> str:
        """Why a gang of this shape cannot run here: the shape and the nodes."""
        kinds: dict[tuple[int, int], int] = {}
        for node in self.nodes.values():
            kinds[node.cpus, node.gpus] = kinds.get((node.cpus, node.gpus), 0) + 1
        has = ", ".join(f"{count} x ({cpus} CPU, {gpus} GPU)" for (cpus, gpus), count in sorted(kinds.items()))
        return f"{shape.workers} x ({shape.cpus} CPU, {shape.gpus:g} GPU): the cluster has {has or 'no nodes'}"


Change = tuple[float, str, Worker | None]  # time, node, the worker that leaves it (None: a hold ends)


@dataclass(frozen=True)
class Reservation:
    """From `time` on the gang can have its nodes, and leaves `spare` free on them. It needs no other node."""

    task_id: str
    time: float
    spare: dict[str, FreeResources]


def reserve(
    task_id: str, layout: GangLayout, cluster: Cluster, ends: Iterable[tuple[float, tuple[Worker, ...]]], now: float
) -> Reservation:
    """The first time at which the gang fits, if the running trials end at `ends` (time, workers).

    A trial that has exceeded its estimate is taken to end now.
    """
    free = {name: each.copy() for name, each in cluster.free.items() if name not in layout.avoid}
    closed = {name for name in free if cluster.held.get(name, now) > now}
    ready = {name for name in cluster.fitting(layout) if name in free} - closed
    changes: list[Change] = [(cluster.held[name], name, None) for name in closed]
    changes += [(max(end, now), w.node, w) for end, workers in ends for w in workers if w.node in free]
    changes.sort(key=lambda change: change[:2])
    for time, group in groupby(changes, key=lambda change: change[0]):
        for _, name, worker in group:
            if worker is None:
                closed.discard(name)
            else:
                free[name].give(worker)
            if name not in closed and name not in ready and layout.fits(free[name]):
                ready.add(name)
        if len(ready) >= layout.count:
            names = sorted(ready, key=lambda name: (*free[name].fullness, name))[: layout.count]
            return Reservation(task_id, time, {name: _spare(free[name], cluster.free[name], layout) for name in names})
    raise AssertionError(f"{task_id}: a layout fits the empty cluster, so it fits when every trial has ended")


def _spare(free: FreeResources, free_now: FreeResources, layout: GangLayout) -> FreeResources:
    """What the gang's share leaves. It takes GPUs that are busy now where possible: the others can be used for long."""
    shape = layout.shape
    for _ in range(layout.share):
        gpus = free.pick(shape, last=lambda index: free_now.gpus[index] >= shape.parts)
        free.take(Worker("", shape, gpus, base=""))
    return free
