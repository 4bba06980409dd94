"""The memory model against counts of the real classes at full width, and the numbers of published parts."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel

from benchmarks.memory import CONFIG, VAE, count_denoiser, count_vae, predicted, trial
from cinelora import distributed
from cinelora.core.config import (
    Checkpointing,
    DataConfig,
    Dtype,
    LoraConfig,
    Method,
    ModelConfig,
    Offload,
    TargetSet,
    TrainConfig,
    ZeroConfig,
)
from cinelora.training.engine import build_engine, release
from cinelora.wan import lora, tiny
from cinelora.wan.checkpoint import EXAMPLE, SHAPES
from sweeps.denoiser import Denoiser
from sweeps.memory import BUCKET, footprint, image_parameters, optimiser, peak_gib, text_parameters

FOUR = {**CONFIG, "num_layers": 4}
WAN = Denoiser.of(CONFIG)


def test_parameters_of_the_published_parts() -> None:
    assert (WAN.parameters, WAN.kept) == (16_394_878_784, 29_196_800)
    assert WAN.adapter(TargetSet.cross, 16) == 16 * 2_457_600 and WAN.adapter(TargetSet.linear, 1) == 5_696_576
    text = {"d_model": 4096, "num_heads": 64, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "vocab_size": 256384}
    assert text_parameters({**text, "relative_attention_num_buckets": 32}) == 5_680_910_336
    image = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    assert image_parameters({**image, "image_size": 224, "patch_size": 14}) == 630_766_080


@pytest.mark.parametrize("targets", list(TargetSet))
def test_training_with_checkpoints(targets: TargetSet) -> None:
    config = trial(17, 64, targets, 0)
    assert predicted(FOUR, config, "train") == pytest.approx(count_denoiser(FOUR, config, True), rel=0.01)


@pytest.mark.parametrize(
    ("targets", "blocks", "dtype", "within"),
    [
        (TargetSet.attn, 2, Dtype.bfloat16, 0.01),
        (TargetSet.attn, None, Dtype.bfloat16, 0.03),
        (TargetSet.cross, 0, Dtype.float32, 0.01),
    ],
)
def test_training_otherwise(targets: TargetSet, blocks: int | None, dtype: Dtype, within: float) -> None:
    config = trial(33, 128, targets, blocks, dtype)
    assert predicted(FOUR, config, "train") == pytest.approx(count_denoiser(FOUR, config, True), rel=within)


def test_the_linear_layers_of_stage_3_keep_their_inputs() -> None:
    config = replace(trial(33, 64, TargetSet.cross, 0), zero=ZeroConfig(stage=3))
    assert predicted(FOUR, config, "train") == pytest.approx(count_denoiser(FOUR, config, True), rel=0.01)


@pytest.mark.parametrize("targets", [TargetSet.cross, TargetSet.block])
def test_a_pass_without_gradient(targets: TargetSet) -> None:
    config = trial(33, 16, targets, 0)
    assert predicted(FOUR, config, "generate") == pytest.approx(count_denoiser(FOUR, config, False), rel=0.01)


def test_decoding() -> None:
    config = replace(trial(9, 4, TargetSet.cross, 0), data=DataConfig(frames=9, height=240, width=416))
    assert predicted(FOUR, config, "decode") == pytest.approx(count_vae(config.data, True), rel=0.01)


# --- the optimisers of DeepSpeed ---


def tensor_bytes() -> int:
    """Of this process."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]  # no fake ones
    storages = [each.untyped_storage() for each in tensors if each.device.type == "cpu"]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def held(stage: int, dtype: Dtype, rank: int) -> tuple[int, int]:
    """(adapter parameters, bytes of tensors that came with adapter and engine) once the engine has made a step."""
    model: Any = WanTransformer3DModel(**{**tiny.TRANSFORMER, "patch_size": (1, 2, 2)})
    model.requires_grad_(False)
    before = tensor_bytes()
    parameters = lora.attach(model, LoraConfig(rank=rank, targets=TargetSet.block), seed=0)
    count = sum(parameter.numel() for _, parameter in parameters)
    settings = ZeroConfig(stage=stage, persistence_threshold=0)
    engine = build_engine(model, parameters, TrainConfig(batch_size=1), settings, ModelConfig(dtype=dtype))
    hidden, text, image = (torch.ones(shape) for shape in ((1, 36, 1, 2, 2), (1, 512, 64), (1, 17, 64)))
    made = engine(
        hidden_states=hidden, timestep=torch.ones(1), encoder_hidden_states=text, encoder_hidden_states_image=image,
        return_dict=False,
    )[0]  # fmt: skip
    engine.backward(made.square().mean())
    engine.step()
    del made
    size = tensor_bytes() - before
    release(engine, parameters)
    return count, size


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bytes_of_a_trained_parameter(stage: int) -> None:
    if not torch.distributed.is_initialized():
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    (few, small), (many, large) = (held(stage, Dtype.float32, rank) for rank in (64, 256))
    per = optimiser(stage, Dtype.float32, 1, Offload.none)
    kept = per.steady + per.gradient * (stage == 3)  # stage 3 keeps the room for gradients
    assert (large - small) / (many - few) == pytest.approx(kept, rel=0.02)


