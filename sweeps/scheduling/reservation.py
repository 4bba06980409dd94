"""When and where a gang that does not fit now will fit, by the estimates of what is running.

In: the cluster, expected ends. Out: a reservation: the time, and what it leaves to others. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from sweeps.scheduling.cluster import Cluster, Layout, Room, Worker, fullness

Change = tuple[float, str, Worker | None]  # time, node, the worker that leaves it (None: a hold ends)


@dataclass(frozen=True)
class Reservation:
    """From `time` on the gang can have its nodes, of which it then leaves `spare` free. It needs no other node."""

    task_id: str
    time: float
    spare: dict[str, Room]


def reserve(
    task_id: str, layout: Layout, cluster: Cluster, ends: Iterable[tuple[float, tuple[Worker, ...]]], now: float
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


def _left(room: Room, free_now: Room, layout: Layout) -> Room:
    """The room less the gang's share: GPUs busy now where possible, so that the others can be used for long."""
    shape = layout.shape
    for _ in range(layout.share):
        gpus = room.pick(shape, last=lambda index: free_now.gpus[index] >= shape.parts)
        room.take(Worker("", shape, gpus, base=""))
    return room
