"""Schedules that one can draw by hand, and what must hold of all of them."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.cluster import ORDERS
from cinelora.core.config import ClusterConfig, Dtype, ModelConfig, TrialConfig
from cinelora.core.records import TrialSpec
from sweeps.scheduling.cluster import GangShape, Infeasible, Node
from sweeps.scheduling.scheduler import Scheduler, Start
from sweeps.scheduling.simulate import simulate
from sweeps.scheduling.tasks import Order, Task, longest_first, task_for

Places = dict[str, tuple[str, ...]]


def node(name: str, gpus: int = 4) -> Node:
    return Node(name, cpus=16, gpus=gpus)


def task(task_id: str, gpus: float, seconds: float, base: str = "wan", avoid: str = "") -> Task:
    """A gang with one worker per GPU."""
    workers = max(1, int(gpus))
    return Task(task_id, GangShape(workers, 1, gpus / workers), base, seconds, frozenset(avoid.split()))


def scheduler(*nodes: Node, tasks: tuple[Task, ...] = (), order: Order = longest_first) -> Scheduler:
    made = Scheduler(order)
    for item in nodes:
        made.add_node(item)
    for item in tasks:
        made.add(item)
    return made


def ids(starts: list[Start]) -> list[str]:
    return [start.task.task_id for start in starts]


def places(starts: list[Start]) -> dict[str, tuple[tuple[str, int], ...]]:
    return {start.task.task_id: start.places for start in starts}


def test_fillers_end_before_the_head_starts() -> None:
    """One node of 4:  0       8  10       19
    a a a a a a a a a a | h h h h |
    b b b b b b b b|d d | h h h h | c
    """
    tasks = [task("a", 2, 10), task("h", 4, 9), task("b", 2, 8), task("c", 2, 7), task("d", 2, 2)]
    runs = simulate(tasks, [node("n")])
    assert {run.task.task_id: run.start for run in runs} == {"a": 0, "b": 0, "d": 8, "h": 10, "c": 19}


def test_a_filler_may_outlast_the_start_of_the_head_on_what_it_leaves() -> None:
    """At 10 the head takes 2 of 4 GPUs: of the two long tasks that fit now one may stay."""
    made = scheduler(node("n"), tasks=(task("a", 2, 10),))
    assert ids(made.starts(0)) == ["a"]
    for item in (task("h", 3, 50), task("x", 1, 40), task("y", 1, 40)):
        made.add(item)
    assert ids(made.starts(5)) == ["x"]
    assert made.reservation is not None
    assert (made.reservation.task_id, made.reservation.time) == ("h", 10)
    made.finished("a", 10)
    assert ids(made.starts(10)) == ["h"]


def test_fillers_share_what_the_head_leaves() -> None:
    """The same with CPUs, and the head leaves 3 of 8."""
    made = scheduler(Node("n", 8, 0), tasks=(Task("a", GangShape(1, 3, 0), "wan", 10),))
    made.starts(0)
    for item in (
        Task("h", GangShape(1, 6, 0), "wan", 50),
        Task("x", GangShape(1, 2, 0), "wan", 40),
        Task("y", GangShape(2, 1, 0), "wan", 40),
    ):
        made.add(item)
    assert ids(made.starts(5)) == ["x"]


def test_the_head_is_reserved_gpus_that_are_busy_now() -> None:
    """a has the last two GPUs; if the head were to get the first three, the filler could not have one of them."""
    made = scheduler(node("n"), tasks=(task("first", 2, 20), task("a", 2, 10)))
    made.starts(0)
    made.finished("first", 5)
    made.add(task("h", 3, 50))
    made.add(task("x", 1, 40))
    assert ids(made.starts(5)) == ["x"]


def test_a_filler_takes_the_node_that_the_head_does_not_need() -> None:
    made = scheduler(node("m"), node("n"), tasks=(task("a", 3, 10), task("b", 3, 20)))
    assert places(made.starts(0)) == {"b": (("m", 3),), "a": (("n", 3),)}
    for item in (task("h", 4, 50), task("x", 1, 40), task("y", 1, 40)):
        made.add(item)
    assert places(made.starts(1)) == {"x": (("m", 1),)}, "the head waits for a's node"
    made.finished("a", 10)
    assert places(made.starts(10)) == {"h": (("n", 4),)}


def test_an_early_end_moves_the_reservation() -> None:
    """The head was to have n at 10; after b's early end it has m at 7, so y can go to n, and x would delay it."""
    made = scheduler(node("m"), node("n"), tasks=(task("a", 3, 10), task("b", 2, 20), task("c", 2, 7)))
    assert places(made.starts(0)) == {"b": (("m", 2),), "a": (("n", 3),), "c": (("m", 2),)}
    for item in (task("h", 4, 50), task("y", 1, 9.9), task("x", 2, 4)):
        made.add(item)
    assert made.starts(1) == []
    made.finished("b", 5)
    assert places(made.starts(5)) == {"y": (("n", 1),)}
    made.finished("c", 7)
    assert places(made.starts(7)) == {"h": (("m", 4),)}


