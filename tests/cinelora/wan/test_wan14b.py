"""The 14B model without its weights: sizes on the meta device, precision, and what loading does at small size."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from cinelora import distributed
from cinelora.core.cli import UserError
from cinelora.core.config import Dtype, LoraConfig, ModelConfig, TargetSet, TrainConfig, TrialConfig, ZeroConfig
from cinelora.core.files import content_hash
from cinelora.core.records import from_dict, to_dict
from cinelora.data.encodings import encoder_fingerprint, encoding_folder, text_file, window_file
from cinelora.training.engine import build_engine, full_parameters, release
from cinelora.wan import encoding, lora
from cinelora.wan.checkpoint import EXAMPLE, SHAPES, model_folder
from cinelora.wan.encoding import encode_texts, encode_windows
from cinelora.wan.loading import TORCH_DTYPE, load_transformer
from tests import tiny_study

CONFIG = json.loads((SHAPES[EXAMPLE] / "transformer" / "config.json").read_text())
PARAMETERS = 16_394_878_784
KEPT_IN_FLOAT32 = 29_196_800
RANKS = (4, 8, 16, 32, 64, 128, 256)
# Trainable parameters in millions at these ranks, as published tables round them, and per unit of rank.
COUNTS: dict[TargetSet, tuple[int, tuple[float, ...]]] = {
    TargetSet.cross_image: (819_200, (3.28, 6.55, 13.1, 26.2, 52.4, 104.9, 209.7)),
    TargetSet.cross_text: (1_638_400, (6.55, 13.1, 26.2, 52.4, 104.9, 209.7, 419.4)),
    TargetSet.cross: (2_457_600, (9.83, 19.7, 39.3, 78.6, 157.3, 314.6, 629.1)),
    TargetSet.self: (1_638_400, (6.55, 13.1, 26.2, 52.4, 104.9, 209.7, 419.4)),
    TargetSet.attn_text: (3_276_800, (13.1, 26.2, 52.4, 104.9, 209.7, 419.4, 838.9)),
    TargetSet.attn: (4_096_000, (16.4, 32.8, 65.5, 131.1, 262.1, 524.3, 1048.6)),
    TargetSet.ffn: (1_515_520, (6.06, 12.1, 24.2, 48.5, 97.0, 194.0, 388.0)),
    TargetSet.block_text: (4_792_320, (19.2, 38.3, 76.7, 153.4, 306.7, 613.4, 1226.8)),
    TargetSet.block: (5_611_520, (22.4, 44.9, 89.8, 179.6, 359.1, 718.3, 1436.5)),
    TargetSet.linear: (5_696_576, (22.8, 45.6, 91.1, 182.3, 364.6, 729.2, 1458.3)),
}


@pytest.fixture(scope="module")
def empty() -> Any:
    """The 14B denoiser: parameters on the meta device, rope tables (buffers, in no checkpoint) real."""
    with init_empty_weights():
        model: Any = WanTransformer3DModel.from_config(CONFIG)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    return model.requires_grad_(False)


def test_parameters(empty: Any) -> None:
    assert sum(parameter.numel() for parameter in empty.parameters()) == PARAMETERS
    kept = [name for name, _ in empty.named_parameters() if set(name.split(".")) & set(empty._keep_in_fp32_modules)]
    assert sum(empty.get_parameter(name).numel() for name in kept) == KEPT_IN_FLOAT32


@pytest.mark.parametrize("targets", list(TargetSet))
def test_trainable_parameters_by_rank(empty: Any, targets: TargetSet) -> None:
    per_rank, millions = COUNTS[targets]
    for rank in (1, RANKS[0]):
        parameters = lora.attach(empty, LoraConfig(rank=rank, targets=targets), seed=0)
        trainable = sum(parameter.numel() for parameter in empty.parameters() if parameter.requires_grad)
        assert sum(parameter.numel() for _, parameter in parameters) == trainable == rank * per_rank
        assert all(parameter.is_meta for _, parameter in parameters)
        lora.detach(empty)
    for rank, published in zip(RANKS, millions, strict=True):
        assert rank * per_rank / 1e6 == pytest.approx(published, abs=0.051 if published > 9.9 else 0.0051)


# --- loading ---


@pytest.fixture(scope="module")
def folder(study_root: Path) -> Path:
    return model_folder(ModelConfig(), study_root / "cache")


def sharded(folder: Path, to: Path, dtype: torch.dtype) -> Path:
    """A copy whose denoiser lies in shards of this dtype."""
    model: Any = WanTransformer3DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=dtype)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("diffusion_pytorch_model.safetensors"))
    model.save_pretrained(to / "transformer", max_shard_size="100KB")
    return to


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", list(Dtype))
def test_loads_what_diffusers_loads(folder: Path, tmp_path: Path, stored: torch.dtype, dtype: Dtype) -> None:
    place = sharded(folder, tmp_path / "model", stored)
    assert len(list((place / "transformer").glob("*.safetensors"))) > 2
    stock: Any = WanTransformer3DModel.from_pretrained(
        place, subfolder="transformer", torch_dtype=TORCH_DTYPE[dtype], local_files_only=True
    )
    ours = load_transformer(place, dtype)
    theirs = dict(stock.named_parameters()) | dict(stock.named_buffers())
    found = dict(ours.named_parameters()) | dict(ours.named_buffers())
    assert list(found) == list(theirs)
    for name, tensor in theirs.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    assert not ours.training and not any(parameter.requires_grad for parameter in ours.parameters())


def in_float32(model: Any) -> set[str]:
    """Names of the parameters that lie in float32, sharded or whole."""
    tensors = ((name, getattr(each, "ds_tensor", each)) for name, each in model.named_parameters())
    return {name for name, tensor in tensors if tensor.dtype == torch.float32}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_training_in_bfloat16_leaves_norms_and_time_embedding_in_float32(folder: Path, stage: int) -> None:
    if not torch.distributed.is_initialized():
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    base = load_transformer(folder, Dtype.bfloat16)
    kept, before = in_float32(base), {name: each.detach().clone() for name, each in base.named_parameters()}
    assert {"scale_shift_table", "blocks.0.norm2.weight", "condition_embedder.time_embedder.linear_1.weight"} <= kept
    assert not torch.equal(before["scale_shift_table"], before["scale_shift_table"].bfloat16())
    model = ModelConfig(dtype=Dtype.bfloat16)
    for _ in range(2):  # the second trial meets a base that stage 3 has left sharded
        parameters = lora.attach(base, LoraConfig(rank=2), seed=0)
        engine = build_engine(base, parameters, TrainConfig(), ZeroConfig(stage=stage, persistence_threshold=0), model)
        assert {name.replace(".base_layer.", ".") for name in in_float32(base)} == kept
        release(engine, parameters)
        lora.detach(base)
        after = full_parameters(list(base.named_parameters()))
        assert all(torch.equal(after[name], tensor.float()) for name, tensor in before.items())


def test_files_that_do_not_belong_together_are_told(folder: Path, tmp_path: Path) -> None:
    place = shutil.copytree(folder, tmp_path / "model")
    path = place / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "proj_out.bias": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"proj_out\.bias is \[3\], its config\.json asks for \[64\]"):
        load_transformer(place, Dtype.float32)
    save_file({name: each for name, each in tensors.items() if name != "proj_out.bias"}, path)
    with pytest.raises(UserError, match=r"no file holds proj_out\.bias"):
        load_transformer(place, Dtype.float32)


# --- the encoders ---


def test_encoders_are_freed_and_not_loaded_for_what_another_set_has(
    study_root: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    loaded = []

    def watched(load: Any, *arguments: Any) -> Any:
        parts = load(*arguments)
        loaded.append(weakref.ref(parts[1] if isinstance(parts, tuple) else parts))
        return parts

    for name in ("load_text_encoder", "load_image_encoder", "load_vae"):
        monkeypatch.setattr(encoding, name, partial(watched, getattr(encoding, name)))
    window, shared = job.windows().all[0], tmp_path / "shared"
    named = {"one": window, "other": replace(window, window_id="another_name")}
    for name, each in named.items():
        encode_texts(folder, tmp_path / name, shared, ["a square"], "cpu")
        encode_windows(folder, tmp_path / name, shared, study_root / "clips", job.spec.config.data, [each], "cpu")
        gc.collect()
        assert len(loaded) == 3 and not any(reference() for reference in loaded)
    files = [[window_file(tmp_path / name, each.window_id) for name, each in named.items()]]
    files += [[text_file(tmp_path / name, "a square") for name in named]]
    for one, other in files:
        assert one.samefile(other) and load_file(one)
    assert len(list(shared.iterdir())) == 2


def test_text_in_bfloat16_is_another_encoding_of_another_trial(folder: Path, tmp_path: Path) -> None:
    states = []
    for name, dtype in (("stored", None), ("half", Dtype.bfloat16)):
        encode_texts(folder, tmp_path / name, tmp_path / f"shared {name}", ["a square"], "cpu", dtype)
        states.append(load_file(next((tmp_path / name).iterdir()))["text"])
    assert states[0].dtype == states[1].dtype == torch.float32
    assert 0 < (states[0] - states[1]).abs().max() < 0.1 * states[0].abs().max()
    assert encoding_folder(tmp_path, "d", "m", Dtype.bfloat16) != encoding_folder(tmp_path, "d", "m")
    assert encoder_fingerprint(Dtype.bfloat16) != encoder_fingerprint(None)


def test_models_without_the_setting_keep_their_caches_and_ids(tmp_path: Path) -> None:
    key = {"data": "d", "model": "m", "version": 1}
    assert encoding_folder(tmp_path, "d", "m") == tmp_path / "encodings" / content_hash(key, 16)
    assert encoder_fingerprint(None) == "1"
    assert set(to_dict(ModelConfig(), identity_only=True)) == {"revision", "dtype", "short_text"}
    config = tiny_study.tiny_config(tmp_path, model__text_dtype="bfloat16")
    assert config.model.text_dtype is Dtype.bfloat16 and from_dict(TrialConfig, to_dict(config)) == config
