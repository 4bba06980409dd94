"""One clip on several GPUs: its tokens shared out (Ulysses), the weights sharded (FSDP2), or both.

    torchrun --nproc-per-node 2 -m cinelora.render ... --parallel both

In: a frozen denoiser with its adapters on it, whole in every process. Out: the same denoiser, called alike by all
processes with the same inputs, each of which returns the whole output. Ulysses shortens the wait, FSDP the memory. On
CPUs (gloo) both equal the single process bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel

from cinelora import distributed
from cinelora.core.cli import UserError
from cinelora.core.config import StepCache, TrialConfig
from cinelora.core.files import read_json
from cinelora.wan.options import BACKENDS


class Parallel(Enum):
    none = "none"
    ulysses = "ulysses"
    fsdp = "fsdp"
    both = "both"


ULYSSES, SHARDED = (Parallel.ulysses, Parallel.both), (Parallel.fsdp, Parallel.both)


def join(mode: Parallel, folder: Path, config: TrialConfig) -> int:
    """Enter the group that torchrun prepared, on this process's own GPU; returns its size.

    Raises UserError where there is none, or the denoiser in `folder` cannot be shared out so.
    """
    if "RANK" not in os.environ:
        raise UserError(
            "--parallel: needs several processes; start with torchrun --nproc-per-node N -m cinelora.render"
        )
    processes = int(os.environ["WORLD_SIZE"])
    check(mode, processes, read_json(folder / "transformer" / "config.json")["num_attention_heads"], config)
    import torch

    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return processes


def check(mode: Parallel, processes: int, heads: int, config: TrialConfig) -> None:
    """That the denoiser can be shared out. Raises UserError with the numbers."""
    if config.sample.cache is not StepCache.none:
        raise UserError(
            f"--parallel {mode.value}: not with sample.cache={config.sample.cache.value}, by which each process would "
            "skip passes the others wait in; leave out --parallel"
        )
    backend = config.model.attention
    if mode in ULYSSES and backend and not BACKENDS[backend].splits:
        raise UserError(f"--parallel {mode.value}: model.attention={backend} cannot share tokens; take --parallel fsdp")
    for name, count in (("attention heads", heads), ("tokens", config.data.video_tokens)):
        if mode in ULYSSES and count % processes:
            raise UserError(f"--parallel {mode.value}: {count} {name} do not divide by {processes} processes")


@contextmanager
def spread(transformer: Any, mode: Parallel) -> Iterator[None]:
    """Within, all processes of the group compute each pass together. Sharded weights stay sharded after it."""
    from cinelora import distributed

    if mode in SHARDED:
        shard_weights(transformer)
    with shared_tokens(transformer, distributed.world_size() if mode in ULYSSES else 1):
        yield


def shard_weights(transformer: Any) -> None:
    """FSDP2: each block gathers its weights for its own pass."""
    from torch.distributed.fsdp import fully_shard

    for block in transformer.blocks:
        fully_shard(block)
    fully_shard(transformer)


# ~ Several workers share the tokens of each clip (Ulysses, Jacobs et al. 2023, arXiv 2309.14509), by diffusers' hooks.
# ~
# ~ In: a denoiser on every worker of a gang. Out: within `shared_tokens` the same denoiser, same inputs and outputs,
# ~ each
# ~ worker computing its part of the tokens; self-attention exchanges tokens for heads and back. A gang of w workers
# ~ is w/s
# ~ data groups of s neighbours. Their gradients are parts of a sum: an engine that averages over w needs s times the
# ~ loss.


@contextmanager
def shared_tokens(transformer: Any, workers: int) -> Iterator[None]:
    """Within, groups of `workers` workers compute each forward and backward pass together, in step."""
    if workers == 1:
        yield
        return
    plan = {name: part for name, part in transformer._cp_plan.items() if name}  # "" is for timesteps per token
    config = _config(workers)
    _set_parallel(transformer, config)
    apply_context_parallel(transformer, config.context_parallel_config, plan)
    try:
        yield
    finally:
        remove_context_parallel(transformer, plan)
        _set_parallel(transformer, None)


def _config(workers: int) -> Any:
    """What `enable_parallelism` would make, which needs an accelerator and has no way back."""
    mesh = distributed.sequence_mesh(workers)
    config: Any = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=workers, mesh=mesh))
    config.setup(distributed.rank(), distributed.world_size(), distributed.device_name(), mesh=mesh)
    return config


def _set_parallel(transformer: Any, config: Any) -> None:
    for processor in transformer.attn_processors.values():
        processor._parallel_config = config
