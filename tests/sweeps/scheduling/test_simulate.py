"""Simulated sweeps and the lower bound, with answers that can be checked by hand."""

from __future__ import annotations

import random

import pytest

from benchmarks.cluster import ORDERS, lower_bound
from sweeps.scheduling.cluster import GangShape, Infeasible, Node
from sweeps.scheduling.simulate import makespan, simulate
from sweeps.scheduling.tasks import Task

EIGHT = [Node("n", cpus=32, gpus=8)]


def gangs(*sizes_and_seconds: tuple[int, float]) -> list[Task]:
    """Gangs (GPUs, seconds) with one worker per GPU."""
    return [Task(f"t{n}", GangShape(gpus, 1, 1), "wan", seconds) for n, (gpus, seconds) in enumerate(sizes_and_seconds)]


def test_runs_have_their_true_times_and_places() -> None:
    """The estimates let t2 go first; t1 turns out long, so t3 takes the place that t2 leaves."""
    runs = simulate(gangs((4, 10), (2, 8), (2, 6), (2, 4)), EIGHT, actual={"t1": 12.0})
    found = [(run.task.task_id, run.start, run.end, run.places, run.warm) for run in runs]
    assert found == [
        ("t0", 0, 10, (("n", 4),), False),
        ("t1", 0, 12, (("n", 2),), False),
        ("t2", 0, 6, (("n", 2),), False),
        ("t3", 6, 10, (("n", 2),), True),
    ]
    assert makespan(runs) == 12
    assert makespan(simulate([], EIGHT)) == 0


def test_an_overlong_task_does_not_stop_the_sweep() -> None:
    """t0 was to end at 10 and the head t1 waits for it; t2 would end after that, so it waits too."""
    runs = simulate(gangs((6, 10), (8, 9), (2, 8), (2, 4)), EIGHT, actual={"t0": 30.0})
    assert {run.task.task_id: run.start for run in runs} == {"t0": 0, "t2": 0, "t1": 30, "t3": 39}


@pytest.mark.parametrize(
    ("tasks", "bound"),
    [
        (gangs((8, 10), (4, 6)), 13),  # area: (80 + 24) / 8
        (gangs((1, 30), (2, 1)), 30),  # the longest
        (gangs((5, 10), (5, 8), (3, 1)), 18),  # area 11.6, but two gangs of 5 do not go on 8
        (gangs(*[(1, 10.0)] * 9), 20),  # area 11.25, but one GPU has two of them
        (gangs(*[(3, 10.0)] * 5), 30),  # two at a time
        ([Task("t", GangShape(3, 8, 0), "", 5), Task("u", GangShape(1, 24, 1), "", 5)], 10),  # 24 of 32 CPUs each
        ([Task(f"t{n}", GangShape(1, 1, 0.5), "", 4) for n in range(17)], 8),  # halves: 16 at a time
    ],
)
def test_lower_bound(tasks: list[Task], bound: float) -> None:
    assert lower_bound(tasks, EIGHT) == pytest.approx(bound)


def test_bound_of_gangs_over_several_nodes() -> None:
    nodes = [Node(name, 32, 8) for name in "abc"]
    assert lower_bound(gangs(*[(5, 10)] * 4), nodes) == 20, "one on each node, though there are GPUs for four"
    assert lower_bound(gangs((16, 10), (16, 10)), nodes) == 20, "three nodes, two for each"
    with pytest.raises(Infeasible, match="t0: 5 x"):
        lower_bound(gangs((5, 1)), [Node("a", 32, 4)])


@pytest.mark.parametrize("seed", range(20))
def test_no_schedule_beats_the_bound(seed: int) -> None:
    draw = random.Random(seed)
    nodes = [Node(name, draw.randint(4, 12), draw.choice((2, 4, 8))) for name in "abc"]
    shapes = [GangShape(1, 1, 0.5), GangShape(1, 3, 0), GangShape(1, 1, 1), GangShape(2, 1, 1), GangShape(1, 2, 2)]
    tasks = [Task(f"t{n}", draw.choice(shapes), "", draw.lognormvariate(1, 1)) for n in range(draw.randint(1, 25))]
    bound = lower_bound(tasks, nodes)
    for order in ORDERS.values():
        ratio = makespan(simulate(tasks, nodes, order)) / bound
        assert 1 - 1e-9 <= ratio < 2