def test_what_is_over_its_time_is_expected_to_end_now() -> None:
    made = scheduler(node("n"), tasks=(task("a", 3, 10),))
    made.starts(0)
    made.add(task("h", 4, 50))
    made.add(task("x", 1, 2))
    assert made.starts(12) == []
    assert made.reservation is not None
    assert made.reservation.time == 12


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_stream_of_small_ones_does_not_starve_a_large_one(order: Order) -> None:
    made = scheduler(node("n", 2), tasks=(task("s0", 1, 10), task("s1", 1, 10)), order=order)
    assert ids(made.starts(0)) == ["s0", "s1"]
    made.add(task("large", 2, 10))
    made.finished("s0", 4)  # the two are out of step now, so there is never a time at which both end
    for number in range(2, 30):
        made.add(task(f"s{number}", 1, 10))
    assert made.starts(4) == [], "each of them would end after 10"
    made.finished("s1", 10)
    assert ids(made.starts(10)) == ["large"]


def test_the_longest_first_then_the_largest() -> None:
    made = scheduler(node("n", 8), tasks=(task("x", 1, 100), task("y", 2, 100), task("z", 4, 50)))
    assert ids(made.starts(0)) == ["y", "x", "z"]
    made = scheduler(node("n", 8), tasks=(task("x", 1, 100, base="a"), task("y", 1, 104, base="b"), task("z", 2, 102)))
    assert ids(made.starts(0)) == ["z", "y", "x"], "about the same length, so by size, and then by length after all"


def test_best_fit_keeps_large_rooms_whole() -> None:
    made = scheduler(
        node("a", 4), node("b", 2), node("c", 1), tasks=(task("x", 1, 9), task("y", 2, 5), task("z", 4, 2))
    )
    assert places(made.starts(0)) == {"x": (("c", 1),), "y": (("b", 2),), "z": (("a", 4),)}


def test_a_gang_waits_for_one_node_if_one_can_hold_it_and_is_spread_evenly_otherwise() -> None:
    made = scheduler(node("a"), node("b"), tasks=(task("x", 2, 30), task("y", 3, 30)))
    assert places(made.starts(0)) == {"y": (("a", 3),), "x": (("b", 2),)}
    made.add(task("whole", 3, 9))
    assert made.starts(0) == []
    three = scheduler(node("a"), node("b"), node("c"), tasks=(task("six", 6, 5),))
    assert places(three.starts(0)) == {"six": (("a", 3), ("b", 3))}
    small = scheduler(node("a", 2), node("b", 2), node("c", 2), tasks=(task("six", 6, 5),))
    assert places(small.starts(0)) == {"six": (("a", 2), ("b", 2), ("c", 2))}


def test_cpus_count_too() -> None:
    made = scheduler(Node("a", 4, 8), Node("b", 9, 0))
    for item in (
        Task("gpu", GangShape(2, 2, 1), "", 9),
        Task("cpu", GangShape(3, 3, 0), "", 8),
        Task("more", GangShape(1, 1, 1), "", 7),
    ):
        made.add(item)
    assert places(made.starts(0)) == {"gpu": (("a", 2),), "cpu": (("b", 3),)}, "no CPU is left beside the 6 GPUs"


def test_fractions_share_a_gpu_only_as_far_as_it_goes() -> None:
    shares = tuple(task(f"t{number}", 0.6, 10 - number) for number in range(3))
    made = scheduler(node("n", 2), tasks=shares)
    assert ids(made.starts(0)) == ["t0", "t1"], "1.8 of 2 GPUs, but 0.6 is nowhere left"
    made.add(task("half", 0.4, 10))
    assert ids(made.starts(0)) == ["half"]
    thirds = scheduler(
        node("n", 2), tasks=(*(task(f"t{number}", 1 / 3, 9) for number in range(3)), task("whole", 1, 5))
    )
    assert ids(thirds.starts(0)) == ["t0", "t1", "t2", "whole"], "the thirds go together"
    later = scheduler(node("n", 2), tasks=(task("first", 1, 20), task("half", 0.5, 20)))
    later.starts(0)
    later.finished("first", 1, resident=False)
    later.add(task("second", 0.5, 20))
    later.add(task("whole", 1, 5))
    assert ids(later.starts(1)) == ["second", "whole"], "the halves too, though the first GPU is free"


