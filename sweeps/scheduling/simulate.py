"""A sweep played in simulated time: how long it will take, and in which order to take it. Standard library only.

In: tasks, nodes. Out: the start, end and places of each task; a time that no schedule can beat.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from sweeps.scheduling.cluster import WHOLE, Cluster, Infeasible, Node, named
from sweeps.scheduling.scheduler import ORDERS, Scheduler, Task

Demand = tuple[int, int, float]  # nodes of a gang, what it has of a resource on each, seconds


@dataclass(frozen=True)
class Run:
    task: Task
    start: float  # seconds since the sweep began
    end: float
    places: tuple[tuple[str, int], ...]
    warm: bool


def simulate(
    tasks: Iterable[Task],
    nodes: Iterable[Node],
    order: str = "longest",
    actual: Mapping[str, float] | None = None,
    watch: Callable[[float, Scheduler], None] | None = None,
) -> list[Run]:
    """Runs in the order of their starts. `actual`: true seconds of tasks whose estimates are wrong.

    `watch` sees the scheduler each time that it has decided. Raises Infeasible for a task that does not fit.
    """
    scheduler, runs, ends, now = Scheduler(order), list[Run](), list[tuple[float, str]](), 0.0
    for node in nodes:
        scheduler.add_node(node)
    for task in tasks:
        scheduler.add(task)
    while True:
        for start in scheduler.starts(now):
            task = start.task
            end = now + (actual or {}).get(task.task_id, task.seconds)
            runs.append(Run(task, now, end, start.places, start.warm))
            heapq.heappush(ends, (end, task.task_id))
        if watch:
            watch(now, scheduler)
        if not ends:
            return runs
        now = ends[0][0]
        while ends and ends[0][0] == now:
            ended = heapq.heappop(ends)[1]
            scheduler.finished(ended, now)
            scheduler.has_result(ended)


def makespan(runs: Iterable[Run]) -> float:
    return max((run.end for run in runs), default=0.0)


def best_order(tasks: Sequence[Task], nodes: Sequence[Node]) -> str:
    """The order with the least simulated makespan; of equals the first in ORDERS."""
    return min(ORDERS, key=lambda order: makespan(simulate(tasks, nodes, order)))


def lower_bound(tasks: Iterable[Task], nodes: Sequence[Node]) -> float:
    """Seconds that no schedule can beat, gangs lying as the scheduler lays them. Raises Infeasible.

    For GPUs and for CPUs, and for each amount that some gang has of them on one node: call this amount a slot. A node
    has as many slots as go into it, a gang as many as go into its share, so the slots' seconds are an area bound which
    knows that two gangs of 5 GPUs do not go on a node of 8. For tiny slots it is the plain area bound.
    """
    cluster = Cluster()
    for node in nodes:
        cluster.add(node)
    by_cpu, by_gpu = list[Demand](), list[Demand]()
    for task in tasks:
        layout = cluster.layout(task.shape, frozenset())
        if layout is None:
            raise Infeasible(f"{task.task_id}: {named(task.shape, nodes)}")
        by_cpu.append((layout.count, layout.share * task.shape.cpus, task.seconds))
        by_gpu.append((layout.count, layout.share * round(task.shape.gpus * WHOLE), task.seconds))
    return max(_bound(by_cpu, [node.cpus for node in nodes]), _bound(by_gpu, [node.gpus * WHOLE for node in nodes]))


def _bound(gangs: list[Demand], room: list[int]) -> float:
    """Best bound for one resource, of which each node has `room`."""
    best = 0.0
    for slot in {1, *(amount for _, amount, _ in gangs if amount)}:
        slots = sum(amount // slot for amount in room)
        taken = [(count * (amount // slot), seconds) for count, amount, seconds in gangs if amount >= slot]
        if taken:
            best = max(best, sum(number * seconds for number, seconds in taken) / slots)
        for least in {number for number, _ in taken}:
            best = max(best, _chain([seconds for number, seconds in taken if number >= least], slots // least))
    return best


def _chain(seconds: list[float], at_once: int) -> float:
    """Bound for tasks of which no more than `at_once` can run at a time.

    Of any k * at_once + 1 of them k + 1 follow one another (intervals with at most m at a point split into m sets of
    disjoint ones), at best the k + 1 shortest.
    """
    ordered = sorted(seconds, reverse=True)
    sums = [0.0, *accumulate(ordered)]
    return max(sums[last + 1] - sums[last - k] for k, last in enumerate(range(0, len(ordered), at_once)))
