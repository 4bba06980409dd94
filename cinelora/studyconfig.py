"""The settings of a study beside those of its trials: what to run them on, what to ask of them. Standard library only.

In: nothing. Out: plain dataclasses that Hydra fills (`launch/sweep.py`). None of them changes what a trial computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cinelora.config import TrialConfig, positive, require


class Wandb(Enum):
    offline = "offline"
    online = "online"
    off = "off"


@dataclass
class ClusterConfig:
    """Where trials run. One trial takes `workers_per_trial` processes of the given resources."""

    address: str = ""  # empty: a Ray of our own on this machine
    workers_per_trial: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: int = 0
    max_restarts: int = 3  # of one trial after a lost process or node

    def __post_init__(self) -> None:
        positive(self, "cluster", "workers_per_trial", "cpus_per_worker")
        for name in ("gpus_per_worker", "max_restarts"):
            require(getattr(self, name) >= 0, f"cluster.{name}", getattr(self, name), "must be 0 or more")


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
class StudyConfig(TrialConfig):
    """What Hydra composes: one trial, and where and how its study runs."""

    name: str = "study"
    study_dir: str = "studies/${name}"
    cache_dir: str = ".cache"
    plan_only: bool = False
    learning_rate_by_rank: dict[int, float] = field(default_factory=dict)  # wins over train.learning_rate
    learning_rate_by_targets: dict[str, dict[int, float]] = field(default_factory=dict)  # wins over both, per rank
    extra: list[str] = field(default_factory=list)  # trials beside the grid, e.g. "method=full seed=0,1"
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)

    def __post_init__(self) -> None:
        for name in ("name", "study_dir", "cache_dir"):
            require(bool(getattr(self, name).strip()), name, getattr(self, name), "must not be empty")
