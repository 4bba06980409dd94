"""How the tensors of a Wan LoRA file are named: by us, by diffusers, by ComfyUI and by the other trainers.

In: a key of a file. Out: the layer of the denoiser in diffusers' names, and which of its tensors the key names. A key
is a prefix, a layer in one of three namings, and a suffix; each is recognised by itself, so that mixtures which no
table lists are read too. Where each layout comes from is in docs/adopt.md. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cinelora.core.cli import UserError

# Names of the linear layers in diffusers and in the original Wan code, which ComfyUI shares. The pairs are those of
# diffusers' converter (loaders/lora_conversion_utils.py), which reads files of either kind; tests compare them.
_PROJECTIONS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o"}
_IMAGE = {"add_k_proj": "k_img", "add_v_proj": "v_img"}
IN_BLOCKS: dict[str, str] = {
    **{f"attn1.{ours}": f"self_attn.{theirs}" for ours, theirs in _PROJECTIONS.items()},
    **{f"attn2.{ours}": f"cross_attn.{theirs}" for ours, theirs in {**_PROJECTIONS, **_IMAGE}.items()},
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
OUTSIDE_BLOCKS: dict[str, str] = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "proj_out": "head.head",
}
DOWN, UP, ALPHA = "A", "B", "alpha"
_SUFFIX = re.compile(
    r"(?P<layer>.+)\.(?:(?P<part>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)"
    r"(?:\.(?P<adapter>[^.]+))?\.weight|(?P<alpha>alpha|lora_alpha))"
)
_PREFIX = re.compile(r"((?:base_model\.model\.|model\.|pipe\.dit\.|transformer\.|diffusion_model\.)*)(.+)")
_FLAT = re.compile(r"(lora_unet__|lora_unet_)(.+)")
_OTHERS: dict[str, str] = {  # what a key that is no LoRA of a linear layer belongs to, by the first that is in it
    r"transformer_2\.|\.transformer_[12]\.": "the two transformers of Wan2.2",
    r"dora_scale|lora_magnitude_vector|\.magnitude": "DoRA",
    r"lokr_": "LoKr",
    r"hada_": "LoHa",
    r"lora_te|text_encoder": "a text encoder",
    r"patch_embedding": "the patch embedding",
    r"\.diff(_[a-z]+)?$|lora_[AB]\.bias|lora_bias": "changes of norms, weights or biases",
    r"norm": "norms",
}


@dataclass(frozen=True)
class Key:
    """What a key of a file names. `layer`: in diffusers' names; `part`: DOWN, UP or ALPHA; `layout`: its naming."""

    layer: str
    part: str
    layout: tuple[str, ...]  # prefix, naming, names of the parts, whether the name of an adapter stands in it


def original_layer(layer: str) -> str:
    """blocks.7.attn2.to_q -> blocks.7.cross_attn.q. Raises UserError for a layer that is not linear."""
    block, inner = re.fullmatch(r"(blocks\.\d+\.)?(.*)", layer).groups("")  # type: ignore[union-attr]
    names = IN_BLOCKS if block else OUTSIDE_BLOCKS
    if inner not in names:
        raise UserError(f"{layer}: has no name in the original layout; only linear layers have")
    return block + names[inner]


def kohya_layer(layer: str) -> str:
    """blocks.7.attn2.to_q -> blocks_7_cross_attn_q."""
    return original_layer(layer).replace(".", "_")


def linear_layers(denoiser: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(in, out) of every linear layer of the denoiser with this config, by name."""
    d, f = denoiser["num_attention_heads"] * denoiser["attention_head_dim"], denoiser["ffn_dim"]
    image, added = denoiser["image_dim"], denoiser["added_kv_proj_dim"]
    block = dict.fromkeys(IN_BLOCKS, (d, d)) | {f"attn2.{name}": (added, d) for name in _IMAGE}
    block |= {"ffn.net.0.proj": (d, f), "ffn.net.2": (f, d)}
    patch = denoiser["patch_size"][0] * denoiser["patch_size"][1] * denoiser["patch_size"][2]
    sizes = [
        (denoiser["freq_dim"], d),
        (d, d),
        (d, 6 * d),
        (denoiser["text_dim"], d),
        (d, d),
        (image, image),
        (image, d),
        (d, denoiser["out_channels"] * patch),
    ]
    blocks = {f"blocks.{i}.{name}": size for i in range(denoiser["num_layers"]) for name, size in block.items()}
    return blocks | dict(zip(OUTSIDE_BLOCKS, sizes, strict=True))


class KeyReader:
    """Reads keys against the layers of one denoiser."""

    def __init__(self, layers: Mapping[str, Any]) -> None:
        namings: dict[str, Callable[[str], str]] = {"diffusers": str, "original": original_layer, "flat": kohya_layer}
        self._names = {name(layer): (layer, naming) for naming, name in namings.items() for layer in layers}
        self._names |= {layer: (layer, "diffusers") for layer in layers}

    def read(self, key: str) -> Key | None:
        """None: no LoRA tensor of a linear layer of this denoiser."""
        found = _SUFFIX.fullmatch(key)
        if found is None:
            return None
        prefix, name = (_FLAT.fullmatch(found["layer"]) or _PREFIX.fullmatch(found["layer"])).groups()  # type: ignore[union-attr]
        layer, naming = self._names.get(name, ("", ""))
        if not layer or (naming == "flat") is not prefix.startswith("lora_unet"):
            return None
        part = ALPHA if found["alpha"] else DOWN if found["part"] in ("lora_A", "lora_down", "lora.down") else UP
        pair = (found["part"] or "").replace("_A", "_B").replace("down", "up")
        return Key(layer, part, (prefix, naming, pair, "named" if found["adapter"] else ""))


LAYOUTS: dict[tuple[str, ...], str] = {  # prefix, naming, name of B, whether an adapter's name stands in it
    ("transformer.", "diffusers", "lora_B", ""): "diffusers",
    ("", "diffusers", "lora_B", ""): "diffusers without prefix",
    ("base_model.model.", "diffusers", "lora_B", ""): "PEFT",
    ("diffusion_model.", "original", "lora_B", ""): "ComfyUI",
    ("diffusion_model.", "original", "lora_up", ""): "ComfyUI, lora_up",
    ("diffusion_model.", "diffusers", "lora_B", ""): "SimpleTuner for ComfyUI",
    ("", "original", "lora_B", "named"): "DiffSynth",
    ("", "original", "lora_B", ""): "original names",
    ("lora_unet_", "flat", "lora_up", ""): "musubi",
    ("lora_unet__", "flat", "lora_up", ""): "VideoX-Fun",
}


def layout_name(layout: tuple[str, ...]) -> str:
    """The layout by the program that writes it; by its parts where none that we know does."""
    prefix, naming, pair, named = layout
    other = f"{prefix or 'no'} prefix, {naming} names, {pair}{'.NAME' if named else ''}"
    return LAYOUTS.get(layout, other)


def other_kind(key: str) -> str:
    """What a key belongs to that is no LoRA of a linear layer, in words; "" where that is not known."""
    return next((name for pattern, name in _OTHERS.items() if re.search(pattern, key)), "")
