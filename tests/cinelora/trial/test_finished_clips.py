"""Clips of a trial, kept without loss and adopted, score what the trial scored, without any model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cinelora.core.cli import UserError
from cinelora.core.config import Method
from cinelora.trial import resident, scoring
from cinelora.trial.job import Job
from cinelora.trial.run import run_trial
from launch.adopting import clip_trials
from tests import tiny_study


def run_without_model(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load_transformer", "load_vae", "model_folder"):
        monkeypatch.setattr(resident, name, None)
    result = run_trial(job, resident.load_resident_model(job), lambda *_: None)
    assert (result.method, result.rank, result.heldout_loss) == ("clips", 4, None)


def test_lossless_frames_score_what_the_trial_scored(
    study_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(paths: list[Path], clips: np.ndarray, fps: float) -> None:
        for path, clip in zip(paths, clips, strict=True):
            (tmp_path / "made" / path.stem).mkdir(parents=True)
            for index, frame in enumerate(clip):
                Image.fromarray(frame).save(tmp_path / "made" / path.stem / f"{index:03d}.png")

    config = tiny_study.tiny_config(study_root / "clips", method="base", sample__seed=5)
    job = tiny_study.make_job(study_root, config)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "write_clips", kept)
        tiny_study.run(job)
    (tmp_path / "clips.csv").write_text("folder,rank\nmade,4\n")
    (trial,), _ = clip_trials(replace(config, method=Method.clips), str(tmp_path / "clips.csv"), job.windows().heldout)
    adopted = tiny_study.make_job(study_root, trial)
    run_without_model(adopted, monkeypatch)
    lines = job.folder.clip_scores.read_text().splitlines()
    others = [line for line in lines if "heldout_loss" not in line]
    assert len(others) < len(lines)
    assert sorted(adopted.folder.clip_scores.read_text().splitlines()) == sorted(others)
    changed = tiny_study.make_job(study_root, replace(trial, clips_sha256="0" * 64))
    with pytest.raises(UserError, match="has changed since it was planned"):
        run_without_model(changed, monkeypatch)
