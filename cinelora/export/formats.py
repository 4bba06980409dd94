"""What the original Wan code calls the linear layers, and ComfyUI with it. Standard library only.

In: a layer of diffusers' WanTransformer3DModel, e.g. blocks.7.attn2.to_q. Out: blocks.7.cross_attn.q. The pairs are
those of diffusers' converter (loaders/lora_conversion_utils.py), which reads files of either kind; tests hold it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cinelora.core.cli import UserError
from cinelora.core.files import whole_file
from cinelora.core.records import TrialSpec
from cinelora.wan.low_rank import Array, read_factors

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


SHARD = "5GB"  # of a merged denoiser


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file and what multiplies its B A. The trial's own, after that of its first stage if it has one."""

    path: Path
    scale: float


def factors(adapters: Sequence[AdapterFile]) -> Iterator[tuple[str, Array, Array]]:
    """(layer, A, B) of the sum of the updates, scales in B: ranks add up, a layer that a file lacks gets zeros there.

    So all layers have one rank, which is what a reader without metadata takes alpha for.
    """
    read = [{layer: (a, file.scale * b) for layer, a, b in read_factors(file.path)} for file in adapters]
    ranks = [len(next(iter(layers.values()))[0]) for layers in read]
    shapes = {layer: (a.shape[1], len(b)) for layers in read for layer, (a, b) in layers.items()}
    for layer, (inner, outer) in sorted(shapes.items()):
        found = [
            layers.get(layer, (np.zeros((rank, inner)), np.zeros((outer, rank))))
            for layers, rank in zip(read, ranks, strict=True)
        ]
        yield layer, np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found], axis=1)


def _write(out: Path, tensors: Mapping[str, Array]) -> None:
    from safetensors.numpy import save_file

    with whole_file(out) as temporary:
        save_file(
            {name: tensor.astype(np.float32) for name, tensor in tensors.items()}, temporary, metadata={"format": "pt"}
        )


def _named(adapters: Sequence[AdapterFile], name: Callable[[str], str]) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for layer, a, b in factors(adapters):
        tensors |= {f"{name(layer)}.lora_A.weight": a, f"{name(layer)}.lora_B.weight": b}
    return tensors


def write_diffusers(adapters: Sequence[AdapterFile], out: Path) -> None:
    """The trial's own file: diffusers reads rank and alpha from its metadata. Two stages: their sum, at scale 1."""
    if len(adapters) > 1:
        _write(out, _named(adapters, lambda layer: f"transformer.{layer}"))
        return
    with whole_file(out) as temporary:
        shutil.copyfile(adapters[0].path, temporary)


def write_comfyui(adapters: Sequence[AdapterFile], out: Path) -> None:
    """Names of the original Wan code; the scale is multiplied into lora_B, because readers differ on alpha.

    ComfyUI and diffusers take a file without alpha at scale 1.
    """
    _write(out, _named(adapters, lambda layer: PREFIX + original_layer(layer)))


FORMATS: dict[str, Callable[[Sequence[AdapterFile], Path], None]] = {
    "diffusers": write_diffusers,
    "comfyui": write_comfyui,
}


def write_merged(spec: TrialSpec, adapters: Sequence[AdapterFile], base: Path, out: Path) -> None:
    """The denoiser with W + scale B A in place of W, in the precision it was trained in, as safetensors shards."""
    import torch

    from cinelora.wan.loading import load_transformer

    denoiser = load_transformer(base, spec.config.model.dtype)
    for layer, a, b in factors(adapters):
        weight = denoiser.get_submodule(layer).weight
        weight.data = (weight.double() + torch.from_numpy(b @ a)).to(weight.dtype)
    denoiser.save_pretrained(out, max_shard_size=SHARD)
    for path in out.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner alone
