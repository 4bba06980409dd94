"""Which kernel computes attention: `model.attention` on a loaded denoiser.

In: a WanTransformer3DModel, a name of `cinelora/backends.py`. Out: the same model, whose attention modules use it.
Under `model.short_text` the text part of cross-attention stays with torch, since its bias is what few kernels take.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn

from cinelora import distributed as dist
from cinelora.core.cli import UserError
from cinelora.wan.options import BACKENDS

PROBE_TOKENS = 16


def use_attention(transformer: Any, name: str, dtype: torch.dtype) -> None:
    """Let every attention of `transformer` be computed by `name`. UserError: this worker cannot, and which it can."""
    head_dim = transformer.config.attention_head_dim
    if (reason := fault(name, dtype, head_dim)) is not None:
        at_hand = [each for each in BACKENDS if not each.endswith("_hub") and fault(each, dtype, head_dim) is None]
        raise UserError(f"model.attention={name}: {reason}; this worker has {', '.join(at_hand)}")
    with attention_backend("native"):  # the call below sets a default for the whole process too, which ends here
        transformer.set_attention_backend(name)


def fault(name: str, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this process cannot compute attention and its gradient with backend `name`; None if it can."""
    shape = (1, PROBE_TOKENS, 1, head_dim)
    query, key, value = (torch.ones(shape, dtype=dtype, device=dist.device_name(), requires_grad=True) for _ in "qkv")
    try:
        with attention_backend(name):
            dispatch_attention_fn(query, key, value).sum().backward()
    except Exception as error:  # each kernel has its own way to refuse
        return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return None
