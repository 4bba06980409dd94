"""Two workers, started once for the tests of gangs and of the full size."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cinelora import distributed
from cinelora.core.records import TrialResult
from tests import tiny_study

WEIGHTS = "adapter/pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Pair:
    """What two workers printed and left, beside the trial of one worker alone that has their trial's id."""

    alone: TrialResult
    one: dict[str, torch.Tensor]
    two: dict[str, torch.Tensor]
    printed: list[str]
    full_size: list[dict[str, Any]]


@pytest.fixture(scope="session")
def pair(study_root: Path) -> Pair:
    single = tiny_study.make_job(
        study_root, tiny_study.tiny_config(study_root / "clips", zero__persistence_threshold=0, lora__rank=4)
    )
    folder = single.study.trial(single.spec.trial_id).root
    shutil.rmtree(folder, ignore_errors=True)
    alone = tiny_study.run(single)
    one = load_file(folder / WEIGHTS)
    port = str(distributed.free_port())
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cinelora.training.pair_member", str(study_root), str(rank), port],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [member.communicate(timeout=480) for member in members]
    assert [member.returncode for member in members] == [0, 0], outputs[0][1][-2000:] + outputs[1][1][-2000:]
    full_size = [torch.load(study_root / f"full-size-{rank}.pt", weights_only=False) for rank in (0, 1)]
    return Pair(alone, one, load_file(folder / WEIGHTS), [out for out, _ in outputs], full_size)
