"""What is done to the blocks of the denoiser, one by one: activation checkpointing and compilation.

In: a WanTransformer3DModel, adapter attached or not. Out: the same model; neither changes what it computes (compiled:
to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from cinelora.core.config import SampleConfig, StepCache

GRAPHS = 256  # kept for a block: each rank, target set, batch shape and gradient mode has its own


def checkpoint_blocks(transformer: Any, count: int) -> None:
    """Keep only the inputs of the first `count` blocks (0: of all) for the backward pass, which runs them again.

    Reentrant, because the other kind compares the weights of both runs, and ZeRO-3 has moved them in between. That kind
    drops a block none of whose inputs needs a gradient, as the first one's do not under a frozen base; an empty tensor
    that does stands in, so that no gradient of the input itself is computed.
    """
    blocks = list(transformer.blocks)
    chosen = set(blocks[: count or len(blocks)])

    def run(block: Any, *inputs: Any) -> Any:
        if block not in chosen:
            return block(*inputs)
        stand_in = torch.empty(0, requires_grad=True)
        return checkpoint(
            lambda _, *given: block(*given), stand_in, *inputs, use_reentrant=True, preserve_rng_state=False
        )

    transformer.enable_gradient_checkpointing(run)


def compile_blocks(transformer: Any, backend: str = "inductor") -> None:
    """Compile each block when it is first called with inputs of a kind; all blocks share what was compiled.

    An adapter that comes or goes changes a block, so it is compiled again, or taken from what was compiled before.
    """
    torch._dynamo.config.recompile_limit = GRAPHS
    transformer.compile_repeated_blocks(backend=backend)


# ~ Denoiser passes that are cut short where the first block hardly changed since the last step: FirstBlockCache.
# ~
# ~ In: the denoiser (bare, or inside an engine) and the sample settings. Out: what to wrap each pass in. Nothing
# ~ stays on
# ~ the model, and nothing passes from one batch of clips to the next. A batch decides as one, so it is part of the
# ~ result.

Pass = Callable[[str], AbstractContextManager[None]]  # "cond" or "uncond": each remembers its own last step


@contextmanager
def step_cache(model: Any, sample: SampleConfig) -> Iterator[Pass]:
    """Within, passes may be cut short as `sample.cache` says; after it the model is as before."""
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
    """Drop what `disable_cache` leaves: an empty registry, and the class's own `forward` set on the instance."""
    registry = module.__dict__.get("_diffusers_hook")
    if registry is None or registry.hooks:
        return
    del module._diffusers_hook
    if getattr(module.__dict__.get("forward"), "__func__", None) is type(module).forward:
        del module.forward
