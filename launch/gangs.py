"""Gangs: N long-lived workers in one Ray placement group, one process group, one resident base.

In: a shape (workers and their resources). Out: a gang that takes job after job. A gang that lost a process
is thrown away and replaced; it never repairs itself.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cinelora.errors import UserError
from cinelora.studyconfig import ClusterConfig
from launch.worker import Worker

START_SECONDS = 300  # imports on a cold disk, process group
CONNECT_SECONDS = 90
PLACE_SECONDS = 30  # for the resources; a shared cluster may never free them


@dataclass(frozen=True)
class Shape:
    """What one trial occupies."""

    workers: int
    cpus: int  # per worker
    gpus: int  # per worker

    @staticmethod
    def of(cluster: ClusterConfig) -> Shape:
        return Shape(cluster.workers_per_trial, cluster.cpus_per_worker, cluster.gpus_per_worker)


@dataclass(frozen=True)
class Node:
    cpus: int
    gpus: int


@dataclass
class Gang:
    shape: Shape
    group: Any
    workers: list[Any]
    pids: list[int] = field(default_factory=list)


def workers_that_fit(node: Node, shape: Shape) -> int:
    by_gpu = node.gpus // shape.gpus if shape.gpus else math.inf
    return int(min(node.cpus // shape.cpus, by_gpu))


def bundles(shape: Shape, nodes: list[Node]) -> tuple[list[dict[str, float]], str]:
    """One bundle per node with that node's share of the workers: STRICT_PACK on one, STRICT_SPREAD on several.

    Raises UserError when the cluster can never hold the gang: Ray itself would wait for ever.
    """
    room = sorted((workers_that_fit(node, shape) for node in nodes), reverse=True)
    for count in range(1, len(room) + 1):
        share = math.ceil(shape.workers / count)
        if shape.workers % count == 0 and room[count - 1] >= share:
            bundle = {"CPU": float(share * shape.cpus), "GPU": float(share * shape.gpus)}
            return [bundle] * count, "STRICT_PACK" if count == 1 else "STRICT_SPREAD"
    raise UserError(
        f"cluster.workers_per_trial={shape.workers} x ({shape.cpus} CPU, {shape.gpus} GPU): the cluster has "
        f"{', '.join(f'{n.cpus} CPU {n.gpus} GPU' for n in nodes)}; ask for less or add nodes"
    )


def gangs_that_fit(shape: Shape, nodes: list[Node]) -> int:
    """How many gangs of this shape the empty cluster holds at once, at least 1 if `bundles` accepts it."""
    room = [workers_that_fit(node, shape) for node in nodes]
    packed = sum(fit // shape.workers for fit in room)
    return max(1, packed or sum(room) // shape.workers)  # packed gangs live on one node each, spread ones alone


def connect(address: str) -> None:
    """Join the cluster, or start a Ray of our own on this machine, on loopback and without dashboard."""
    own = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, **own}
    watchdog = threading.Timer(CONNECT_SECONDS, _give_up, [address or "local"])
    watchdog.start()
    try:
        ray.init(address=address or "local", **options)
    finally:
        watchdog.cancel()


def _give_up(address: str) -> None:
    """Leave at once: Ray waits many minutes for a cluster that is gone, deaf to signals. Nothing is lost yet."""
    print(
        f"cinelora: cluster.address={address}: no Ray answered within {CONNECT_SECONDS} s; start it with "
        "`ray start --head`, or leave the address empty to use this machine",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def cluster_nodes() -> list[Node]:
    """Live nodes of the connected cluster."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in alive if r.get("CPU", 0) >= 1]


def start_gang(shape: Shape, nodes: list[Node]) -> Gang:
    """Place and start the workers and let them join one process group."""
    parts, strategy = bundles(shape, nodes)
    group = placement_group([{k: v for k, v in part.items() if v} for part in parts], strategy=strategy)
    try:
        ray.get(group.ready(), timeout=PLACE_SECONDS)
        share = shape.workers // len(parts)
        workers = [_start_worker(shape, group, index // share) for index in range(shape.workers)]
        address, port = ray.get(workers[0].address.remote(), timeout=START_SECONDS)
        joins = [w.join.remote(rank, shape.workers, address, port) for rank, w in enumerate(workers)]
        return Gang(shape, group, workers, ray.get(joins, timeout=START_SECONDS))
    except Exception:
        remove_placement_group(group)
        raise


def _start_worker(shape: Shape, group: Any, bundle: int) -> Any:
    environment = {"OMP_NUM_THREADS": str(shape.cpus), "TOKENIZERS_PARALLELISM": "false"}
    options = {
        "num_cpus": shape.cpus,
        "num_gpus": shape.gpus,
        "runtime_env": {"env_vars": environment},
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle),
    }
    return ray.remote(Worker).options(**options).remote(shape.cpus)


def stop_gang(gang: Gang) -> None:
    """Kill the workers and give the resources back."""
    for worker in gang.workers:
        ray.kill(worker)
    remove_placement_group(gang.group)
