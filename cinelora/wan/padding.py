"""Cross-attention that counts the equal padding of a short text instead of computing it some 480 times.

In: text states that end in zero rows, as the Wan pipeline pads them. Out: the same attention as over 512 tokens,
to rounding: a token that occurs m times adds log m to its logit. Half the time at small sizes, nothing at 14B,
where the video's tokens are a hundred times as many. Holds under LoRA and in the gradient: equal rows of the text
stay equal in every layer, whatever the weights are. `model.short_text` switches it on.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import (
    WanAttnProcessor,
    _get_added_kv_projections,
    _get_qkv_projections,
)
from torch.nn.functional import scaled_dot_product_attention

TEXT_TOKENS = 512  # hard-coded in the attention processor: another length silently mixes text and image tokens
MASKED = -1e9


def short_text(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, L <= 512, D), zero after each text -> (states (B, n+1, D), logit bias (B, 1, 1, n+1)).

    n is the longest text's length; the last row stands for all 512 - length paddings of its text.
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