def test_of_equals_the_one_whose_base_is_there_goes_first() -> None:
    made = scheduler(node("n", 1), tasks=(task("x", 1, 10, base="wan"),))
    assert not made.starts(0)[0].warm
    made.add(task("a", 1, 5, base="other"))
    made.add(task("b", 1, 5, base="wan"))
    made.finished("x", 10)
    starts = made.starts(10)
    assert (ids(starts), starts[0].warm) == (["b"], True)
    made.finished("b", 15)
    assert not made.starts(15)[0].warm
    made.finished("a", 20, resident=False)
    made.add(task("c", 1, 5, base="other"))
    assert not made.starts(20)[0].warm, "its workers are gone"


def test_of_fillers_of_one_size_the_one_whose_base_is_there_goes_first() -> None:
    made = scheduler(node("n", 2), tasks=(task("a", 1, 20, base="wan"), task("b", 1, 5, base="wan")))
    made.starts(0)
    made.finished("b", 5)
    for item in (task("h", 2, 50), task("p", 1, 9, base="other"), task("q", 1, 4, base="wan")):
        made.add(item)
    assert ids(made.starts(5)) == ["q"]


def test_idle_workers_with_other_bases_are_kept_where_possible() -> None:
    made = scheduler(node("n", 2), tasks=(task("x", 1, 9, base="p"), task("y", 1, 9, base="q")))
    made.starts(0)
    made.finished("x", 9)
    made.finished("y", 9)
    made.add(task("z", 1, 9, base="q"))
    assert made.starts(9)[0].warm
    made.add(task("w", 1, 9, base="p"))
    assert made.starts(9)[0].warm, "z has taken the worker of y"
    fresh = scheduler(node("n", 2), tasks=(task("x", 1, 9, base="p"),))
    fresh.starts(0)
    fresh.finished("x", 9)
    for item in (Task("v", GangShape(1, 3, 1), "p", 9), task("u", 1, 8, base="p")):
        fresh.add(item)
    assert [start.warm for start in fresh.starts(9)] == [False, True], "v needs a larger worker and takes the other GPU"


def test_idle_workers_in_the_way_are_gone() -> None:
    made = scheduler(node("n", 2), tasks=(task("x", 2, 9, base="p"),))
    made.starts(0)
    made.finished("x", 9)
    made.add(Task("y", GangShape(1, 1, 2), "q", 9))
    made.starts(9)
    made.finished("y", 18)
    made.add(task("z", 1, 9, base="p"))
    assert not made.starts(18)[0].warm


def test_a_longer_one_does_not_wait_for_the_base() -> None:
    made = scheduler(node("n", 1), tasks=(task("x", 1, 10, base="wan"),))
    made.starts(0)
    made.add(task("a", 1, 8, base="other"))
    made.add(task("b", 1, 5, base="wan"))
    made.finished("x", 10)
    assert ids(made.starts(10)) == ["a"]


def test_a_task_goes_where_its_base_is() -> None:
    made = scheduler(node("a", 1), node("b", 2), node("c", 1), tasks=(task("x", 2, 9, base="wan"),))
    made.starts(0)
    made.finished("x", 9)
    made.add(task("y", 1, 9, base="wan"))
    starts = made.starts(9)
    assert (starts[0].places, starts[0].warm) == ((("b", 1),), True), "best fit alone would take a"


def test_nodes_to_avoid_are_used_only_if_there_is_no_other_way() -> None:
    made = scheduler(node("a", 5), node("b"), tasks=(task("x", 4, 9, avoid="b"), task("y", 4, 5, avoid="b")))
    assert places(made.starts(0)) == {"x": (("a", 4),)}, "y waits though b is free"
    made.add(task("long", 4, 4.9))
    assert places(made.starts(5)) == {"long": (("b", 4),)}, "and b is not reserved for it"
    made.finished("long", 9.5)
    made.finished("x", 9)
    assert places(made.starts(9)) == {"y": (("a", 4),)}
    made.add(task("z", 4, 5, avoid="a b"))
    assert places(made.starts(9)) == {"z": (("b", 4),)}


