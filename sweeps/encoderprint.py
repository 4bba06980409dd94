"""Device memory of the encoding step, from the configs of the encoders. Standard library only.

In: `config.json` of text encoder, image encoder and VAE, a TrialConfig. Out: bytes by phase and part, as
`cinelora/footprint.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinelora.core.config import Dtype, TrialConfig
from sweeps.flops import TEXT_TOKENS
from sweeps.memory import Parts, vae_bytes

VAE_ENCODE = 36.7  # floats a pixel and base_dim at the peak, counted; four frames at a time


def text_parameters(text: Mapping[str, Any]) -> int:
    """Of a UMT5 encoder: embeddings, and in each layer attention, gated feed-forward, norms, relative positions."""
    d, inner = text["d_model"], text["num_heads"] * text["d_kv"]
    layer = 4 * d * inner + 3 * d * text["d_ff"] + 2 * d
    layer += text["num_heads"] * text["relative_attention_num_buckets"]
    return int(text["vocab_size"] * d + text["num_layers"] * layer + d)


def image_parameters(image: Mapping[str, Any]) -> int:
    """Of a CLIP vision tower."""
    d, f, side = image["hidden_size"], image["intermediate_size"], image["image_size"] // image["patch_size"]
    layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
    return int(3 * d * image["patch_size"] ** 2 + (side * side + 2) * d + image["num_hidden_layers"] * layer + 4 * d)


def encoding(config: TrialConfig, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Parts]:
    """Before any trial, each freed after its work; `parts`: configs "text_encoder", "image_encoder" and "vae"."""
    text, image = parts["text_encoder"], parts["image_encoder"]
    stored = text.get("dtype") or text.get("torch_dtype") or "float32"
    size = 4 if (config.model.text_dtype or Dtype.float32) is Dtype.float32 and stored == "float32" else 2
    scores = 4 * 4 * text["num_heads"] * TEXT_TOKENS**2
    weights, working = vae_bytes(config, parts["vae"], 1, VAE_ENCODE)
    return {
        "encode text": {"text encoder": size * text_parameters(text), "working set": scores},
        "encode clips": {"VAE": weights, "image encoder": 4.0 * image_parameters(image), "working set": working},
    }
