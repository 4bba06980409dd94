"""Options of one worker that change nothing, or only rounding: checkpointed and compiled blocks, offload, attention."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch.utils._python_dispatch import TorchDispatchMode

from cinelora import distributed
from cinelora.core.cli import UserError
from cinelora.core.config import Checkpointing, Dtype, LoraConfig, ModelConfig, TargetSet
from cinelora.core.records import resident_key
from cinelora.training.batch import prefetch, training_batch
from cinelora.training.engine import deepspeed_config
from cinelora.trial import resident as base
from cinelora.trial.resident import ResidentModel, load_resident_model
from cinelora.wan import acceleration, lora
from cinelora.wan.acceleration import checkpoint_blocks
from cinelora.wan.attention import backend_error, use_attention
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import load_transformer
from cinelora.wan.options import BACKENDS, check_attention
from tests import tiny_study

WHOLE = {"lora__rank": 4, "lora__targets": "attn", "zero__persistence_threshold": 0}


@pytest.fixture(scope="module")
def resident(study_root: Path) -> ResidentModel:
    if not torch.distributed.is_initialized():
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    return load_resident_model(tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips")))


def adapter_of(root: Path, on: ResidentModel | None, resume: bool = False, **changes: Any) -> str:
    """Its hash after a trial of 6 steps; `resume`: killed after the 5th and resumed from the 4th."""

    class Killed(Exception):
        pass

    def kill(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train" and done == 5:
            raise Killed

    job = tiny_study.make_job(root, tiny_study.tiny_config(root / "clips", **{**WHOLE, **changes}))
    shutil.rmtree(job.study.root, ignore_errors=True)
    if resume:
        with pytest.raises(Killed):
            tiny_study.run(job, on, kill)
    return str(tiny_study.run(job, on).adapter_sha256)


@pytest.fixture(scope="module")
def plain(study_root: Path, resident: ResidentModel) -> str:
    return adapter_of(study_root, resident)


# --- checkpointing and offload: to the bit ---


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("kind", ["all", "attention"])
def test_checkpointed_blocks_change_no_bit(
    study_root: Path, resident: ResidentModel, plain: str, kind: str, count: int
) -> None:
    changes = {"train__checkpointing": kind, "train__checkpointed_blocks": count}
    assert adapter_of(study_root, resident, **changes) == plain
    assert adapter_of(study_root, resident) == plain, "the next trial keeps its activations again"


def test_only_the_chosen_blocks_run_twice(resident: ResidentModel, study_root: Path) -> None:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    batch = training_batch(job.spec.config, Encodings(job.encodings), job.windows(), 0, range(1))
    parameters = lora.attach(resident.transformer, LoraConfig(rank=2, targets=TargetSet.block), seed=0)
    runs = dict.fromkeys(range(len(resident.transformer.blocks)), 0)

    def count(index: int) -> Any:
        return lambda *_: runs.update({index: runs[index] + 1})

    hooks = [block.register_forward_pre_hook(count(i)) for i, block in enumerate(resident.transformer.blocks)]
    checkpoint_blocks(resident.transformer, Checkpointing.all, 1, 0)
    batch.losses(resident.transformer).mean().backward()
    for hook in hooks:
        hook.remove()
    resident.transformer.disable_gradient_checkpointing()
    lora.detach(resident.transformer)
    assert runs == {0: 2, 1: 1}
    assert all(parameter.grad is not None for _, parameter in parameters), "also of the first, whose input is frozen"
    assert all(weight.grad is None for weight in resident.transformer.parameters()), "none for what is frozen"


class CountAttention(TorchDispatchMode):
    """Within, `runs` of the attention kernel."""

    runs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.runs += func in acceleration.ATTENTION
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("kind", "stage", "runs"),
    [
        (Checkpointing.none, 0, 6),
        (Checkpointing.attention, 0, 10),
        (Checkpointing.all, 0, 12),
        (Checkpointing.attention, 3, 12),
        (Checkpointing.auto, 0, 12),
    ],
)
def test_what_self_attention_returned_is_kept(
    resident: ResidentModel, study_root: Path, kind: Checkpointing, stage: int, runs: int
) -> None:
    """Two blocks, each with self-attention and cross-attention to text and image. ZeRO-3 can only run all twice."""
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    batch = training_batch(job.spec.config, Encodings(job.encodings), job.windows(), 0, range(1))
    lora.attach(resident.transformer, LoraConfig(rank=2, targets=TargetSet.attn), seed=0)
    checkpoint_blocks(resident.transformer, kind, 0, stage)
    with CountAttention() as count:
        batch.losses(resident.transformer).mean().backward()
    resident.transformer.disable_gradient_checkpointing()
    lora.detach(resident.transformer)
    assert count.runs == runs


@pytest.mark.parametrize(("stage", "offload"), [(1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "weights")])
def test_offload_changes_no_bit_and_resumes(
    study_root: Path, resident: ResidentModel, plain: str, stage: int, offload: str
) -> None:
    on = None if stage == 3 else resident
    assert adapter_of(study_root, on, resume=True, zero__stage=stage, zero__offload=offload) == plain


def test_offload_is_what_the_engine_is_told() -> None:
    config = tiny_study.tiny_config(Path("clips"), zero__stage=3, zero__offload="weights")
    found = deepspeed_config(config.train, config.zero, Dtype.bfloat16, 1)["zero_optimization"]
    place = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    assert found["offload_param"] == found["offload_optimizer"] == place


# --- compiled: to rounding ---


@pytest.mark.parametrize("kind", [Checkpointing.none, Checkpointing.attention])
def test_compiled_blocks_follow_adapters_that_come_and_go(
    study_root: Path, resident: ResidentModel, monkeypatch: pytest.MonkeyPatch, kind: Checkpointing
) -> None:
    compile_blocks = acceleration.compile_blocks
    monkeypatch.setattr(base, "compile_blocks", lambda model: compile_blocks(model, backend="aot_eager"))
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips", model__compile=True))
    compiled, config = load_resident_model(job), job.spec.config
    assert compiled.key != resident.key, "a base that is not compiled cannot stand in"
    batch = training_batch(config, Encodings(job.encodings), job.windows(), 0, range(2))
    for rank in (2, 0, 4):
        found = []
        for on in (resident, compiled):
            parameters = lora.attach(on.transformer, LoraConfig(rank=rank), seed=0) if rank else []
            if on is compiled:
                checkpoint_blocks(on.transformer, kind, 0, 0)
            with torch.set_grad_enabled(bool(rank)):
                loss = batch.losses(on.transformer).mean()
            if rank:
                loss.backward()
            found.append([loss.detach(), *(p.grad for name, p in parameters if ".lora_B" in name)])
            lora.detach(on.transformer)
        assert len(found[0]) == (13 if rank else 1)
        for eager, ours in zip(*found, strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-7)


# --- attention ---


def test_backends_are_those_of_diffusers() -> None:
    known = {each.value for each in AttentionBackendName}
    assert set(BACKENDS) <= known
    assert {name for name, each in BACKENDS.items() if each.splits} == (
        set(BACKENDS) & _AttentionBackendRegistry._supports_context_parallel
    )


def test_an_unusable_backend_is_named_with_those_that_work(study_root: Path) -> None:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips", model__attention="flash"))
    with pytest.raises(
        UserError, match=r"^model\.attention=flash: .*flash-attn.*; this worker has native, .*_native_math"
    ):
        load_resident_model(job)


def test_a_backend_belongs_to_one_model(study_root: Path, resident: ResidentModel) -> None:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    other = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips", model__attention="native"))
    assert resident_key(job.spec) == resident.key != resident_key(other.spec)
    model = load_transformer(resident.folder, Dtype.float32, short_text=True)
    use_attention(model, "_native_math", torch.float32)
    assert {each._attention_backend for each in model.attn_processors.values()} == {"_native_math"}
    active, _ = _AttentionBackendRegistry.get_active_backend()
    assert active == "native", "no other base is touched"
    assert backend_error("native", torch.float32, 16) is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(attention="flsh"), r"attention=flsh: no such backend.*take native, .*_native_math"),
        (ModelConfig(attention="flash"), r"attention=flash: computes in bfloat16, model\.dtype=float32; take native"),
        (ModelConfig(attention="_native_math", sequence_workers=2), r"cannot share tokens.*take native, or leave it"),
        (ModelConfig(attention="xformers"), r"package xformers is not installed; take native"),
    ],
)
def test_the_plan_refuses_backends_that_cannot_run(model: ModelConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_attention(model, here=True)


def test_the_plan_leaves_packages_to_workers_elsewhere() -> None:
    check_attention(ModelConfig(attention="xformers"), here=False)
    check_attention(ModelConfig(), here=True)


# --- prefetching ---


def test_work_ahead_is_in_order_and_at_most_one_early() -> None:
    begun: list[int] = []

    def job(index: int) -> Any:
        def run() -> int:
            begun.append(index)
            if index == 3:
                raise OSError("disk")
            return index

        return run

    results = prefetch(job(index) for index in range(5))
    for index in range(3):
        assert next(results) == index
        assert max(begun) <= index + 1
    with pytest.raises(OSError, match="disk"):
        next(results)
