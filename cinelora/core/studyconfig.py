"""The settings of a study beside those of its trials: what to run them on, what to ask of them. Standard library only.

In: nothing. Out: plain dataclasses that Hydra fills (`launch/sweep.py`). None of them changes what a trial computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cinelora.core.config import DataConfig, LoraConfig, TrainConfig, TrialConfig, positive, require


class Wandb(Enum):
    offline = "offline"
    online = "online"
    off = "off"


class Prune(Enum):
    """How learning rates that fall behind are ended early, `sweeps/prune.py`."""

    off = "off"
    median = "median"
    halving = "halving"


@dataclass
class ClusterConfig:
    """Where trials run. One trial takes `workers_per_trial` processes of the given resources."""

    address: str = ""  # empty: a Ray of our own on this machine
    workers_per_trial: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0  # below 1: trials of one worker share a GPU
    workers_by_rank: dict[int, int] = field(default_factory=dict)  # wins over workers_per_trial
    max_restarts: int = 3  # of one trial after a lost process or node, or a hang
    hang_seconds: float = 1800.0  # without a word from a trial until its gang is killed; loading a base is silent
    free_disk_gib: float = 1.0  # with less in the study's disk, no trial starts
    device: str = ""  # of a worker, e.g. A100: lets the plan tell the cost before any trial has run
    nodes: int = 0  # of the cluster, for the plan alone; 0: unknown
    cpus_per_node: int = 64
    gpus_per_node: int = 8
    price_per_gpu_hour: float = 0.0  # in your money; 0: not told

    def __post_init__(self) -> None:
        positive(self, "cluster", "workers_per_trial", "cpus_per_worker", "hang_seconds", "cpus_per_node")
        for name in (
            "gpus_per_worker",
            "max_restarts",
            "free_disk_gib",
            "nodes",
            "gpus_per_node",
            "price_per_gpu_hour",
        ):
            require(getattr(self, name) >= 0, f"cluster.{name}", getattr(self, name), "must be 0 or more")
        for rank, workers in self.workers_by_rank.items():
            require(rank > 0 and workers > 0, "cluster.workers_by_rank", self.workers_by_rank, "give rank: workers")
        whole = self.gpus_per_worker == int(self.gpus_per_worker)
        shared = self.gpus_per_worker < 1 and self.workers_per_trial == 1 and not self.workers_by_rank
        require(
            whole or shared,
            "cluster.gpus_per_worker",
            self.gpus_per_worker,
            "must be whole, or below 1 with one worker a trial: workers of one gang cannot share a GPU",
        )

    def workers(self, rank: int) -> int:
        """Of a trial of this rank; 0 is a trial without adapter."""
        return self.workers_by_rank.get(rank, self.workers_per_trial)


@dataclass
class TrackingConfig:
    """Weights & Biases as a mirror of the ledger."""

    wandb: Wandb = Wandb.offline
    project: str = "cinelora"


@dataclass
class AnswerConfig:
    """What counts as enough, fixed before anyone looks. `share` of the best rank's gain over the base, 0..1."""

    share: float = 0.9

    def __post_init__(self) -> None:
        require(0 < self.share < 1, "answer.share", self.share, "must lie between 0 and 1, e.g. 0.9")


@dataclass
class StageConfig:
    """The first of two stages: one adapter of its own, trained before and frozen under every trial of the study.

    Model, ZeRO, sampling and scoring are those of the study. It is a trial like any other, in the arm "first stage".
    """

    enabled: bool = False
    seed: int = 0  # one for all trials, so that they differ in their own stage alone
    data: DataConfig = field(default_factory=DataConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class StudyConfig(TrialConfig):
    """What Hydra composes: one trial, and where and how its study runs."""

    name: str = "study"
    study_dir: str = "studies/${name}"
    cache_dir: str = ".cache"
    plan_only: bool = False
    learning_rate_by_rank: dict[int, float] = field(default_factory=dict)  # wins over train.learning_rate
    learning_rate_by_targets: dict[str, dict[int, float]] = field(default_factory=dict)  # wins over both, per rank
    fail_fast: bool = False  # a failed trial stops the sweep; else the others go on
    prune: Prune = Prune.off  # among the learning rates of one rank, never between ranks
    stage1: StageConfig = field(default_factory=StageConfig)
    extra: list[str] = field(default_factory=list)  # trials beside the grid, e.g. "method=full seed=0,1"
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)

    def __post_init__(self) -> None:
        for name in ("name", "study_dir", "cache_dir"):
            require(bool(getattr(self, name).strip()), name, getattr(self, name), "must not be empty")
