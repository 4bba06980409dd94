"""Denoiser passes that are cut short where the first block hardly changed since the last step: FirstBlockCache.

In: the denoiser (bare, or inside an engine) and the sample settings. Out: what to wrap each pass in. Nothing stays on
the model, and nothing passes from one batch of clips to the next. A batch decides as one, so it is part of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import SampleConfig, StepCache, TrialConfig

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


def check_cache(config: TrialConfig) -> None:
    """That every worker would cut the same passes short. Raises UserError where they wait for one another in a pass."""
    if config.sample.cache is StepCache.none:
        return
    for field, value, alone in (
        ("zero.stage", config.zero.stage, config.zero.stage < 3),
        ("model.sequence_workers", config.model.sequence_workers, config.model.sequence_workers == 1),
    ):
        if not alone:
            raise UserError(
                f"sample.cache={config.sample.cache.value}: not with {field}={value}, whose workers share every pass "
                "and would skip different ones; leave one of them out"
            )
