"""Stopped and killed trials resume: training at its step, generation at its batch."""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinelora.core.paths import TrialFolder
from cinelora.features.results import Scored, drop_parts, load_part, save_part
from cinelora.training import checkpoint
from cinelora.training.checkpoint import Stopped
from cinelora.trial.resident import load_resident_model
from tests import tiny_study

ADAPTER = "adapter/pytorch_lora_weights.safetensors"


def contents(folder: Path) -> dict[str, bytes]:
    names = ("clip_scores.csv", ADAPTER)
    files = [*(folder / name for name in names), *sorted((folder / "samples").glob("*.mp4"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def quiet(study_root: Path) -> dict[str, bytes]:
    job = tiny_study.make_job(study_root, config(study_root))
    folder = job.study.trial(job.spec.trial_id).root
    shutil.rmtree(folder, ignore_errors=True)
    tiny_study.run(job)
    return contents(folder)


def config(root: Path) -> Any:
    return tiny_study.tiny_config(root / "clips", lora__rank=3, data__heldout_shots=2, sample__batch_size=1)


@pytest.mark.parametrize(("stage", "at"), [("train", 3), ("generate", 1)])
def test_a_stop_sign_saves_and_leaves(
    study_root: Path, quiet: dict[str, bytes], stage: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinelora.training.checkpoint.LOOK_SECONDS", 0.0)
    job = tiny_study.make_job(study_root, config(study_root))
    folder = job.study.trial(job.spec.trial_id)
    shutil.rmtree(folder.root, ignore_errors=True)
    seen: list[tuple[str, int]] = []

    def put_up_the_sign(what: str, done: int, total: int, loss: float | None) -> None:
        seen.append((what, done))
        if (what, done) == (stage, at):
            job.study.stop.touch()

    with pytest.raises(Stopped, match="stopped after"):
        tiny_study.run(job, report=put_up_the_sign)
    job.study.stop.unlink()
    assert not folder.result.exists() and checkpoint.latest(folder.checkpoints) is not None
    resumed: list[tuple[str, int]] = []
    tiny_study.run(job, report=lambda what, done, total, loss: resumed.append((what, done)))
    # a step reports more than once: each held-out window of it is a sign of life
    steps = [step for run in (seen, resumed) for step, _ in groupby(done for what, done in run if what == "train")]
    assert steps == list(range(7)), "every step in one run only"
    assert contents(folder.root) == quiet
    assert not folder.part(0).parent.exists(), "the parts go when the whole is there"


@pytest.mark.parametrize("stage", [0, 3])
def test_a_trial_that_leaves_gives_the_base_back_as_it_was(
    study_root: Path, quiet: dict[str, bytes], stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinelora.training.checkpoint.LOOK_SECONDS", 0.0)
    leaves = tiny_study.tiny_config(study_root / "clips", lora__rank=6, zero__stage=stage)
    leaving = tiny_study.make_job(study_root, leaves)
    stays = tiny_study.tiny_config(
        study_root / "clips", lora__rank=3, data__heldout_shots=2, sample__batch_size=1, zero__stage=stage
    )
    job = tiny_study.make_job(study_root, stays)
    sign, folder = leaving.study.trial(leaving.spec.trial_id).stop, job.study.trial(job.spec.trial_id).root
    shutil.rmtree(folder, ignore_errors=True)
    base = load_resident_model(leaving)
    with pytest.raises(Stopped):
        tiny_study.run(leaving, base, lambda what, done, total, loss: sign.touch())
    tiny_study.run(job, base)
    assert contents(folder)[ADAPTER] == quiet[ADAPTER], "in every stage the same bytes"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.transformer.modules())


def test_a_killed_generation_keeps_its_batches(study_root: Path, quiet: dict[str, bytes]) -> None:
    job = tiny_study.make_job(study_root, config(study_root))
    folder = job.study.trial(job.spec.trial_id)
    shutil.rmtree(folder.root, ignore_errors=True)

    def kill(what: str, done: int, total: int, loss: float | None) -> None:
        if (what, done) == ("generate", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_study.run(job, report=kill)
    made = sorted(path.name for path in folder.part(0).parent.glob("*.npz"))
    stamps = {path: path.stat().st_mtime_ns for path in (folder.root / "samples").glob("*.mp4")}
    assert made and len(made) == len(stamps)
    for path in folder.part(0).parent.glob("*.npz"):  # as if each batch had taken long
        with np.load(path) as stored:
            arrays = dict(stored)
        assert (arrays["seconds"] > 0).all()
        np.savez(path, **arrays | {"seconds": np.array((1000.0, 500.0))})
    seconds = tiny_study.run(job).seconds
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), "clips are not generated twice"
    assert contents(folder.root) == quiet
    assert seconds["generate"] // 1000 == len(made) and seconds["score"] // 500 == len(made)
    assert 0 < seconds["overhead"] < 60, "what earlier runs took is no overhead"


def test_a_part_is_what_was_saved_and_of_its_adapter_only(tmp_path: Path) -> None:
    values = {"psnr": np.array([0.1 + 0.2, 1e-300]), "ssim": np.array([0.5, 1.0])}
    scored = Scored(["a", "b"], {"tnv2": np.float32([[1, 2], [3, 4]])}, values)
    path = TrialFolder(tmp_path).part(3)
    save_part(path, "abc", scored)
    again = load_part(path, "abc")
    assert again is not None and again.clip_ids == scored.clip_ids and list(again.values) == list(values)
    assert all(np.array_equal(again.values[name], found) for name, found in values.items())
    np.testing.assert_array_equal(again.features["tnv2"], [[1, 2], [3, 4]])
    assert load_part(path, "other") is None and load_part(TrialFolder(tmp_path).part(4), "abc") is None
    drop_parts(TrialFolder(tmp_path))
    assert not path.parent.exists()
