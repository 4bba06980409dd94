"""Two workers in one process group: equal to one worker, equal over stages, equal warm and cold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests import tiny_study
from tests.cinelora.training.conftest import Pair

TOLERANCE = 1e-5  # of one worker against two: the sums run in another order


def test_two_workers(study_root: Path, pair: Pair) -> None:
    alone, one, two = pair.alone, pair.one, pair.two
    lines = [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out in pair.printed]
    resized = [own[8:] for own in lines]
    lines = [own[:8] for own in lines]

    assert lines[0] == lines[1], "the workers of a gang must return the same result"
    assert len(lines[0]) == 8 and len({line["hash"] for line in lines[0]}) == 1, "stages or warm starts differ"
    assert {line["world"] for line in lines[0]} == {2}
    assert {line["clips"] for line in lines[0]} == {alone.clips}, "clips are shared out, none lost or scored twice"
    assert lines[0][0]["loss"] == pytest.approx(alone.heldout_loss, abs=TOLERANCE)
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
