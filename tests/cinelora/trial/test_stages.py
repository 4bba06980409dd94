"""A second stage on a frozen first one; stills and dropped captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

from cinelora.core.cli import UserError
from cinelora.core.config import Dtype, LoraConfig, ModelConfig, Scaling, TargetSet
from cinelora.core.files import read_json, write_json
from cinelora.core.paths import ADAPTER_FILE
from cinelora.export.__main__ import main
from cinelora.training.batch import MASK_CHANNELS, Batch, training_batch
from cinelora.wan import lora
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import Encodings, encode_video, grey_latent
from cinelora.wan.loading import load_transformer, load_vae
from sweeps.plan import trial_spec
from tests import tiny_study
from tests.cinelora.export.test_export import finished, velocity


@pytest.fixture(scope="module")
def folder(study_root: Path) -> Path:
    return model_folder(ModelConfig(), study_root / "cache")


def test_an_adapter_lies_frozen_under_the_next(tmp_path: Path, folder: Path) -> None:
    trial, trained = finished(tmp_path, folder, Scaling.constant, TargetSet.cross)  # alpha is 3 times the rank
    transformer: Any = load_transformer(folder, Dtype.float32)
    base = velocity(transformer)
    lora.load_adapter(transformer, trial / "adapter" / ADAPTER_FILE)
    assert torch.allclose(velocity(transformer), trained, atol=1e-6, rtol=0)
    below = velocity(transformer)
    parameters = lora.attach(transformer, LoraConfig(rank=2, targets=TargetSet.self), seed=0)
    assert torch.equal(velocity(transformer), below), "an adapter at its start is what lies under it"
    trainable = {name for name, each in transformer.named_parameters() if each.requires_grad}
    assert trainable == {name for name, _ in parameters} and len(parameters) == 2 * 4 * 2
    lora.detach(transformer)
    assert torch.equal(velocity(transformer), base)
    with pytest.raises(UserError, match="missing; give the adapter of a finished trial"):
        lora.load_adapter(transformer, tmp_path / "nowhere" / ADAPTER_FILE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trial_starts_from_another(study_root: Path, dtype: str) -> None:
    """The held-out loss of its step 0 is the other's last; stages 0 and 3 give one adapter in float32."""
    clips = study_root / "clips"
    first = tiny_study.make_job(study_root, tiny_study.tiny_config(clips, seed=7, model__dtype=dtype))
    before = tiny_study.run(first)
    found = []
    for stage in (0, 3):
        config = tiny_study.tiny_config(
            clips, first=before.trial_id, lora__rank=2, zero__stage=stage, model__dtype=dtype
        )
        job = tiny_study.make_job(study_root, config)
        found.append(tiny_study.run(job))
        rows = job.study.trial(job.spec.trial_id).train_csv.read_text().splitlines()
        assert float(rows[1].split(",")[2]) == pytest.approx(
            before.heldout_loss, rel=1e-6 if dtype == "float32" else 1e-2
        )
    assert found[0].trial_id != found[1].trial_id
    if dtype == "float32":
        assert found[0].adapter_sha256 == found[1].adapter_sha256


def test_export_holds_both_stages(tmp_path: Path, folder: Path, study_root: Path) -> None:
    below, _ = finished(tmp_path, folder, Scaling.constant, TargetSet.cross)
    above, _ = finished(tmp_path, folder, Scaling.rslora, TargetSet.attn)
    transformer: Any = load_transformer(folder, Dtype.float32)
    lora.load_adapter(transformer, below / "adapter" / ADAPTER_FILE)
    state, metadata = WanLoraLoaderMixin.lora_state_dict(str(above / "adapter"), return_lora_metadata=True)
    transformer.load_lora_adapter(state, adapter_name="own", metadata=metadata)
    transformer.set_adapters([lora.FIRST, "own"])
    both = velocity(transformer)
    data = read_json(above / "spec.json")
    write_json(above / "spec.json", {**data, "config": {**data["config"], "first": below.name}})
    for layout in ("diffusers", "comfyui"):
        out = tmp_path / layout / "both.safetensors"
        assert main([str(above), "--out", str(out), "--format", layout]) == 0
        plain: Any = load_transformer(folder, Dtype.float32)
        state = WanLoraLoaderMixin.lora_state_dict(str(out), local_files_only=True)
        plain.load_lora_adapter(state, adapter_name="sum")
        assert torch.allclose(velocity(plain), both, atol=1e-5, rtol=0), layout
    merged = tmp_path / "merged"
    assert main([str(above), "--out", str(merged), "--merge", "--cache", str(study_root / "cache")]) == 0
    assert "whose update is included here" in (merged / "README.md").read_text()


