"""The trial of the frozen first frame: the real clip's first frame repeated, scored without any model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cinelora.data.video import read_all
from cinelora.trial import resident
from cinelora.trial.run import run_trial
from tests import tiny_study


def test_it_is_scored_and_no_model_is_loaded(study_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a model was loaded")

    config = tiny_study.tiny_config(study_root / "clips", method="frozen")
    job = tiny_study.make_job(study_root, config)
    for name in ("load_transformer", "load_vae", "model_folder"):
        monkeypatch.setattr(resident, name, refused)
    base = resident.load_resident_model(job)
    assert base.key == resident.SPENT, "no other trial may use it"
    result = run_trial(job, base, lambda *_: None)
    assert (result.method, result.heldout_loss, result.trainable_parameters) == ("frozen", None, 0)
    assert result.clips == len(job.windows().heldout)
    for window in job.windows().heldout:
        frames = read_all(job.folder.sample(window.window_id))
        real = base.reference_frames(job.spec.config.data, window)
        assert np.abs(frames.astype(int) - real[:1]).mean() < 6, "but for the loss of the codec"
