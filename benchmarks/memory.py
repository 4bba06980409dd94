"""Does the memory model of `sweeps/memory.py` say what the real classes need at full size?

    OMP_NUM_THREADS=1 python -m benchmarks.memory    (3 minutes, no weights, no GPU)
    MALLOC_MMAP_THRESHOLD_=65536 OMP_NUM_THREADS=1 python -m benchmarks.memory --resident

In: nothing; diffusers' Wan2.1 I2V-14B and its autoencoder, PEFT's adapter, tensors without storage. Every tensor that
an operator returns is counted until it is freed, through forward pass, checkpointing and backward pass.
Out: a Markdown table of GiB besides the weights, predicted and counted. The two kernels that differ between the devices
are set to what a GPU runs: fused attention, with the float32 scratch of its backward pass, and the fused RMS norm.
"""

from __future__ import annotations

import argparse
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.loading import memory
from cinelora import distributed
from cinelora.core.config import (
    Checkpointing,
    DataConfig,
    Dtype,
    LoraConfig,
    Method,
    ModelConfig,
    SampleConfig,
    TargetSet,
    TrainConfig,
    TrialConfig,
    ZeroConfig,
)
from cinelora.wan import lora
from cinelora.wan.acceleration import checkpoint_blocks
from cinelora.wan.checkpoint import EXAMPLE, SHAPES
from cinelora.wan.loading import TORCH_DTYPE
from sweeps.denoiser import Denoiser
from sweeps.memory import GIB, footprint

CONFIG = json.loads((SHAPES[EXAMPLE] / "transformer" / "config.json").read_text())
VAE = {"base_dim": 96}
HEIGHT, WIDTH = 480, 832
FRAMES, RANKS = (17, 33, 49, 81), (4, 16, 64, 128)


class Count(TorchDispatchMode):
    """Within, `live` and `peak`: bytes of the tensors that operators return, until their storage is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            self._seen[storage] = storage.nbytes()
            self.live += storage.nbytes()
            weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "flash_attention" in str(func) and "backward" in str(func):
            self.peak = max(self.peak, self.live + args[1].numel() * 4)  # gradient of q, summed in float32
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                self.add(each)
        self.peak = max(self.peak, self.live)
        return out


class _FusedNorm(torch.autograd.Function):
    """What the fused RMS norm of a GPU keeps: its input, and one float32 a row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, torch.empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return torch.empty_like(gradients[0]), None


@contextmanager
def fused_norms() -> Iterator[None]:
    stock = torch.nn.RMSNorm.forward
    torch.nn.RMSNorm.forward = lambda self, x: _FusedNorm.apply(x, self.weight)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.RMSNorm.forward = stock  # type: ignore[method-assign]


@contextmanager
def linears(stage: int) -> Iterator[None]:
    """As DeepSpeed has torch compute linear layers: in stage 3 by its own function, which keeps inputs."""
    distributed.quiet_deepspeed()
    from deepspeed.runtime.zero.linear import zero3_linear_wrap
    from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses as Patched

    stock = getattr(Patched, "linear_bk", torch.nn.functional.linear)
    with patch.object(torch.nn.functional, "linear", zero3_linear_wrap if stage == 3 else stock):
        yield


def denoiser(sizes: dict[str, Any], config: TrialConfig) -> Any:
    """The real class with its adapter; parameters without storage, in the precisions that training gives them."""
    with init_empty_weights():
        model: Any = WanTransformer3DModel.from_config(sizes)
        model.requires_grad_(False)
        if config.method is Method.lora:
            with patch.object(lora, "_initial", lambda _, parameter, seed: parameter.data):  # no values to draw
                lora.attach(model, config.lora, seed=0)
    return model


def _without_storage(model: Any, dtype: torch.dtype) -> None:
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, module in model.named_modules():
        for leaf, each in module._parameters.items():
            if each is not None:
                wide = bool(kept & set(f"{name}.{leaf}".split("."))) and "lora_" not in name
                made = torch.empty(each.shape, dtype=torch.float32 if wide else dtype)
                module._parameters[leaf] = torch.nn.Parameter(made, requires_grad=each.requires_grad)
        for leaf, each in module._buffers.items():
            module._buffers[leaf] = torch.empty(each.shape)


