"""When a worker is renewed, and which idle ones a trial gets; without Ray."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from cinelora.core.cli import UserError
from launch.engine import pool
from launch.engine.pool import SHARDED, START, Member, Pool, gang_phases
from sweeps.scheduling.cluster import GangShape, Node
from sweeps.scheduling.scheduler import Start
from sweeps.scheduling.tasks import Task


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(pool.ray, "kill", found.append)
    monkeypatch.setattr(Pool, "_start", lambda self, node, shape: Member("new", node, shape.cpus, shape.gpus))
    return found


def idle_pool(*members: Member) -> Pool:
    return Pool(nodes={name: Node(name, 4, 0) for name in ("a", "b")}, idle=list(members))


def start(base: str, *places: tuple[str, int]) -> Start:
    return Start(Task("t", GangShape(sum(count for _, count in places), 1, 0.0), base, 1.0), places, warm=False)


def test_the_right_base_first_then_members_of_one_group(killed: list[Any]) -> None:
    one, two, other = (Member(name, "a", 1, 0.0, base) for name, base in (("1", "x"), ("2", "x"), ("3", "y")))
    found = idle_pool(other, two, one)
    one.group = two.group = [one, two]
    assert found.take(start("x", ("a", 2))) == [one, two], "in the order of their group"
    assert found.idle == [other] and killed == []
    (new, *_) = idle_pool(Member("4", "b", 2, 0.0)).take(start("x", ("a", 1)))
    assert new.actor == "new", "another node, another size"


class Process:
    """What a worker's process group is: an id that its members share, its rank and its size."""

    def __init__(self, groups: count[int]) -> None:
        self.groups, self.group = groups, (-1, 0, 1)
        self.address = Remote(lambda: ("here", next(groups)))
        self.join = Remote(self._join)
        self.run = Remote(lambda job: self.group)

    def _join(self, rank: int, size: int, address: str, port: int) -> int:
        self.group = (port, rank, size)
        return 1


class Remote:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


@pytest.mark.parametrize("seed", range(10))
def test_no_gang_of_changing_sizes_sits_in_two_process_groups(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    groups = count()
    monkeypatch.setattr(pool.ray, "kill", lambda actor: None)
    monkeypatch.setattr(
        Pool, "_start", lambda self, node, shape: self.busy.append(m := Member(Process(groups), node, 1, 0.0)) or m
    )
    draw = random.Random(seed)
    for _ in range(100):
        workers, running = idle_pool(), list[list[Member]]()
        for _ in range(12):
            while len(workers.busy) > 4 or (running and draw.random() < 0.6):
                workers.release(running.pop(draw.randrange(len(running))))
            places = draw.choice([[("a", 1)], [("a", 2)], [("b", 1)], [("a", 1), ("b", 1)], [("a", 2), ("b", 2)]])
            gang = workers.take(start("x", *places))
            running.append(gang)
            phases = gang_phases(gang, None)
            phase, results = next(phases)
            while phase == START:
                phase, results = phases.send(results)
            ids, ranks, sizes = zip(*results, strict=True)
            assert len(set(ids)) == 1 and list(ranks) == list(range(len(gang))) and set(sizes) == {len(gang)}


def test_a_sharded_base_needs_its_own_gang(killed: list[Any]) -> None:
    base = "x 2" + SHARDED
    gang = [Member(name, "a", 1, 0.0, base) for name in "12"]
    for member in gang:
        member.group = gang
    assert idle_pool(*gang).take(start(base, ("a", 2))) == gang
    assert [m.actor for m in idle_pool(*gang).take(start(base, ("a", 1), ("b", 1)))] == ["new", "new"]
    assert [m.actor for m in idle_pool(*gang).take(start("x", ("a", 1)))] == ["new"], "nor does another base take them"


def test_a_process_that_keeps_growing_is_renewed(killed: list[Any]) -> None:
    member = Member("1", "a", 1, 0.0, memory=[1.0, 2.0])
    found = Pool(busy=[member])
    found.release([member])
    assert found.idle == [member] and killed == []
    found.busy, found.idle = [member], []
    member.memory.append(1.0 + pool.RENEW_GIB + 0.1)
    found.release([member])
    assert found.idle == [] and found.busy == [] and killed == ["1"]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (Exception("The current node timed out during startup. This could ..."), "run the same command again"),
        (OSError("AF_UNIX path too long"), "set RAY_TMPDIR"),
    ],
)
def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, remedy: str) -> None:
    def init(**options: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(UserError, match=f"^Ray cannot start here.*{remedy}"):
        pool.connect("")
