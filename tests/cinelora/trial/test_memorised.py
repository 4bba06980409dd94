"""Features of the training clips, and clips that are nearer to them than to other held-out clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cinelora.core.paths import SampleFolder
from cinelora.features.results import Scored, read_features, write_features
from cinelora.metrics import set_metrics
from cinelora.metrics.few_clips import colour_histograms
from cinelora.trial.resident import load_resident_model
from cinelora.trial.scoring import memorised, write_reference
from tests import tiny_study

AT = {"t": [0.0, 10.0], "h": [4.0, 5.0, 100.0]}  # one number a clip: training and held-out clips
MADE = Scored(["h0", "h1"], {net: np.float32([[1.0], [3.0]]) for net in ("i3d", "tnv2", "mnv2", "ycbcr")})


@pytest.fixture
def reference(tmp_path: Path) -> SampleFolder:
    folder = SampleFolder(tmp_path)
    for net in ("i3d", "tnv2"):
        for place, kind in ((folder.train, "t"), (folder, "h")):
            rows = np.float32(AT[kind])[:, None]
            write_features(place.features(net), [f"{kind}{index}" for index in range(len(rows))], rows)
    return folder


def test_clips_against_training_and_other_held_out_clips(reference: SampleFolder) -> None:
    """h0 at 1 is 1 from training, 4 from h1 (its own h0 does not count); h1 at 3 is 3 from training, 1 from h0."""
    found = memorised(reference, MADE)
    assert found["memorisation_ratio[i3d]"].tolist() == [1 / 4, 3.0]
    assert found["memorisation_share[i3d]"].tolist() == [1.0, 0.0]
    # one dimension: the training clips' mean and deviation change no ratio
    assert found["memorisation_ratio[tnv2]"][0] == pytest.approx(1 / 4)
    assert len(found) == 2 * 2  # of video nets alone


def test_packaged_nets_are_scaled_by_the_training_clips(
    reference: SampleFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def recorded(*sets: np.ndarray) -> tuple[np.ndarray, ...]:
        given.append(sets[0].ravel().tolist())
        return sets

    monkeypatch.setattr(set_metrics, "standardise", recorded)
    memorised(reference, MADE)
    assert given == [AT["t"]]  # tnv2 and not i3d


def test_too_few_clips_or_an_older_reference_give_none(reference: SampleFolder) -> None:
    for net in ("i3d", "tnv2"):
        write_features(reference.features(net), ["h0"], np.float32([[4.0]]))
    assert memorised(reference, Scored(["h0"], {"tnv2": np.float32([[1.0]])})) == {}
    for net in ("i3d", "tnv2"):
        reference.train.features(net).unlink()
    assert memorised(reference, MADE) == {}


def test_a_study_keeps_the_training_clips_as_the_scores_see_them(study_root: Path) -> None:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips", method="base"))
    base = load_resident_model(job)
    write_reference(job, base)
    windows = job.windows()
    ids, rows = read_features(job.reference.train.features("ycbcr"))
    assert ids == [window.window_id for window in windows.train]
    truth = np.stack([base.reference_frames(job.spec.config.data, window) for window in windows.train])
    assert np.array_equal(rows, colour_histograms(truth[:, 1:]).reshape(len(ids), -1).astype(np.float32))
    assert read_features(job.reference.features("ycbcr"))[0] == [window.window_id for window in windows.heldout]
    tiny_study.run(job, base)
    made = job.study.trial(job.spec.trial_id)
    assert read_features(made.features("ycbcr"))[1].shape == (len(windows.heldout), 3 * 256)
    metrics = {line.split(",")[1] for line in made.clip_scores.read_text().splitlines()[1:]}
    assert metrics == {"motion[absdiff]", "psnr", "ssim", "temporal_flickering", "heldout_loss"}