def test_a_held_node_is_left_alone_until_then() -> None:
    made = scheduler(node("a"), tasks=(task("x", 2, 9), task("y", 2, 5)))
    made.hold("a", 60)
    assert (made.starts(0), made.starts(59)) == ([], [])
    assert ids(made.starts(60)) == ["x", "y"]


def test_the_end_of_a_hold_can_be_the_start_of_the_head() -> None:
    made = scheduler(node("a", 4), node("b", 2), tasks=(task("large", 4, 90), task("x", 2, 80), task("y", 4, 9)))
    made.hold("a", 10)
    assert places(made.starts(0)) == {"x": (("b", 2),)}
    assert made.reservation is not None
    assert made.reservation.time == 10
    assert ids(made.starts(10)) == ["large"]


def test_a_lost_node_takes_its_tasks_with_it() -> None:
    made = scheduler(node("a"), node("b"), tasks=(task("wide", 8, 9), task("x", 2, 5)))
    assert places(made.starts(0)) == {"wide": (("a", 4), ("b", 4))}
    lost = made.remove_node("b")
    assert [item.task_id for item in lost] == ["wide"]
    assert not made.running
    made.finished("wide", 1)  # its end is reported later and changes nothing
    assert places(made.starts(1)) == {"x": (("a", 2),)}, "what it had on the other node is free"
    with pytest.raises(Infeasible, match=r"wide: 8 x \(1 CPU, 1 GPU\): the cluster has 1 x \(16 CPU, 4 GPU\)"):
        made.add(replace(lost[0], avoid=frozenset("b")))


def test_what_can_no_longer_fit_delays_no_other_task() -> None:
    made = scheduler(node("a", 2), node("b", 4), tasks=(task("x", 4, 20), task("large", 4, 10), task("small", 1, 9)))
    made.starts(0)
    made.remove_node("b")
    made.add_node(node("c", 1))
    made.add(task("small2", 1, 9))
    assert [item.task_id for item in made.stranded] == ["large"]
    assert ids(made.starts(1)) == ["small2"]
    made.add_node(node("d", 4))
    assert places(made.starts(2)) == {"large": (("d", 4),)}


def test_infeasible_names_the_shape_and_the_cluster() -> None:
    made = scheduler(node("a"), node("b"), node("c", 2))
    message = r"t: 5 x \(1 CPU, 1 GPU\): the cluster has 1 x \(16 CPU, 2 GPU\), 2 x \(16 CPU, 4 GPU\); ask for less"
    with pytest.raises(Infeasible, match=message):
        made.add(task("t", 5, 1))
    assert made.waiting == ()
    with pytest.raises(Infeasible, match="no nodes"):
        Scheduler().add(task("t", 1, 1))


def test_one_name_one_task_and_one_node() -> None:
    made = scheduler(node("a"), tasks=(task("x", 1, 1),))
    with pytest.raises(ValueError, match="task x"):
        made.add(task("x", 2, 1))
    with pytest.raises(ValueError, match="node a"):
        made.add_node(node("a"))


def mixed(draw: random.Random, count: int) -> list[Task]:
    """Gangs of all kinds, few lengths, so that there are many equals."""
    shapes = [
        GangShape(1, 1, 0.5),
        GangShape(1, 2, 0),
        GangShape(6, 1, 0),
        *(GangShape(n, 1, 1) for n in (1, 2, 3, 4, 8)),
        GangShape(2, 2, 2),
    ]
    return [
        Task(f"t{number:03d}", draw.choice(shapes), draw.choice("pq"), draw.choice((3.0, 5.0, 8.0, 20.0)))
        for number in range(count)
    ]


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_order_of_adding_does_not_matter(order: Order) -> None:
    draw = random.Random(0)
    tasks, nodes = mixed(draw, 60), [node("a"), node("b"), node("c")]
    first = simulate(tasks, nodes, order)
    draw.shuffle(tasks)
    draw.shuffle(nodes)
    assert simulate(tasks, nodes, order) == first


@pytest.mark.parametrize("seed", range(10))
def test_no_head_starts_later_than_promised(seed: int) -> None:
    promised: dict[str, float] = {}

    def note(now: float, made: Scheduler) -> None:
        if made.reservation:
            promised.setdefault(made.reservation.task_id, made.reservation.time)

    order = list(ORDERS.values())[seed % len(ORDERS)]
    runs = simulate(mixed(random.Random(seed), 80), [node("a"), node("b"), node("c", 2)], order, watch=note)
    assert len(promised) > 3
    assert all(run.start <= promised.get(run.task.task_id, run.start) for run in runs)


