"""The same trials under other launchers: what `benchmarks/engine.py` starts, each in a process of its own.

    python -m benchmarks.peers tune CACHE TRIAL_FOLDER...                          Ray Tune, a TorchTrainer each
    python -m benchmarks.peers --multirun hydra/launcher=ray +cache=.. +trial=A,B  hydra-ray-launcher

In: folders with a spec.json, an encoding cache. Out: each folder's result.json, and slot.json: when its trial began and
ended as its launcher sees it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

AT_ONCE = 2


def run_one(folder: str, cache: str) -> None:
    """One trial in this process, as `python -m cinelora.trial` runs it."""
    import torch

    from cinelora import distributed
    from cinelora.core.config import TrackingConfig, Wandb
    from cinelora.core.files import read_json
    from cinelora.core.paths import StudyFolder
    from cinelora.core.records import TrialSpec
    from cinelora.trial.job import Job
    from cinelora.trial.resident import load_resident_model
    from cinelora.trial.run import run_trial

    torch.set_num_threads(1)
    root = Path(folder)
    spec = TrialSpec.from_json(read_json(root / "spec.json"))
    study = StudyFolder(root.parent.parent)
    job = Job(spec, study, study.root.name, Path(cache), TrackingConfig(wandb=Wandb.off))
    distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    run_trial(job, load_resident_model(job), lambda stage, done, total, loss: None)


def timed(folder: str, work: Any) -> None:
    from cinelora.core.files import write_json

    started = time.time()
    work()
    write_json(Path(folder) / "slot.json", {"started": started, "ended": time.time()})


def tune(cache: str, folders: list[str]) -> None:
    """Ray's own pattern: a Tune function that builds a TorchTrainer and fits it."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune import RunConfig as TuneRunConfig
    from ray.tune import TuneConfig, Tuner, grid_search

    storage = str(Path(folders[0]).parent.parent / "ray")
    ray.init("local", num_cpus=2 * AT_ONCE, include_dashboard=False, log_to_driver=False)

    def loop(config: dict[str, Any]) -> None:
        run_one(config["folder"], config["cache"])

    def trial(config: dict[str, Any]) -> None:
        name = Path(config["folder"]).name
        trainer = TorchTrainer(
            loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1, use_gpu=False),
            run_config=RunConfig(name=name, storage_path=storage),
        )
        timed(config["folder"], trainer.fit)

    Tuner(
        trial,
        param_space={"folder": grid_search(folders), "cache": cache},
        tune_config=TuneConfig(max_concurrent_trials=AT_ONCE),
        run_config=TuneRunConfig(name="tune", storage_path=storage),
    ).fit()


@hydra.main(version_base="1.3", config_path=None)
def hydra_app(config: DictConfig) -> None:
    timed(config.trial, lambda: run_one(config.trial, config.cache))


if __name__ == "__main__":
    if sys.argv[1] == "tune":
        tune(sys.argv[2], sys.argv[3:])
    else:
        hydra_app()
