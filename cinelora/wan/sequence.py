"""Several workers share the tokens of each clip (Ulysses, Jacobs et al. 2023, arXiv 2309.14509), by diffusers' hooks.

In: a denoiser on every worker of a gang. Out: within `shared_tokens` the same denoiser, same inputs and outputs, each
worker computing its part of the tokens; self-attention exchanges tokens for heads and back. A gang of w workers is w/s
data groups of s neighbours. Their gradients are parts of a sum: an engine that averages over w needs s times the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import ContextParallelConfig, ParallelConfig
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel

from cinelora import distributed as dist


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
    mesh = dist.sequence_mesh(workers)
    config: Any = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=workers, mesh=mesh))
    config.setup(dist.rank(), dist.world_size(), dist.device_name(), mesh=mesh)
    return config


def _set_parallel(transformer: Any, config: Any) -> None:
    for processor in transformer.attn_processors.values():
        processor._parallel_config = config
