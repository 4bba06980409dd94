"""Two workers in one process group: equal to one worker, equal over stages, equal warm and cold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cinelora import distributed
from tests import tiny_study

TOLERANCE = 1e-5  # of one worker against two: the sums run in another order


@pytest.mark.slow
def test_two_workers(study_root: Path) -> None:
    single = tiny_study.make_job(
        study_root, tiny_study.tiny_config(study_root / "clips", zero__persistence_threshold=0, lora__rank=4)
    )
    folder = single.study.trial(single.spec.trial_id)
    shutil.rmtree(folder.root, ignore_errors=True)
    alone = tiny_study.run(single)
    weights = "adapter/pytorch_lora_weights.safetensors"
    one = load_file(folder.root / weights)

    ports = [str(distributed.free_port()) for _ in range(2)]
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cinelora.training.gang_member", str(study_root), str(rank), *ports],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [member.communicate(timeout=240) for member in members]
    assert [member.returncode for member in members] == [0, 0], outputs[0][1][-2000:] + outputs[1][1][-2000:]
    lines = [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out, _ in outputs]
    resized = [own[8:] for own in lines]
    lines = [own[:8] for own in lines]

    assert lines[0] == lines[1], "the workers of a gang must return the same result"
    assert len(lines[0]) == 8 and len({line["hash"] for line in lines[0]}) == 1, "stages or warm starts differ"
    assert {line["world"] for line in lines[0]} == {2}
    assert {line["clips"] for line in lines[0]} == {alone.clips}, "clips are shared out, none lost or scored twice"
    assert lines[0][0]["loss"] == pytest.approx(alone.heldout_loss, abs=TOLERANCE)
    two = load_file(folder.root / weights)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < TOLERANCE
    assert all(torch.isfinite(tensor).all() for tensor in two.values())

    for own in resized:
        assert [line["world"] for line in own] == [2, 1, 1, 2]
        assert own[0]["hash"] == own[3]["hash"], "together, apart, together again: the same adapter"
        assert own[1]["hash"] == own[2]["hash"], "alone, ZeRO 0 equals ZeRO 2"
    assert resized[0][0] == resized[1][0] and resized[0][1]["hash"] != resized[1][1]["hash"]
    job = tiny_study.make_job(
        study_root, tiny_study.tiny_config(study_root / "clips", lora__rank=4, seed=6, train__steps=4)
    )
    shutil.rmtree(job.study.trial(job.spec.trial_id).root, ignore_errors=True)
    assert tiny_study.run(job).adapter_sha256 == resized[1][1]["hash"], "as in a process that was never in a gang"
