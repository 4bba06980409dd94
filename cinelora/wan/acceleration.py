"""Less memory or time for the denoiser: activation checkpointing, compilation, and the step cache of the sampler.

In: a WanTransformer3DModel, adapter attached or not, bare or inside an engine. Out: the same model. Checkpointing
changes no bit of its results and compilation only rounding; the step cache approximates, so it is part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from cinelora.core.config import Checkpointing, SampleConfig, StepCache

_aten = torch.ops.aten
ATTENTION = {  # of torch, by device
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}
BACKEND = "_cinelora_compiled"  # attribute of a denoiser whose blocks are compiled: with what
GRAPHS = 256  # compiled graphs kept: each rank, target set, batch shape and gradient mode has its own


def keep_self_attention(_: Any, op: Any, *given: Any, **named: Any) -> CheckpointPolicy:
    """Keep what self-attention returns, which takes longest to compute; compute everything else again.

    Self-attention is where query and key (B, H, L, D) have one length: cross-attention reads text and image tokens.
    """
    if op in ATTENTION and given[0].shape[-2] == given[1].shape[-2]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _attention_kept(block: Any, *inputs: Any) -> Any:
    return checkpoint(
        block.forward,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, keep_self_attention),
    )


def _input_kept(block: Any, *inputs: Any) -> Any:
    """Reentrant, because the other kind compares the weights of both runs, and ZeRO-3 has moved them in between.

    Reentrant ones give no gradient to a block none of whose inputs needs one, such as the first block on a frozen base.
    An empty tensor that needs one is passed along, so that no gradient of the input itself is computed.
    """
    empty = torch.empty(0, requires_grad=True)
    return checkpoint(lambda _, *own: block(*own), empty, *inputs, use_reentrant=True, preserve_rng_state=False)


def checkpoint_blocks(transformer: Any, kind: Checkpointing, count: int, stage: int) -> None:
    """Checkpoint the first `count` blocks (0: all) as `kind` says; the others keep all their activations.

    Compiled blocks are checkpointed inside what is compiled, so that the compiler sees both of their runs. `auto` is
    what no plan has settled: `all`. So is `attention` under ZeRO-3, which moves the weights between the two runs.
    """
    if kind is Checkpointing.none:
        transformer.disable_gradient_checkpointing()  # an earlier trial may have enabled it
        return
    blocks = list(transformer.blocks)
    chosen = set(blocks[: count or len(blocks)])
    run = _input_kept
    if kind is Checkpointing.attention and stage < 3:
        backend = getattr(transformer, BACKEND, None)
        run = _attention_kept if backend is None else torch.compile(_attention_kept, backend=backend)
    transformer.enable_gradient_checkpointing(
        lambda block, *inputs: run(block, *inputs) if block in chosen else block(*inputs)
    )


def compile_blocks(transformer: Any, backend: str = "inductor") -> None:
    """Compile each block at its first call with inputs of a new shape; all blocks share the compiled graphs.

    Attaching or removing an adapter changes a block: it is compiled again, or an earlier graph is used.
    """
    torch._dynamo.config.recompile_limit = GRAPHS
    setattr(transformer, BACKEND, backend)
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
