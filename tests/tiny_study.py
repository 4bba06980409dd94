"""A whole study at the smallest size: synthetic clips as real video files, the built-in model, real encodings.

Used by tests that need a Job; everything lies under one folder and nothing is mocked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinelora.core.config import DataConfig, Method, SampleConfig, TrackingConfig, TrainConfig, TrialConfig, Wandb
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import from_dict, to_dict
from cinelora.data.video import write_mp4
from cinelora.data.windows import plan_windows
from cinelora.trial.job import Job
from cinelora.wan.checkpoint import model_fingerprint, model_folder
from sweeps.plan import trial_spec

FRAMES, SIZE = 9, 32


def write_clips(folder: Path, count: int = 4, frames: int = 2 * FRAMES) -> Path:
    """`count` videos at 16 fps of a bright square crossing a gradient, one shot each, with captions."""
    rows = ["video,prompt"]
    for index in range(count):
        clip = np.zeros((frames, SIZE, SIZE, 3), np.uint8)
        clip[:] = np.linspace(20, 120, SIZE, dtype=np.uint8)[None, None, :, None]
        for t in range(frames):
            left = (2 * t + 5 * index) % (SIZE - 8)
            clip[t, 8 + index : 16 + index, left : left + 8, index % 3] = 230
        write_mp4(folder / f"clip{index}.mp4", clip, 16)
        rows.append(f"clip{index}.mp4,a square number {index} moves right")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def tiny_config(clips: Path, **changes: Any) -> TrialConfig:
    """A trial of 6 steps on 32x32 windows of 9 frames. `changes` use dotted names with `__`."""
    config = TrialConfig(
        data=DataConfig(path=str(clips), frames=FRAMES, height=SIZE, width=SIZE, stride=FRAMES, heldout_shots=1),
        train=TrainConfig(
            steps=6,
            batch_size=4,
            micro_batch=2,
            learning_rate=1e-2,
            heldout_every=3,
            heldout_windows=2,
            checkpoint_every=4,
        ),
        sample=SampleConfig(steps=2, batch_size=2),
    )
    data = to_dict(config)
    for name, value in changes.items():
        *parents, leaf = name.split("__")
        target = data
        for parent in parents:
            target = target[parent]
        assert leaf in target, name
        target[leaf] = value
    return from_dict(TrialConfig, data)


def make_job(root: Path, config: TrialConfig, encode: bool = True) -> Job:
    """A Job whose encodings exist. `root` may be shared by many jobs."""
    cache = root / "cache"
    folder = model_folder(config.model, cache)
    plan = plan_windows(Path(config.data.path), config.data, cache)
    marks = {"model": model_fingerprint(folder, ""), "data": plan.fingerprint}
    spec = trial_spec(config, marks)
    job = Job(spec, StudyFolder(root / "study"), "test", cache, TrackingConfig(wandb=Wandb.off))
    write_json(job.study.trial(spec.trial_id).spec, spec.to_json())
    if encode:
        _encode(job, folder, config)
    return job


def _encode(job: Job, folder: Path, config: TrialConfig) -> None:
    from cinelora import distributed
    from cinelora.data.encodings import WINDOWS_FILE, missing
    from cinelora.data.windows import plan_windows as plan_again
    from cinelora.wan.encoding import encode_texts, encode_windows

    plan = plan_again(Path(config.data.path), config.data, job.cache_dir)
    write_json(job.encodings / WINDOWS_FILE, plan.to_json())
    windows, prompts = missing(job.encodings, plan, {config.sample.negative_prompt})
    encode_texts(folder, job.encodings, job.shared_encodings, prompts, distributed.device_name())
    where = job.encodings, job.shared_encodings, Path(config.data.path)
    encode_windows(folder, *where, config.data, windows, distributed.device_name())


def silent(stage: str, done: int, total: int, loss: float | None) -> None:
    """A report that says nothing."""


def run(job: Job, base: Any = None, report: Callable[..., None] = silent) -> Any:
    """Run a job in this process on `base`, or on one loaded for it."""
    from cinelora import distributed
    from cinelora.trial.resident import load_resident_model
    from cinelora.trial.run import run_trial

    if not torch.distributed.is_initialized():  # a base that stage 3 sharded would not survive another group
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    return run_trial(job, base or load_resident_model(job), report)


__all__ = ["FRAMES", "SIZE", "Method", "make_job", "run", "silent", "tiny_config", "write_clips"]
