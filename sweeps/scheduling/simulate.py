"""A sweep in simulated time: when each trial runs, and how long the sweep takes. Standard library only.

In: tasks, nodes. Out: the start, end and nodes of each task.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sweeps.scheduling.cluster import Node
from sweeps.scheduling.scheduler import Scheduler
from sweeps.scheduling.tasks import Order, Task, longest_first


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
    order: Order = longest_first,
    actual: Mapping[str, float] | None = None,
    watch: Callable[[float, Scheduler], None] | None = None,
) -> list[Run]:
    """Runs in the order of their starts. `actual`: seconds of tasks whose estimates are wrong.

    `watch` is called with the time and the scheduler after each decision. Raises Infeasible for a task that does not
    fit.
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
