"""When a worker is renewed, and which idle ones a trial gets; without Ray."""

from __future__ import annotations

from typing import Any

import pytest

from launch.engine import pool
from launch.engine.pool import SHARDED, Member, Pool
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
