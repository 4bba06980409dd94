"""What the original Wan code calls the linear layers, and ComfyUI with it. Standard library only.

In: a layer of diffusers' WanTransformer3DModel, e.g. blocks.7.attn2.to_q. Out: blocks.7.cross_attn.q. The pairs are
those of diffusers' converter (loaders/lora_conversion_utils.py), which reads files of either kind; tests hold it.
"""

from __future__ import annotations

from cinelora.core.cli import UserError

PREFIX = "diffusion_model."  # of every tensor in a ComfyUI file
_PROJECTIONS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}
_IMAGE = {"add_k_proj": "k_img", "add_v_proj": "v_img"}
LAYERS: dict[str, str] = {
    **{f"attn1.{ours}": f"self_attn.{theirs}" for ours, theirs in _PROJECTIONS.items()},
    **{f"attn2.{ours}": f"cross_attn.{theirs}" for ours, theirs in {**_PROJECTIONS, **_IMAGE}.items()},
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
OUTSIDE: dict[str, str] = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "proj_out": "head.head",
}


def original_layer(layer: str) -> str:
    """Raises UserError for a layer that is not linear."""
    if layer in OUTSIDE:
        return OUTSIDE[layer]
    blocks, _, rest = layer.partition(".")
    number, _, inner = rest.partition(".")
    if blocks != "blocks" or not number.isdecimal() or inner not in LAYERS:
        raise UserError(f"{layer}: has no name in the original layout; only linear layers have")
    return f"blocks.{number}.{LAYERS[inner]}"
