"""Gangs of changing size on a real Ray, with real process groups."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import ray

from launch.engine.pool import START, Member, Pool, gang_phases
from sweeps.scheduling.cluster import GangShape
from sweeps.scheduling.scheduler import Start
from sweeps.scheduling.tasks import Task
from tests.launch.engine.meeting_worker import Meeting


@pytest.fixture
def pool() -> Iterator[Pool]:
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
    found = Pool(worker=Meeting)
    found.refresh()
    yield found
    found.close()
    ray.shutdown()


def test_gangs_of_one_two_and_three_in_turn_meet_whole(pool: Pool) -> None:
    (node,) = pool.nodes
    draw, running = random.Random(0), list[list[Member]]()
    for size in (1, 2, 1, 1, 2, 1, 1, 1, 2, 3):
        while len(pool.busy) + size > 3:  # some gangs last longer than others
            pool.release(running.pop(draw.randrange(len(running))))
        task = Task("t", GangShape(size, 1, 0.0), "base", 1.0)
        gang = pool.take(Start(task, ((node, size),), warm=False))
        running.append(gang)
        phases = gang_phases(gang, None)
        phase, calls = next(phases)
        while phase == START:
            phase, calls = phases.send(ray.get(calls, timeout=200))
        assert ray.get(calls, timeout=200) == [list(range(size))] * size
