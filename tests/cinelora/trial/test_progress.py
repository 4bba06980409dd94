"""A trial shows a sign of life in each pass of the model, so that silence means a hang."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from cinelora.training.flow import HELDOUT_TIMES
from tests import tiny_study


def test_each_pass_of_the_model_is_reported(study_root: Path, tmp_path: Path) -> None:
    tiny_study.write_clips(tmp_path / "clips")
    config = tiny_study.tiny_config(tmp_path / "clips", train__steps=3, sample__steps=4, sample__batch_size=1)
    job = tiny_study.make_job(tmp_path, config)
    calls: list[tuple[str, int, int]] = []
    tiny_study.run(job, report=lambda stage, done, total, loss: calls.append((stage, done, total)))
    seen = Counter(stage for stage, _, _ in calls)
    heldout = len(job.windows().heldout)

    def passes(windows: int) -> int:
        return math.ceil(windows / config.data.heldout_batch) * len(HELDOUT_TIMES)

    watched = min(heldout, config.train.heldout_windows)
    assert seen["evaluate"] == passes(heldout)
    assert seen["train"] == config.train.steps + 2 * passes(watched), "before the first step and after the last"
    assert seen["generate"] == heldout * (config.sample.steps + 1), "each step of the sampler, and each batch"
    for stage in seen:
        done = [number for name, number, _ in calls if name == stage]
        assert done == sorted(done), stage
