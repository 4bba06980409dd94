"""How a loaded denoiser computes attention: with which kernel (`model.attention`), and over how much text padding.

In: a WanTransformer3DModel; a backend of `cinelora/wan/options.py`. Out: the same model, whose attention uses it.

Short text (`model.short_text`): the Wan pipeline pads every text to 512 states with zero rows. Equal rows stay equal in
every layer, whatever the weights are, so the padding is computed once: a token that occurs m times adds log m to its
logit. The result equals attention over 512 tokens to rounding, also under LoRA and in the gradient. It halves the time
at small sizes and saves nothing at 14B, where the video has a hundred times as many tokens. The text part of
cross-attention then stays with torch, since few kernels take a bias.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import (
    WanAttnProcessor,
    _get_added_kv_projections,
    _get_qkv_projections,
)
from torch.nn.functional import scaled_dot_product_attention

from cinelora import distributed
from cinelora.core.cli import UserError
from cinelora.wan.options import BACKENDS

PROBE_TOKENS = 16


def use_attention(transformer: Any, name: str, dtype: torch.dtype) -> None:
    """Compute all attention of `transformer` with backend `name`. UserError with those that work on this worker."""
    head_dim = transformer.config.attention_head_dim
    if (reason := backend_error(name, dtype, head_dim)) is not None:
        found = [each for each in BACKENDS if not each.endswith("_hub") and not backend_error(each, dtype, head_dim)]
        raise UserError(f"model.attention={name}: {reason}; this worker has {', '.join(found)}")
    with attention_backend("native"):  # restores the default of the process, which the next line also sets
        transformer.set_attention_backend(name)


def backend_error(name: str, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why this process cannot compute attention and its gradient with backend `name`; None if it can."""
    shape = (1, PROBE_TOKENS, 1, head_dim)
    query, key, value = (
        torch.ones(shape, dtype=dtype, device=distributed.device_name(), requires_grad=True) for _ in "qkv"
    )
    try:
        with attention_backend(name):
            dispatch_attention_fn(query, key, value).sum().backward()
    except Exception as error:  # each kernel refuses with an exception of its own
        return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return None


TEXT_TOKENS = 512  # hard-coded in the attention processor: another length silently mixes text and image tokens
MASKED = -1e9


def short_text(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, L <= 512, D), zero after each text -> (states (B, n+1, D), logit bias (B, 1, 1, n+1)).

    n is the length of the longest text; the last row represents the 512 - length padding tokens of each text.
    """
    tokens = states.shape[1]
    counted = torch.arange(1, tokens + 1, device=states.device)
    lengths = (states.ne(0).any(-1) * counted).amax(1)
    longest = int(lengths.max())
    kept = torch.cat([states[:, :longest], states.new_zeros(states.shape[0], 1, states.shape[2])], dim=1)
    real = torch.arange(longest, device=states.device)[None] < lengths[:, None]
    paddings = torch.where(lengths < TEXT_TOKENS, (TEXT_TOKENS - lengths).clamp_min(1).log(), MASKED)
    bias = torch.where(real, 0.0, MASKED)
    return kept, torch.cat([bias, paddings[:, None]], dim=1)[:, None, None].to(states.dtype)


class ShortTextAttention(WanAttnProcessor):
    """Stock self-attention; cross-attention over [image tokens | short text] with `bias` on the text logits."""

    def __init__(self) -> None:
        super().__init__()
        self.bias: torch.Tensor | None = None

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, *rest: Any) -> Any:
        if encoder_hidden_states is None or self.bias is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *rest)
        images = encoder_hidden_states.shape[1] - self.bias.shape[-1]
        image, text = encoder_hidden_states[:, :images], encoder_hidden_states[:, images:]
        query, key, value = _get_qkv_projections(attn, hidden_states, text)
        image_key, image_value = _get_added_kv_projections(attn, image)

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        query = heads(attn.norm_q(query))
        out = scaled_dot_product_attention(query, heads(attn.norm_k(key)), heads(value), attn_mask=self.bias)
        image_key = heads(attn.norm_added_k(image_key))
        out = out + scaled_dot_product_attention(query, image_key, heads(image_value))
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


def use_short_text(transformer: Any) -> None:
    """Make a WanTransformer3DModel shorten the text of every forward pass."""
    attention = ShortTextAttention()
    transformer.set_attn_processor(attention)

    def shorten(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states, attention.bias = short_text(kwargs["encoder_hidden_states"])
        return args, {**kwargs, "encoder_hidden_states": states}

    transformer.register_forward_pre_hook(shorten, with_kwargs=True)