def check_room(nodes: dict[str, Node], running: dict[str, Start]) -> None:
    """Count what is in use independently of the scheduler. Fractions are halves, so two of them make a GPU."""
    cpus, whole, halves = Counter[str](), Counter[str](), Counter[str]()
    for start in running.values():
        shape = start.task.shape
        assert sum(workers for _, workers in start.places) == shape.workers
        assert len({workers for _, workers in start.places}) == 1
        for name, workers in start.places:
            cpus[name] += workers * shape.cpus
            whole[name] += workers * int(shape.gpus)
            halves[name] += shape.gpus == 0.5
    assert all(cpus[name] <= nodes[name].cpus for name in cpus), cpus
    assert all(whole[name] + (halves[name] + 1) // 2 <= nodes[name].gpus for name in whole), (whole, halves)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_nothing_is_overbooked_and_all_is_finished(seed: int) -> None:
    """True times differ from the estimates; nodes are lost, held and added; lost tasks come again."""
    draw = random.Random(seed)
    nodes = {name: node(name) for name in "abc"}
    made = scheduler(*nodes.values(), tasks=tuple(mixed(draw, 60)), order=list(ORDERS.values())[seed % len(ORDERS)])
    running, done, ends, now = dict[str, Start](), list[str](), list[tuple[float, str]](), 0.0
    while made.waiting or made.running:
        for start in made.starts(now):
            running[start.task.task_id] = start
            heapq.heappush(ends, (now + start.task.seconds * draw.uniform(0.5, 1.5), start.task.task_id))
        check_room(nodes, running)
        assert set(made.running) == set(running)
        event = draw.random()
        if event < 0.05:
            name = draw.choice(sorted(nodes))
            fresh = f"{name}'"
            made.add_node(node(fresh))
            nodes[fresh] = node(fresh)
            lost = made.remove_node(name)
            del nodes[name]
            for item in lost:
                del running[item.task_id]
                made.add(replace(item, avoid=item.avoid | {name}))
            ends = sorted(end for end in ends if end[1] in running)
        elif event < 0.15:
            made.hold(draw.choice(sorted(nodes)), now + 4)
        elif ends:
            now, task_id = heapq.heappop(ends)
            made.finished(task_id, now, resident=draw.random() < 0.8)
            del running[task_id]
            done.append(task_id)
        else:
            now = max(made.cluster.held.values())
    assert sorted(done) == [f"t{number:03d}" for number in range(60)]


def test_a_task_waits_for_the_result_it_needs() -> None:
    """`second` is longest and would fit too, but waits for the result of `first`; if `first` fails, it is dropped."""
    chain = [
        task("first", 2, 5),
        replace(task("second", 1, 90), after="first"),
        replace(task("third", 1, 1), after="second"),
    ]
    made = scheduler(node("a"), tasks=tuple(chain))
    assert ids(made.starts(0)) == ["first"] and made.dependent == 2
    made.finished("first", 5)
    assert ids(made.starts(5)) == [], "it ended, but perhaps without a result"
    made.has_result("first")
    assert ids(made.starts(5)) == ["second"] and made.dependent == 1
    made.finished("second", 9)
    assert [each.task_id for each in made.has_none("second")] == ["third"]
    made.add(replace(chain[2], after="gone"))  # nobody by that name in the books: nothing to wait for
    assert ids(made.starts(9)) == ["third"]
    runs = simulate(chain, [node("a")])
    assert [(run.task.task_id, run.start) for run in runs] == [("first", 0), ("second", 5), ("third", 95)]


def test_what_a_worker_keeps_depends_on_all_that_is_loaded() -> None:
    def base(fingerprints: dict[str, str] | None = None, **model: Any) -> str:
        config = TrialConfig(model=ModelConfig(**model))
        spec = TrialSpec("t", config, {"model": "m", "data": "d", "tnv2": "w"} | (fingerprints or {}))
        return task_for(ClusterConfig(), spec, 1.0).base

    assert base() == base({"data": "other clips"})
    others = [base({"tnv2": "other"}), base({"i3d": "x"}), base(compile=True), base(short_text=True)]
    others += [base(dtype=Dtype.bfloat16), base(attention="_native_flash")]
    assert len({base(), *others}) == 7