def denoiser_input(batch: Batch) -> torch.Tensor:
    """Noisy latents, mask and first frame, (N, 36, T, h, w)."""
    return torch.cat([batch.noisy, batch.conditions.frame], dim=1)


def test_steps_on_stills_see_one_frame_and_not_the_first(study_root: Path) -> None:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    vae = load_vae(model_folder(ModelConfig(), study_root / "cache"))
    grey = grey_latent(vae, tiny_study.SIZE, tiny_study.SIZE)
    config = tiny_study.tiny_config(study_root / "clips", train__stills=0.5)
    encodings, plan = Encodings(job.encodings, grey=grey), job.windows()
    kinds = []
    for step in range(40):
        whole = training_batch(config, encodings, plan, step, range(4))
        part = training_batch(config, encodings, plan, step, range(2, 4))
        hidden = denoiser_input(whole)
        assert torch.equal(denoiser_input(part), hidden[2:]), "workers agree on the kind of a step"
        kinds.append(hidden.shape[2] == 1)
        if kinds[-1]:
            assert whole.target.shape[2] == 1 and not hidden[:, 16 : 16 + MASK_CHANNELS].any()
            assert torch.equal(hidden[0, 16 + MASK_CHANNELS :], grey)
        else:
            assert hidden[:, 16, 0].all()
    assert 10 <= sum(kinds) <= 30
    frames = torch.rand(1, 3, 5, tiny_study.SIZE, tiny_study.SIZE) * 2 - 1
    alone, clip = encode_video(vae, frames[:, :, :1]), encode_video(vae, frames)
    assert torch.allclose(alone[:, :, 0], clip[:, :, 0], atol=1e-6), "the VAE is causal"


def test_dropped_captions_are_the_empty_one(study_root: Path) -> None:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    encodings, plan = Encodings(job.encodings), job.windows()
    empty = encodings.texts([""])[0]
    kept = replace(job.spec.config.train, caption_dropout=0.0)
    some = replace(kept, caption_dropout=0.5)
    dropped = 0
    for step in range(20):
        without = training_batch(replace(job.spec.config, train=some), encodings, plan, step, range(4))
        whole = training_batch(replace(job.spec.config, train=kept), encodings, plan, step, range(4))
        texts, captions = (batch.conditions.text for batch in (without, whole))
        assert torch.equal(denoiser_input(without), denoiser_input(whole))
        for text, caption in zip(texts, captions, strict=True):
            assert torch.equal(text, empty) or torch.equal(text, caption)
            dropped += bool(torch.equal(text, empty))
    assert 25 <= dropped <= 55


def test_settings_added_later_leave_old_names_alone(study_root: Path) -> None:
    config = tiny_study.tiny_config(study_root / "clips")
    fingerprints = {"model": "m", "data": "d"}
    assert trial_spec(config, fingerprints).trial_id == "bc8b17a21a4d"
    for changes in (
        {"first": "abc"},
        {"train__stills": 0.1},
        {"sample__cache": "first_block"},
        {"model__compile": True},
    ):
        assert (
            trial_spec(tiny_study.tiny_config(study_root / "clips", **changes), fingerprints).trial_id != "bc8b17a21a4d"
        )
