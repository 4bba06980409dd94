"""An adapter of ours, exported to each layout and adopted again, scores what its own trial scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cinelora.adopt.read import read_adapter
from cinelora.core.cli import UserError
from cinelora.core.config import Method, Scaling
from cinelora.export.formats import FORMATS, AdapterFile
from cinelora.trial.job import Job
from cinelora.wan.tiny import TRANSFORMER
from launch.adopting import adopted_trials
from sweeps.plan import base_of, trial_spec
from tests import tiny_study


@pytest.fixture(scope="module")
def trained(study_root: Path) -> Job:
    config = tiny_study.tiny_config(
        study_root / "clips", lora__rank=4, lora__alpha=8.0, lora__scaling=Scaling.constant.value, seed=3
    )
    job = tiny_study.make_job(study_root, config)
    tiny_study.run(job)
    return job


@pytest.mark.parametrize("layout", FORMATS)
def test_scores_equal_those_of_the_trained_trial(layout: str, trained: Job, study_root: Path, tmp_path: Path) -> None:
    file, config = tmp_path / f"{layout}.safetensors", trained.spec.config
    FORMATS[layout].write([AdapterFile(trained.folder.adapter_file, config.lora.scale)], file)
    (adopted,), remarks = adopted_trials(replace(config, method=Method.adapter), str(tmp_path), TRANSFORMER)
    assert [remark.split(": ", 1)[1].split(" (")[0] for remark in remarks][-1].startswith("seed unknown")
    job = tiny_study.make_job(study_root, adopted)
    result, before = tiny_study.run(job), trained.folder
    assert job.folder.clip_scores.read_bytes() == before.clip_scores.read_bytes()
    assert job.folder.set_scores.exists() == before.set_scores.exists()
    assert not before.set_scores.exists() or job.folder.set_scores.read_bytes() == before.set_scores.read_bytes()
    for sample in sorted((before.root / "samples").iterdir()):
        assert (job.folder.root / "samples" / sample.name).read_bytes() == sample.read_bytes()
    kept = layout != "comfyui"  # which has the scale in B
    assert (result.method, result.rank, result.scale, result.steps) == ("adapter", 4, 2.0 if kept else 1.0, 0)
    (own,) = (trial for trial in [trained.folder.result.read_text()])
    assert (result.adapter_sha256 in own) is kept
    assert f'"trainable_parameters": {result.trainable_parameters},' in own


@pytest.mark.parametrize(("stage", "dtype"), [(0, "bfloat16"), (3, "bfloat16"), (3, "float32")])
def test_and_in_bfloat16_and_on_a_base_in_shards(stage: int, dtype: str, study_root: Path, tmp_path: Path) -> None:
    config = tiny_study.tiny_config(study_root / "clips", zero__stage=stage, model__dtype=dtype, seed=4)
    trained = tiny_study.make_job(study_root, config)
    tiny_study.run(trained)
    FORMATS["musubi"].write([AdapterFile(trained.folder.adapter_file, 1.0)], tmp_path / "a.safetensors")
    (adopted,), _ = adopted_trials(replace(config, method=Method.adapter), str(tmp_path), TRANSFORMER)
    job = tiny_study.make_job(study_root, adopted)
    tiny_study.run(job)
    assert job.folder.clip_scores.read_bytes() == trained.folder.clip_scores.read_bytes()


def test_identity_is_the_content(tmp_path: Path, trained: Job) -> None:
    config = replace(trained.spec.config, method=Method.adapter)
    for name in ("a", "b"):
        folder = tmp_path / name
        FORMATS["musubi"].write([AdapterFile(trained.folder.adapter_file, 2.0)], folder / f"{name}.safetensors")
    ((a,), _), ((b,), _) = (adopted_trials(config, str(tmp_path / name), TRANSFORMER) for name in "ab")
    assert trial_spec(a, {}).trial_id == trial_spec(replace(b, seed=5, label="mine"), {}).trial_id
    assert trial_spec(a, {}).trial_id != trial_spec(replace(a, adapter_sha256="0" * 64), {}).trial_id
    assert base_of(a) == base_of(trained.spec.config)


def test_a_file_that_changed_since_it_was_planned(tmp_path: Path, trained: Job, study_root: Path) -> None:
    FORMATS["musubi"].write([AdapterFile(trained.folder.adapter_file, 2.0)], tmp_path / "a.safetensors")
    ((adopted,), _) = adopted_trials(replace(trained.spec.config, method=Method.adapter), str(tmp_path), TRANSFORMER)
    other = replace(adopted.lora, rank=adopted.lora.rank + 1)  # PEFT's settings lie beside the file
    for changed in (replace(adopted, adapter_sha256="0" * 64), replace(adopted, lora=other)):
        job = tiny_study.make_job(study_root, changed)
        with pytest.raises(UserError, match="has changed since it was planned"):
            tiny_study.run(job)
    assert read_adapter(tmp_path / "a.safetensors", TRANSFORMER).sha256 == adopted.adapter_sha256
