"""The pool of workers: long-lived processes on known nodes, from which each trial's gang is formed.

In: what the scheduler decided, a task and its places. Out: members in rank order, idle ones with the right base first.
A member that fails is discarded. Ray starts, finds and kills the processes; what runs where is decided in
`sweeps/scheduling/scheduler.py`, so nothing ever waits in Ray's own queue.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cinelora.core.cli import UserError, clock
from cinelora.trial.job import Job
from launch.engine.worker import Worker
from sweeps.scheduling.cluster import GangShape, Node
from sweeps.scheduling.scheduler import Start

ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
SHARDED = " sharded"  # ends the name of a base that ZeRO stage 3 has sharded over its gang
CONNECT_SECONDS = 90
BUSY = "its processes did not answer in time, as on a very busy machine; run the same command again"
ANSWER_SECONDS = 10
JOIN_SECONDS = 300
RENEW_GIB = 4.0  # growth of a process over its first trial
START, RUN = "start", "run"  # phases of a gang
Calls = list[Any]  # Ray's references to the results
Phases = Generator[tuple[str, Calls], list[Any], None]  # yields a phase and its calls, is sent their results


def connect(address: str) -> None:
    """Join the cluster, or start a Ray of our own here: loopback only, no dashboard. Raises UserError."""
    own: dict[str, Any] = {}
    if address:
        _check_answers(address)
    else:
        own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # a notice that a token protects it
    watchdog = threading.Timer(CONNECT_SECONDS, _give_up, [address])
    watchdog.start()
    try:
        ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **own)
    except Exception as error:  # Ray raises a plain Exception where its own processes are slow to start
        raise UserError(_why_not(address, str(error))) from error
    finally:
        watchdog.cancel()


def _check_answers(address: str) -> None:
    """Raises UserError if nothing listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        if host:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = f"start it there with `ray start --head --port={port}`, or leave the address empty to use this machine"
        raise UserError(f"cluster.address={address}: no Ray answers there ({reason}); {remedy}") from error


def _why_not(address: str, error: str) -> str:
    """One line for what Ray raised."""
    first = next(iter(error.splitlines()), "")
    if not address and "timed out" in first:
        return f"Ray cannot start here: {BUSY}"
    if not address:
        return f"Ray cannot start here ({first}); set RAY_TMPDIR to a short path with free space, e.g. /tmp"
    remedy = "export RAY_AUTH_MODE=token and the RAY_AUTH_TOKEN with which its nodes were started"
    return f"cluster.address={address}: Ray cannot be joined ({first}); {remedy}"


def wait_for_nodes(wanted: int, seconds: float = JOIN_SECONDS) -> None:
    """Wait until so many nodes have joined, since a gang that is larger than what has joined would be refused."""
    until, seen = time.monotonic() + seconds, 0
    while True:
        joined = sum(bool(node["Alive"]) for node in ray.nodes())
        if joined >= wanted:
            return
        if joined != seen:
            print(f"waiting for nodes: {joined} of {wanted} have joined", flush=True)
        if time.monotonic() > until:
            print(
                f"cluster.nodes={wanted}: {joined} joined within {clock(seconds)}; the sweep starts on these",
                flush=True,
            )
            return
        seen = joined
        time.sleep(1)


def _give_up(address: str) -> None:
    """Exit at once: Ray waits many minutes for a cluster that is gone and ignores signals. Nothing is lost yet."""
    joined = (
        f"cluster.address={address}: no Ray answered within {CONNECT_SECONDS} s; start it with `ray start --head`, "
        "or leave the address empty to use this machine"
    )
    print(f"cinelora: {joined if address else f'Ray cannot start here: {BUSY}'}", file=sys.stderr, flush=True)
    os._exit(2)


@dataclass(eq=False)
class Member:
    """One worker process. `group`: the members of its process group, in rank order; all of them hold the same list."""

    actor: Any
    node: str
    cpus: int
    gpus: float
    base: str = ""
    group: list[Member] = field(default_factory=list)
    pid: int = 0
    memory: list[float] = field(default_factory=list)  # GiB it held after each of its trials

    def leave_group(self) -> None:
        """A process group that one member leaves is none any more for its peers."""
        for peer in self.group.copy():
            peer.group = []

    @property
    def worn(self) -> bool:
        """Whether its memory has grown so much that a new process should take its place."""
        return bool(self.memory) and self.memory[-1] - self.memory[0] > RENEW_GIB

    @property
    def sharded(self) -> bool:
        return self.base.endswith(SHARDED)


def gang_phases(members: list[Member], job: Job) -> Phases:
    """What a gang does for a trial: form a process group, unless its members are one already, then run it."""
    group = members[0].group
    if group != members or any(member.group is not group for member in members):
        for member in members:
            member.leave_group()
        ((address, port),) = yield START, [members[0].actor.address.remote()]
        size = len(members)
        pids = yield START, [member.actor.join.remote(rank, size, address, port) for rank, member in enumerate(members)]
        group = list(members)  # one object: its identity is that of the process group
        for member, pid in zip(members, pids, strict=True):
            member.group, member.pid = group, pid
    yield RUN, [member.actor.run.remote(job) for member in members]


