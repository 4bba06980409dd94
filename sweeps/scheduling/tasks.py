"""What the scheduler knows of a trial, and which trial comes first. Standard library only.

In: a trial's spec, the cluster's settings, an estimate of its seconds. Out: a Task, and its place in the queue.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from cinelora.core.config import ClusterConfig, Method, TrialConfig
from cinelora.core.records import TrialSpec, resident_key
from sweeps.scheduling.cluster import GangShape

Key = tuple[float, ...]


@dataclass(frozen=True)
class Task:
    task_id: str
    shape: GangShape
    base: str  # identity of the resident base model that it needs
    seconds: float  # estimate; only order and backfill depend on it
    avoid: frozenset[str] = frozenset()  # nodes where it was lost: not used if there is any other way
    after: str = ""  # id of the task whose result it needs, if the scheduler has that task too
    silence: float = 0.0  # estimate of the longest time between two reports of its progress, in seconds


Order = Callable[[Task], Key]  # least first; within one shape it must take the longest first


def task_for(cluster: ClusterConfig, spec: TrialSpec, seconds: float, silence: float = 0.0) -> Task:
    """The task of a trial with both estimates. A base that ZeRO stage 3 shards fits gangs of its own size only."""
    config, count = spec.config, workers(cluster, spec.config)
    base = resident_key(spec)
    if config.zero.stage == 3:
        base = f"{count} {base}"
    return Task(spec.trial_id, shape(cluster, count), base, seconds, after=config.first, silence=silence)


def workers(cluster: ClusterConfig, config: TrialConfig) -> int:
    return cluster.workers(config.lora.rank if config.method is Method.lora else 0)


def shape(cluster: ClusterConfig, count: int) -> GangShape:
    return GangShape(count, cluster.cpus_per_worker, cluster.gpus)


def about(seconds: float) -> float:
    """Class of durations that count as equal, 10 % wide: estimates are no better than that."""
    return math.floor(math.log(max(seconds, 1e-9)) / math.log(1.1))


def longest_first(task: Task) -> Key:
    """Longest first, tasks of about one length by size: it leaves the least for the end of the sweep.

    Compared with other orders in `benchmarks/cluster.py`.
    """
    return -about(task.seconds), *(-part for part in task.shape.size)
