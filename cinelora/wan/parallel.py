"""One clip on several GPUs: its tokens shared out (Ulysses), the weights sharded (FSDP2), or both.

    torchrun --nproc-per-node 2 -m cinelora.render ... --parallel both

In: a denoiser with its adapters on it, whole in every process of a group. Out: within `spread` and `shared_tokens` the
same denoiser, called alike by all processes with the same inputs, each of which returns the whole output. Ulysses
shortens the wait, FSDP the memory. On CPUs (gloo) both equal the single process bit for bit.

Ulysses (Jacobs et al. 2023, arXiv 2309.14509) is that of diffusers' hooks: each worker computes its part of the tokens,
and self-attention exchanges tokens for heads and back. In training, a gang of w workers is w/s data groups of s
neighbours. Their gradients are parts of a sum, so an engine that averages over w needs s times the loss.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel
from torch.distributed.fsdp import fully_shard

from cinelora import distributed
from cinelora.wan.options import SHARDED, ULYSSES, Parallel


def join() -> None:
    """Enter the group that torchrun prepared, on this process's own GPU."""
    if not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


@contextmanager
def spread(transformer: Any, mode: Parallel) -> Iterator[None]:
    """Within, all processes of the group compute each pass together. Sharded weights stay sharded after it."""
    if mode in SHARDED:
        for block in transformer.blocks:  # FSDP2: each block gathers its weights for its own pass
            fully_shard(block)
        fully_shard(transformer)
    with shared_tokens(transformer, distributed.world_size() if mode in ULYSSES else 1):
        yield


@contextmanager
def shared_tokens(transformer: Any, workers: int) -> Iterator[None]:
    """Within, groups of `workers` workers compute each forward and backward pass together, in step."""
    if workers == 1:
        yield
        return
    plan = {name: part for name, part in transformer._cp_plan.items() if name}  # "" is for timesteps per token
    # what `enable_parallelism` would make, which needs an accelerator and cannot be undone
    mesh = distributed.sequence_mesh(workers)
    config: Any = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=workers, mesh=mesh))
    config.setup(distributed.rank(), distributed.world_size(), distributed.device_name(), mesh=mesh)
    _set_parallel(transformer, config)
    apply_context_parallel(transformer, config.context_parallel_config, plan)
    try:
        yield
    finally:
        remove_context_parallel(transformer, plan)
        _set_parallel(transformer, None)


def _set_parallel(transformer: Any, config: Any) -> None:
    for processor in transformer.attn_processors.values():
        processor._parallel_config = config