@dataclass
class Pool:
    """Members that are alive: the idle and the busy."""

    nodes: dict[str, Node] = field(default_factory=dict)
    idle: list[Member] = field(default_factory=list)
    busy: list[Member] = field(default_factory=list)
    worker: Any = Worker  # the class of the actors

    def take(self, start: Start) -> list[Member]:
        """Members for the start in rank order, now busy. Missing ones are started, idle ones in their way killed.

        A sharded base needs the gang that sharded it, or new processes.
        """
        task = start.task
        if task.base.endswith(SHARDED) and (gang := self._same_gang(start)):
            self._occupy(gang)
            return gang
        chosen = [
            member for node, count in start.places for member in self._recruit(node, task.shape, task.base, count)
        ]
        for member in chosen:
            member.base = task.base
        return chosen

    def crew(self, shape: GangShape, most: int) -> list[Member]:
        """Up to `most` members on all nodes, now busy, for work that needs no gang."""
        places = []
        for name, node in self.nodes.items():
            fits = min(node.cpus // shape.cpus, int(node.gpus / shape.gpus) if shape.gpus else most)
            places += [name] * fits
        return [member for name in places[:most] for member in self._recruit(name, shape, "", 1)]

    def _recruit(self, node: str, shape: GangShape, base: str, count: int) -> list[Member]:
        """Members on this node, now busy: idle ones with the base, then other idle ones, then new ones.

        Idle members of one group stay together. A sharded base goes with its own gang only.
        """
        fitting = [
            member
            for member in self.idle
            if member.node == node and (member.cpus, member.gpus) == (shape.cpus, shape.gpus) and not member.sharded
        ]
        fitting.sort(key=lambda m: (m.base != base, id(m.group), m.group.index(m) if m in m.group else 0))
        own = [] if base.endswith(SHARDED) else fitting[:count]
        self._occupy(own)
        return own + [self._start(node, shape) for _ in range(count - len(own))]

    def _occupy(self, members: list[Member]) -> None:
        self.idle = [member for member in self.idle if member not in members]
        self.busy += members

    def release(self, members: Sequence[Member]) -> None:
        """Make them idle; worn members are discarded, and a gang with a sharded base is then not used again."""
        for member in members:
            self.busy.remove(member)
            self.idle.append(member)
        self.discard([member for member in members if member.worn])

    def replaced(self, member: Member, shape: GangShape) -> Member:
        """A new busy member for one that is lost: on its node, or on another if that is gone too."""
        self.discard([member])
        self.refresh()
        return self._start(member.node if member.node in self.nodes else next(iter(self.nodes)), shape)

    def refresh(self) -> None:
        """Read the nodes from Ray. The idle members of a node that is gone are forgotten."""
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        self.nodes = {
            name: Node(name, int(r.get("CPU", 0)), int(r.get("GPU", 0)))
            for name, r in sorted(alive.items())
            if r.get("CPU", 0) >= 1
        }
        self.idle = [member for member in self.idle if member.node in self.nodes]

    def discard(self, members: Iterable[Member]) -> None:
        """Kill them, idle or busy."""
        for member in members:
            ray.kill(member.actor)
            for group in (self.busy, self.idle):
                if member in group:
                    group.remove(member)

    def close(self) -> None:
        self.discard([*self.idle, *self.busy])

    def _same_gang(self, start: Start) -> list[Member] | None:
        """The idle gang that holds this sharded base on these places."""
        for member in self.idle:
            group = member.group
            if member.base == start.task.base and all(peer in self.idle for peer in group):
                places = [(node, sum(peer.node == node for peer in group)) for node, _ in start.places]
                if places == list(start.places) and len(group) == start.task.shape.workers:
                    return group
        return None

    def _start(self, node: str, shape: GangShape) -> Member:
        self._make_room(node, shape)
        environment = {"OMP_NUM_THREADS": str(shape.cpus), "TOKENIZERS_PARALLELISM": "false"}
        if shape.gpus:  # segments of fixed sizes leave gaps that a 14B step at 81 frames cannot afford
            environment[ALLOCATOR] = os.environ.get(ALLOCATOR, "expandable_segments:True")
        options = {
            "num_cpus": shape.cpus,
            "num_gpus": shape.gpus,
            "runtime_env": {"env_vars": environment},
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }
        member = Member(ray.remote(self.worker).options(**options).remote(shape.cpus), node, shape.cpus, shape.gpus)
        self.busy.append(member)
        return member

    def _make_room(self, node: str, shape: GangShape) -> None:
        """Kill idle members of the node until one of this shape fits."""
        limit = self.nodes[node]
        here = [member for member in [*self.idle, *self.busy] if member.node == node]
        cpus, gpus = sum(m.cpus for m in here), sum(m.gpus for m in here)
        for member in [m for m in self.idle if m.node == node]:
            if cpus + shape.cpus <= limit.cpus and gpus + shape.gpus <= limit.gpus:
                return
            self.discard([member])
            cpus, gpus = cpus - member.cpus, gpus - member.gpus