def test_an_engine_after_one_of_stage_3_has_the_linear_layers_of_torch() -> None:
    if not torch.distributed.is_initialized():
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    found = []
    for stage in (0, 3, 2):
        held(stage, Dtype.float32, 4)
        found.append(torch.nn.functional.linear)
    assert found[0] is found[2] and found[1] is not found[0]


# --- what follows ---


def gib(config: Any, workers: int = 1, phase: str = "train") -> float:
    return peak_gib(footprint(WAN, VAE, config, workers, heldout=64)[phase])


def test_what_saves_memory() -> None:
    config = replace(
        trial(81, 64, TargetSet.block, 0), train=TrainConfig(batch_size=4, micro_batch=2, gradient_checkpointing=True)
    )
    less = [
        replace(config, train=replace(config.train, micro_batch=1)),
        replace(config, zero=ZeroConfig(stage=3, offload=Offload.weights)),
        replace(config, data=replace(config.data, frames=33)),
        replace(config, lora=LoraConfig(rank=4)),
    ]
    assert all(gib(each) < gib(config) for each in less)
    assert gib(replace(config, train=replace(config.train, checkpointing=Checkpointing.none))) > 3 * gib(config)
    shared = replace(config, zero=ZeroConfig(stage=3))
    assert gib(shared, 4) < gib(shared, 2) < gib(config, 2)
    tokens = replace(config, model=replace(config.model, sequence_workers=2))
    assert gib(tokens, 2, "generate") < gib(config, 2, "generate")


def test_a_base_has_no_optimiser_and_no_training() -> None:
    config = replace(trial(17, 64, TargetSet.cross, 0), method=Method.base)
    phases = footprint(WAN, VAE, config, 1, heldout=64)
    assert set(phases) == {"heldout", "generate", "decode"} and phases["decode"]["adapter and its optimiser"] == 0
    assert phases["heldout"]["base"] == 2 * (WAN.parameters - WAN.kept)
    without = replace(config, sample=replace(config.sample, clips=False))
    assert footprint(WAN, VAE, without, 1, heldout=64) == {"heldout": phases["heldout"]}


def test_buckets_of_the_sharded_optimisers() -> None:
    config = replace(trial(17, 64, TargetSet.cross, 0), zero=ZeroConfig(stage=1))
    assert footprint(WAN, VAE, config, 1, 1)["train"]["bucket"] == 2 * BUCKET


def test_heldout_batches_hold_tokens_not_windows() -> None:
    sizes = [(17, 64, 64), (33, 480, 832), (81, 480, 832), (81, 720, 1280)]
    assert [DataConfig(frames=f, height=h, width=w).heldout_batch for f, h, w in sizes] == [8, 4, 2, 1]


def test_the_config_is_the_one_of_the_full_model() -> None:
    assert json.loads((SHAPES[EXAMPLE] / "transformer" / "config.json").read_text()) == CONFIG


@pytest.mark.parametrize(("frames", "gib"), [(33, 44.7), (49, 50.7), (81, 62.6)])
def test_peaks_measured_on_an_h100_with_compiled_blocks(frames: int, gib: float) -> None:
    """All blocks checkpointed but for self-attention, rank 16; docs/benchmarks.md."""
    config = trial(frames, 16, TargetSet.cross, 0, kind=Checkpointing.attention)
    config = replace(config, model=replace(config.model, compile=True))
    parts = footprint(Denoiser.of(CONFIG), VAE, config, workers=1, heldout=1)
    assert peak_gib(parts["train"]) == pytest.approx(gib, rel=0.03)


def test_training_that_keeps_self_attention() -> None:
    sizes = {**CONFIG, "num_layers": 3}
    for blocks in (0, 2):
        config = trial(17, 16, TargetSet.cross, blocks, kind=Checkpointing.attention)
        counted = count_denoiser(sizes, config, True)
        assert predicted(sizes, config, "train") == pytest.approx(counted, rel=0.03)
