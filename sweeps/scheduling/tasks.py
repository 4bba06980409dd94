"""What a trial asks of the cluster: workers, shape of the gang, seconds."""

from __future__ import annotations

from cinelora.core.config import ClusterConfig, Method
from cinelora.core.records import TrialSpec
from sweeps.scheduling.scheduler import GangShape, Task


def task_for(cluster: ClusterConfig, spec: TrialSpec, seconds: float) -> Task:
    """What the scheduler knows of a trial; `seconds` is a guess.

    A base that ZeRO stage 3 shards fits gangs of its own size only.
    """
    config, count = spec.config, workers(cluster, spec)
    base = f"{spec.fingerprints['model']} {config.model.dtype.value}"
    base += f" {count} sharded" if config.zero.stage == 3 else ""
    return Task(spec.trial_id, shape(cluster, count), base, seconds, after=config.first)


def workers(cluster: ClusterConfig, spec: TrialSpec) -> int:
    return cluster.workers(spec.config.lora.rank if spec.config.method is Method.lora else 0)


def shape(cluster: ClusterConfig, count: int) -> GangShape:
    return GangShape(count, cluster.cpus_per_worker, cluster.gpus_per_worker)
