"""Less memory or time for the denoiser: activation checkpointing, compilation, and the step cache of the sampler.

In: a WanTransformer3DModel, adapter attached or not, bare or inside an engine. Out: the same model. Checkpointing
changes no bit of its results and compilation only rounding; the step cache approximates, so it is part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from cinelora.core.config import SampleConfig, StepCache

GRAPHS = 256  # compiled graphs kept: each rank, target set, batch shape and gradient mode has its own


def checkpoint_blocks(transformer: Any, count: int) -> None:
    """Keep only the inputs of the first `count` blocks (0: of all) for the backward pass, which runs them again.

    Reentrant checkpoints, because the others compare the weights of both runs, and ZeRO-3 has moved them in between.
    Reentrant ones give no gradient to a block none of whose inputs needs one, such as the first block on a frozen base.
    An empty tensor that needs one is passed along, so that no gradient of the input itself is computed.
    """
    blocks = list(transformer.blocks)
    chosen = set(blocks[: count or len(blocks)])

    def run(block: Any, *inputs: Any) -> Any:
        if block not in chosen:
            return block(*inputs)
        empty = torch.empty(0, requires_grad=True)
        return checkpoint(lambda _, *own: block(*own), empty, *inputs, use_reentrant=True, preserve_rng_state=False)

    transformer.enable_gradient_checkpointing(run)


def compile_blocks(transformer: Any, backend: str = "inductor") -> None:
    """Compile each block at its first call with inputs of a new shape; all blocks share the compiled graphs.

    Attaching or removing an adapter changes a block: it is compiled again, or an earlier graph is used.
    """
    torch._dynamo.config.recompile_limit = GRAPHS
    transformer.compile_repeated_blocks(backend=backend)


CachedPass = Callable[[str], AbstractContextManager[None]]  # "cond" or "uncond", each with a cache of its own


@contextmanager
def step_cache(model: Any, sample: SampleConfig) -> Iterator[CachedPass]:
    """Within, a pass whose first block hardly changed since the last step skips the rest (FirstBlockCache).

    Yields the context manager of a pass. The cache serves one batch of clips and decides for the whole batch; at the
    end it is removed from the model.
    """
    if sample.cache is StepCache.none:
        yield lambda name: nullcontext()
        return
    from diffusers import FirstBlockCacheConfig

    denoiser = getattr(model, "module", model)
    denoiser.enable_cache(FirstBlockCacheConfig(sample.cache_threshold))
    try:
        yield denoiser.cache_context
    finally:
        denoiser.disable_cache()
        for module in denoiser.modules():
            _forget_hooks(module)


def _forget_hooks(module: Any) -> None:
    """Remove what `disable_cache` leaves: an empty registry, and the class's own `forward` set on the instance."""
    registry = module.__dict__.get("_diffusers_hook")
    if registry is None or registry.hooks:
        return
    del module._diffusers_hook
    if getattr(module.__dict__.get("forward"), "__func__", None) is type(module).forward:
        del module.forward
