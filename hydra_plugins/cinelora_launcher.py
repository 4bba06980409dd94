"""The Hydra launcher plugin: a thin name that Hydra finds; the work is in `launch/launcher.py`.

Every Hydra program on this machine imports this file at start, so nothing heavy is imported here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class CineloraLauncherConfig:
    _target_: str = "hydra_plugins.cinelora_launcher.CineloraLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="cinelora", node=CineloraLauncherConfig, provider="cinelora")


class CineloraLauncher(Launcher):
    """Turns Hydra's override lists into trials of one study and runs what is missing of it."""

    def __init__(self) -> None:
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig, **_: Any) -> None:
        self.hydra_context, self.config = hydra_context, config
        _compose_once(hydra_context.config_loader)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from launch.launcher import launch_jobs

        assert self.hydra_context is not None and self.config is not None
        return launch_jobs(self.hydra_context, self.config, job_overrides, initial_job_idx)


def _compose_once(loader: Any) -> None:
    """Hydra's sweeper composes every job to see whether it can be, and drops the result; `launch` takes it instead of
    composing it again, 0.2 s a job."""
    compose = loader.load_sweep_config
    kept: dict[tuple[str, ...], DictConfig] = {}

    def composed(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key in kept:
            return kept.pop(key)
        kept[key] = tree = compose(master_config, sweep_overrides)
        return tree

    loader.load_sweep_config = composed
