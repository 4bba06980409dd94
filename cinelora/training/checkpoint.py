"""Checkpoints of a training: adapter, optimiser moments and position in one safetensors file.

The frozen base is never in it, and nothing is pickled. Training data, noise and timesteps are functions of
the step, so the position is the step number alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cinelora.core.records import whole_file


def latest(folder: Path) -> Path | None:
    """The newest checkpoint, or None."""
    return max(folder.glob("step-*.safetensors"), default=None)


def save(folder: Path, state: dict[str, torch.Tensor], step: int, trial_id: str) -> None:
    """Write the state after `step` steps; older checkpoints go once it is in place."""
    path = folder / f"step-{step:07d}.safetensors"
    with whole_file(path) as temporary:
        save_file(state, temporary, metadata={"position": json.dumps({"step": step, "trial_id": trial_id})})
    for old in folder.glob("step-*.safetensors"):
        if old.name < path.name:  # a newer one would be another worker's, who took this trial over
            old.unlink(missing_ok=True)


def load(path: Path, trial_id: str) -> tuple[dict[str, torch.Tensor], int]:
    """(state, steps done). Raises ValueError for another trial's checkpoint."""
    with safe_open(path, framework="pt") as stream:
        position = json.loads(stream.metadata()["position"])
        state = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a dict)
    if position["trial_id"] != trial_id:
        raise ValueError(f"{path} belongs to trial {position['trial_id']}, not {trial_id}; remove it")
    return state, int(position["step"])
