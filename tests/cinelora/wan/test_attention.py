"""Kernels that give the same bytes again: each is tried, the first that does is used, and none is an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from cinelora import distributed
from cinelora.core.cli import UserError
from cinelora.core.config import Dtype, ModelConfig, TrialConfig
from cinelora.training.batch import training_batch
from cinelora.training.loop import optimiser_step, prepare
from cinelora.trial.resident import load_resident_model
from cinelora.wan import attention, lora
from cinelora.wan.attention import KERNELS, STRICT, Kernel, choose_kernel, first_deterministic, use_deterministic
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import load_transformer
from tests import tiny_study

CUDNN, FLASH, EFFICIENT, MATH = KERNELS
calls = count()


def equal(kernel: Kernel, keys: int) -> Sequence[torch.Tensor]:
    return [torch.full((2, 3), float(keys))] * 4


def drifting(kernel: Kernel, keys: int) -> Sequence[torch.Tensor]:
    """Differs from call to call in the last bit of one gradient, for the keys of the text."""
    last = torch.ones(2, 3)
    if keys == attention.TEXT_TOKENS:
        last[1, 2] += next(calls) % 2 * torch.finfo(torch.float32).eps
    return [torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3), last]


def refusing(kernel: Kernel, keys: int) -> Sequence[torch.Tensor]:
    raise RuntimeError("No available kernel.\nAborting execution.")


def test_the_first_kernel_with_equal_bytes_is_taken() -> None:
    config, behave = TrialConfig(), {CUDNN: drifting, FLASH: refusing, EFFICIENT: equal, MATH: equal}
    kernel, refused = first_deterministic(KERNELS, lambda kernel, keys: behave[kernel](kernel, keys), config)
    assert kernel is EFFICIENT
    assert refused == [
        "_native_cudnn: two runs with 512 keys differ in the gradient of value",
        "_native_flash (deterministic algorithms): No available kernel",
    ]


def test_without_one_each_kernel_is_named_with_its_reason() -> None:
    behave = {CUDNN: drifting, FLASH: refusing}
    config = TrialConfig(model=ModelConfig(attention="flash"))
    with pytest.raises(UserError) as error:
        first_deterministic(KERNELS[:2], lambda kernel, keys: behave[kernel](kernel, keys), config)
    assert str(error.value) == (
        "train.deterministic=true: no attention kernel here gives the same bytes twice (_native_cudnn: two runs with "
        "512 keys differ in the gradient of value; _native_flash (deterministic algorithms): No available kernel); "
        "leave model.attention empty, or set train.deterministic=false, whose results differ from run to run by "
        "rounding"
    )


def test_all_workers_take_the_same_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "gather_objects", lambda mine: [mine, "differs" if next(calls_of) == 0 else None])
    calls_of = count()
    kernel, refused = first_deterministic(KERNELS, equal, TrialConfig())
    assert kernel is FLASH and refused == ["_native_cudnn: differs"], "the other worker refused the first"


@pytest.mark.parametrize(
    ("model", "backend", "strict"),
    [
        (ModelConfig(), "_native_flash", True),  # cuDNN's runs on no CPU
        (ModelConfig(dtype=Dtype.bfloat16, short_text=True), "_native_flash", True),
        (ModelConfig(attention="_native_math"), "_native_math", False),
    ],
)
def test_the_chosen_kernel_is_what_the_denoiser_runs(
    tmp_path: Path, model: ModelConfig, backend: str, strict: bool
) -> None:
    transformer = load_transformer(model_folder(model, tmp_path), model.dtype, "cpu", model.short_text)
    use_deterministic(transformer, TrialConfig(model=model))
    assert not hasattr(transformer, STRICT), "nothing changes on a CPU"
    record = choose_kernel(transformer, TrialConfig(model=model))
    assert (record["backend"], record["strict"]) == (backend, strict)
    found = {block.attn1.processor._attention_backend.value for block in transformer.blocks}
    assert (found, getattr(transformer, STRICT)) == ({backend}, strict)


def test_both_passes_of_training_run_as_the_kernel_was_tried(study_root: Path) -> None:
    if not torch.distributed.is_initialized():
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    job = replace(job, study=replace(job.study, root=study_root / "strict"))
    transformer, config = load_resident_model(job, nets=False).transformer, job.spec.config
    engine, parameters, _ = prepare(transformer, job.spec, job.folder)
    seen = []
    transformer.blocks[0].register_forward_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    parameters[0][1].register_hook(lambda _: seen.append(torch.are_deterministic_algorithms_enabled()))
    for strict in (False, True):
        setattr(transformer, STRICT, strict)
        slots = (range(2), range(2, 4))
        batches = (training_batch(config, Encodings(job.encodings), job.windows(), 0, each) for each in slots)
        optimiser_step(engine, config, batches, 0, False)
        assert seen == [strict] * 4 and not torch.are_deterministic_algorithms_enabled()
        seen.clear()
    lora.detach(transformer)
