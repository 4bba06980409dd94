"""ZeRO stages, resuming, a base used before and gangs change no result in float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cinelora.training import checkpoint
from cinelora.trial.resident import SPENT, load_resident_model
from tests import tiny_study

STAGES = (0, 1, 2, 3)


def stage_config(root: Path, stage: int, **changes: Any) -> Any:
    return tiny_study.tiny_config(
        root / "clips", zero__stage=stage, zero__persistence_threshold=0, lora__rank=4, **changes
    )


def fresh(job: Any) -> None:
    shutil.rmtree(job.study.root, ignore_errors=True)


@pytest.fixture(scope="module")
def reference(study_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trial at stage 0, uninterrupted, on a base of its own."""
    job = tiny_study.make_job(study_root, stage_config(study_root, 0))
    return tiny_study.run(job)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_give_the_same_bits_and_resume_exactly(
    study_root: Path, tmp_path: Path, reference: Any, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_study.make_job(study_root, stage_config(study_root, stage))
    fresh(job)
    base = load_resident_model(job)

    class Killed(Exception):
        pass

    def kill_at_five(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train" and done == 5:  # one step past the checkpoint at 4
            raise Killed

    with pytest.raises(Killed):
        tiny_study.run(job, load_resident_model(job), kill_at_five)
    assert checkpoint.latest(job.study.trial(job.spec.trial_id).checkpoints).name == "step-0000004.safetensors"  # type: ignore[union-attr]
    resumed = tiny_study.run(job, base)
    assert resumed.adapter_sha256 == reference.adapter_sha256
    assert resumed.heldout_loss == pytest.approx(reference.heldout_loss, rel=1e-6)  # stage 3 gathers: one last bit

    fresh(job)
    again = tiny_study.run(job, base)  # the base has trained a trial before: warm
    assert again.adapter_sha256 == reference.adapter_sha256


def test_checkpoint_moves_between_stages(study_root: Path, reference: Any) -> None:
    """A checkpoint holds whole tensors, so a trial begun under stage 2 ends under stage 3 with the same bits."""
    started = tiny_study.make_job(study_root, stage_config(study_root, 2, train__steps=6))
    fresh(started)

    class Killed(Exception):
        pass

    def kill(what: str, done: int, total: int, loss: float | None) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        tiny_study.run(started, None, kill)
    folder = started.study.trial(started.spec.trial_id).checkpoints
    state, done = checkpoint.load(folder / "step-0000004.safetensors", started.spec.trial_id)
    assert done == 4 and not any("base_layer" in key for key in state)

    other = tiny_study.make_job(study_root, stage_config(study_root, 3))
    checkpoint.save(other.study.trial(other.spec.trial_id).checkpoints, state, done, other.spec.trial_id)
    assert tiny_study.run(other).adapter_sha256 == reference.adapter_sha256


def test_bfloat16_trains_and_resumes_exactly(study_root: Path) -> None:
    for stage in STAGES:
        job = tiny_study.make_job(study_root, stage_config(study_root, stage, model__dtype="bfloat16"))
        fresh(job)
        whole = tiny_study.run(job)
        assert whole.heldout_loss is not None and whole.heldout_loss < 10

        class Killed(Exception):
            pass

        def kill(what: str, done: int, total: int, loss: float | None, stop: type = Killed) -> None:
            if done == 5:
                raise stop

        fresh(job)
        with pytest.raises(Killed):
            tiny_study.run(job, None, kill)
        assert tiny_study.run(job).adapter_sha256 == whole.adapter_sha256, f"stage {stage}"


def test_full_fine_tune_spends_its_base(study_root: Path) -> None:
    """All weights train, and no later trial may use the base."""
    job = tiny_study.make_job(study_root, stage_config(study_root, 0, method="full", train__learning_rate=1e-3))
    fresh(job)
    base = load_resident_model(job)
    result = tiny_study.run(job, base)
    assert base.key == SPENT
    assert (result.method, result.rank) == ("full", 0)
    assert result.adapter_bytes == sum(p.numel() * p.element_size() for p in base.transformer.parameters())
    assert result.trainable_parameters == sum(p.numel() for p in base.transformer.parameters())
    assert result.heldout_loss is not None and result.adapter_sha256