def count_denoiser(sizes: dict[str, Any], config: TrialConfig, trains: bool, clips: int = 1) -> int:
    """Bytes besides the weights at the peak of one pass over `clips` windows, with its backward pass if it `trains`."""
    model, data, dtype = denoiser(sizes, config), config.data, TORCH_DTYPE[config.model.dtype]
    if trains:
        checkpoint_blocks(model, config.train.checkpointing, config.train.checkpointed_blocks, config.zero.stage)
    latent = (clips, sizes["in_channels"], data.latent_frames, data.height // 8, data.width // 8)
    with FakeTensorMode(), fused_norms(), linears(config.zero.stage), torch.set_grad_enabled(trains):
        _without_storage(model, dtype)
        count = Count()
        for each in [*model.parameters(), *model.buffers()]:
            count.add(each)
        weights = count.live
        with count:
            velocity = model(
                hidden_states=torch.empty(latent, dtype=dtype),
                timestep=torch.empty(clips),
                encoder_hidden_states=torch.empty(clips, 512, sizes["text_dim"], dtype=dtype),
                encoder_hidden_states_image=torch.empty(clips, 257, sizes["image_dim"], dtype=dtype),
                return_dict=False,
            )[0]
            if trains:
                velocity.float().square().mean().backward()
    return count.peak - weights


def count_vae(data: DataConfig, decodes: bool) -> int:
    """Bytes besides the weights at the peak of decoding or encoding one window."""
    with init_empty_weights():
        vae: Any = AutoencoderKLWan()
    with FakeTensorMode(), torch.no_grad():
        _without_storage(vae, torch.float32)
        count = Count()
        with count:
            if decodes:
                vae.decode(torch.empty(1, 16, data.latent_frames, data.height // 8, data.width // 8))
            else:
                vae.encode(torch.empty(1, 3, data.frames, data.height, data.width))
    return count.peak


def resident() -> None:
    """A real training pass of a narrow model on the CPU: the bytes counted and the growth of the process.

    MALLOC_MMAP_THRESHOLD_=65536 in the environment gives freed tensors back at once, as the count does.
    """
    shape = {**CONFIG, "num_attention_heads": 8, "ffn_dim": 2816, "num_layers": 3, "added_kv_proj_dim": 1024}
    model: Any = WanTransformer3DModel.from_config(shape).requires_grad_(False)
    lora.attach(model, LoraConfig(rank=16, targets=TargetSet.block), seed=0)

    def velocity(frames: int) -> torch.Tensor:
        states = {"encoder_hidden_states": torch.randn(1, 512, 4096), "timestep": torch.ones(1)}
        states |= {"encoder_hidden_states_image": torch.randn(1, 257, 1280)}
        return model(hidden_states=torch.randn(1, 36, frames, 60, 52), **states, return_dict=False)[0]

    velocity(1).square().mean().backward()
    before, count = memory()["now"], Count()
    with count:
        velocity(10).square().mean().backward()
    print(f"counted {count.peak / 1e9:.2f} GB, resident {memory()['most'] - before:.2f} GB more than before the pass")


def trial(
    frames: int,
    rank: int,
    targets: TargetSet,
    blocks: int | None,
    dtype: Dtype = Dtype.bfloat16,
    kind: Checkpointing = Checkpointing.all,
) -> TrialConfig:
    """`blocks` checkpointed ones, as `kind` says; 0: all, None: none."""
    return TrialConfig(
        model=ModelConfig(dtype=dtype),
        data=DataConfig(frames=frames, height=HEIGHT, width=WIDTH),
        lora=LoraConfig(rank=rank, targets=targets),
        train=TrainConfig(
            batch_size=1,
            micro_batch=1,
            checkpointing=Checkpointing.none if blocks is None else kind,
            checkpointed_blocks=blocks or 0,
        ),
        sample=SampleConfig(batch_size=1),
    )


RESIDENT = ("base", "kept in float32", "gathered blocks", "adapter and its optimiser", "VAE", "feature nets", "bucket")


def predicted(sizes: dict[str, Any], config: TrialConfig, phase: str) -> float:
    """Bytes besides those that are resident."""
    parts = footprint(Denoiser.of(sizes), VAE, config, workers=1, heldout=1)[phase]
    return sum(size for name, size in parts.items() if name not in RESIDENT)


def rows() -> Iterator[tuple[str, TrialConfig, str, float]]:
    """(what, config, phase, counted bytes)."""
    for frames in FRAMES:
        for rank in RANKS:
            config = trial(frames, rank, TargetSet.cross, 0)
            yield "all blocks checkpointed", config, "train", count_denoiser(CONFIG, config, True)
    for targets in TargetSet:
        config = trial(49, 64, targets, 0)
        yield "all blocks checkpointed", config, "train", count_denoiser(CONFIG, config, True)
        config = trial(17, 64, targets, None)
        yield "none checkpointed", config, "train", count_denoiser(CONFIG, config, True)
    for frames in FRAMES:
        config = trial(frames, 16, TargetSet.cross, 0, kind=Checkpointing.attention)
        yield "all blocks but self-attention", config, "train", count_denoiser(CONFIG, config, True)
    for targets in (TargetSet.block, TargetSet.linear):
        config = trial(33, 64, targets, 36, kind=Checkpointing.attention)
        yield "36 of 40 but self-attention", config, "train", count_denoiser(CONFIG, config, True)
    for blocks in (10, 30):
        config = trial(33, 128, TargetSet.block, blocks)
        yield f"{blocks} of 40 checkpointed", config, "train", count_denoiser(CONFIG, config, True)
    for what, chosen in (("all checkpointed, ZeRO-3", 0), ("none checkpointed, ZeRO-3", None)):
        config = replace(trial(17, 64, TargetSet.cross, chosen), zero=ZeroConfig(stage=3))
        yield what, config, "train", count_denoiser(CONFIG, config, True)
    config = trial(17, 16, TargetSet.cross, 0, Dtype.float32)
    yield "all checkpointed, float32", config, "train", count_denoiser(CONFIG, config, True)
    for frames in FRAMES:
        for targets in (TargetSet.cross, TargetSet.block):
            config = trial(frames, 64, targets, 0)
            yield "one pass", config, "generate", count_denoiser(CONFIG, config, False)
        yield "autoencoder", config, "decode", count_vae(config.data, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--resident", action="store_true", help="compare with the resident memory of a small pass")
    if parser.parse_args().resident:
        return resident()
    print("| frames | rank | targets | what | phase | predicted GiB | counted GiB | error |")
    print("|--:|--:|:--|:--|:--|--:|--:|--:|")
    errors = []
    for what, config, phase, counted in rows():
        said = predicted(CONFIG, config, phase)
        errors.append(abs(said / counted - 1))
        place = f"{config.data.frames} | {config.lora.rank} | {config.lora.targets.value} | {what} | {phase}"
        print(f"| {place} | {said / GIB:.2f} | {counted / GIB:.2f} | {said / counted - 1:+.1%} |", flush=True)
    print(f"\n{len(errors)} rows at {HEIGHT}x{WIDTH}; largest error {max(errors):.1%}")


if __name__ == "__main__":
    main()
