"""How adapters are written for other programs: as a LoRA in one of FORMATS, or merged into the base.

In: the adapter files of a trial, each with its update scale. Out: one safetensors file, or a folder of shards.
A new format is one function (adapters, out) and one entry of FORMATS, whose `loading` the model card shows.
Torch is loaded by `write_merged` alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from cinelora.adopt.layouts import kohya_layer, original_layer
from cinelora.core.config import Dtype
from cinelora.core.files import whole_file
from cinelora.wan.low_rank import Array, read_factors

SHARD = "5GB"  # of a merged denoiser


@dataclass(frozen=True)
class AdapterFile:
    """An adapter file and what multiplies its B A. A trial has its own, after that of its first stage if it has one."""

    path: Path
    scale: float


def write_diffusers(adapters: Sequence[AdapterFile], out: Path) -> None:
    """The trial's own file: diffusers reads rank and alpha from its metadata. Two stages: their sum, at scale 1."""
    if len(adapters) > 1:
        _write_sum(adapters, out, lambda layer: f"transformer.{layer}")
        return
    with whole_file(out) as temporary:
        shutil.copyfile(adapters[0].path, temporary)


def write_comfyui(adapters: Sequence[AdapterFile], out: Path) -> None:
    """Names of the original Wan code; the scale is multiplied into lora_B, because readers differ on alpha.

    ComfyUI and diffusers take a file without alpha at scale 1.
    """
    _write_sum(adapters, out, lambda layer: f"diffusion_model.{original_layer(layer)}")


def write_musubi(adapters: Sequence[AdapterFile], out: Path) -> None:
    """Names of musubi-tuner and kohya's scripts, each layer with its alpha. Two stages: their sum, alpha its rank."""
    one = adapters[0].scale if len(adapters) == 1 else 0.0
    layers = read_factors(adapters[0].path) if one else summed_factors(adapters)
    tensors: dict[str, Array] = {}
    for layer, a, b in layers:
        name, alpha = f"lora_unet_{kohya_layer(layer)}", (one or 1.0) * len(a)
        tensors |= {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": np.array(alpha)}
    _save(tensors, out)


@dataclass(frozen=True)
class Format:
    """`write(adapters, out)` writes the file. `loading`: how to load it; {base}, {file} and {dtype} are filled in."""

    write: Callable[[Sequence[AdapterFile], Path], None]
    loading: str


FORMATS: dict[str, Format] = {
    "diffusers": Format(
        write_diffusers,
        """import torch
from diffusers import WanImageToVideoPipeline

pipe = WanImageToVideoPipeline.from_pretrained("{base}", torch_dtype=torch.bfloat16)
pipe.load_lora_weights(".", weight_name="{file}")  # the scale is in the file's metadata""",
    ),
    "comfyui": Format(
        write_comfyui,
        """# ComfyUI: put {file} into models/loras and load it with LoraLoaderModelOnly at strength 1.
# Names are those of the original Wan code; the scale is multiplied into lora_B, so there is no alpha in the file.""",
    ),
    "musubi": Format(
        write_musubi,
        """# musubi-tuner: wan_generate_video.py --lora_weight {file} --lora_multiplier 1; ComfyUI: at strength 1.
# Each layer has its alpha in the file. musubi-tuner applies the layers of the blocks, which are all it trains.""",
    ),
}
MERGED_LOADING = """import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel

denoiser = WanTransformer3DModel.from_pretrained(".", torch_dtype=torch.{dtype})  # the adapter is in the weights
pipe = WanImageToVideoPipeline.from_pretrained("{base}", transformer=denoiser, torch_dtype=torch.bfloat16)"""


def write_merged(adapters: Sequence[AdapterFile], base: Path, dtype: Dtype, out: Path) -> None:
    """The denoiser of `base` with W + scale B A in place of W, in the precision it was trained in, as shards."""
    import torch

    from cinelora.wan.loading import load_transformer

    denoiser = load_transformer(base, dtype)
    for layer, a, b in summed_factors(adapters):
        weight = denoiser.get_submodule(layer).weight
        weight.data = (weight.double() + torch.from_numpy(b @ a)).to(weight.dtype)
    denoiser.save_pretrained(out, max_shard_size=SHARD)
    for path in out.iterdir():
        path.chmod(0o644)  # safetensors makes its files readable by their owner alone


def _write_sum(adapters: Sequence[AdapterFile], out: Path, name: Callable[[str], str]) -> None:
    """The sum of the updates at scale 1, float32; `name` gives the prefix of a layer's two tensors."""
    tensors: dict[str, Array] = {}
    for layer, a, b in summed_factors(adapters):
        tensors |= {f"{name(layer)}.lora_A.weight": a, f"{name(layer)}.lora_B.weight": b}
    _save(tensors, out)


def _save(tensors: dict[str, Array], out: Path) -> None:
    """As float32."""
    single = {key: tensor.astype(np.float32) for key, tensor in tensors.items()}
    with whole_file(out) as temporary:
        save_file(single, temporary, metadata={"format": "pt"})


def summed_factors(adapters: Sequence[AdapterFile]) -> Iterator[tuple[str, Array, Array]]:
    """(layer, A, B) of the sum of the updates, scales in B: ranks add up, and a layer that one file lacks gets zeros.

    So all layers have one rank, which readers without metadata take for alpha.
    """
    read = [{layer: (a, each.scale * b) for layer, a, b in read_factors(each.path)} for each in adapters]
    ranks = [len(next(iter(layers.values()))[0]) for layers in read]
    shapes = {layer: (a.shape[1], len(b)) for layers in read for layer, (a, b) in layers.items()}
    for layer, (inner, outer) in sorted(shapes.items()):
        found = [
            layers.get(layer, (np.zeros((rank, inner)), np.zeros((outer, rank))))
            for layers, rank in zip(read, ranks, strict=True)
        ]
        yield layer, np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found], axis=1)
