"""Cross-attention that keeps a short text and counts its equal padding instead of computing it 500 times.

In: text states of L tokens and one padding token. Out: the same attention as over 512 tokens: a token that
occurs m times adds log m to its logit. Equal to the stock processor to rounding; twice as fast at small sizes.
For pretraining only: a shipped model runs with the stock processor.
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

from cinelora.wan import TEXT_TOKENS


def short_text(states: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, L, D) with true lengths (B,) -> (states (B, L+1, D), logit bias (B, 1, 1, L+1)).

    Past a text's length states are zero and masked; the last token stands for all 512 - length paddings.
    """
    batch, tokens, _ = states.shape
    real = torch.arange(tokens, device=states.device)[None] < lengths[:, None]
    states = torch.cat([states * real[..., None], states.new_zeros(batch, 1, states.shape[2])], dim=1)
    bias = states.new_full((batch, 1, 1, tokens + 1), -1e9)
    bias[:, 0, 0, :tokens].masked_fill_(real, 0.0)
    bias[:, 0, 0, tokens] = torch.log(TEXT_TOKENS - lengths.to(states.dtype))
    return states, bias


class PaddedAttention(WanAttnProcessor):
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
