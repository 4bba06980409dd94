"""Checkpoints of a training: adapter, optimiser moments and position in one safetensors file.

The frozen base is never in it, and nothing is pickled. Training data, noise and timesteps are functions of
the step, so the position is the step number alone.

A stop sign is a file in the folder of the study or of one trial: a trial that sees it saves a checkpoint and stops.
It works from any shell and on every node that sees the study, also after the driver has ended.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cinelora.core.files import whole_file


def latest(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return max(folder.glob("step-*.safetensors"), default=None)


def save(folder: Path, state: dict[str, torch.Tensor], step: int, trial_id: str) -> None:
    """Write the state after `step` steps; older checkpoints go once it is in place."""
    path = folder / f"step-{step:07d}.safetensors"
    with whole_file(path) as temporary:
        save_file(state, temporary, metadata={"position": json.dumps({"step": step, "trial_id": trial_id})})
    for old in folder.glob("step-*.safetensors"):
        if old.name < path.name:  # a newer one is of another worker that has taken over this trial
            old.unlink(missing_ok=True)


def load(path: Path, trial_id: str) -> tuple[dict[str, torch.Tensor], int]:
    """(state, steps done). Raises ValueError for another trial's checkpoint."""
    with safe_open(path, framework="pt") as stream:
        position = json.loads(stream.metadata()["position"])
        state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a dict)
    if position["trial_id"] != trial_id:
        raise ValueError(f"{path} belongs to trial {position['trial_id']}, not {trial_id}; remove it")
    return state, int(position["step"])


LOOK_SECONDS = 0.5  # between looks at the disk


class Stopped(RuntimeError):
    """The trial saw a stop sign; its work so far is on disk and the next run resumes from it."""


class StopSign:
    """Whether any of `paths` exists, looked up at most every LOOK_SECONDS. Once seen it stays."""

    def __init__(self, *paths: Path) -> None:
        self.paths, self.last, self.seen = paths, -LOOK_SECONDS, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.seen and now - self.last >= LOOK_SECONDS:
            self.last, self.seen = now, any(path.exists() for path in self.paths)
        return self.seen
