"""Load the frozen parts of Wan2.1 I2V from a folder in diffusers layout.

In: a complete checkpoint (`cinelora/wan/checkpoint.py`). Out: denoiser, VAE, text encoder, image encoder and scheduler,
equal to those of the stock diffusers pipeline; and the norms of the denoiser's layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanTransformer3DModel
from safetensors import safe_open

from cinelora.core.cli import UserError
from cinelora.core.config import Dtype, Scheduler
from cinelora.core.files import write_json
from cinelora.wan.attention import use_attention, use_short_text
from cinelora.wan.checkpoint import weight_files

CACHE_LINE = 64  # bytes; torch's own tensors are aligned to it
DIGITS = 9  # significant digits of a weight norm; devices differ in later ones
TORCH_DTYPE = {Dtype.float32: torch.float32, Dtype.bfloat16: torch.bfloat16}


def load_transformer(
    folder: Path, dtype: Dtype, device: str = "cpu", short_text: bool = False, attention: str = ""
) -> Any:
    """The denoiser (WanTransformer3DModel), frozen, in evaluation mode, as `from_pretrained` loads it.

    In bfloat16 the parts that the model computes in float32 (norms, time embedding) stay so. `short_text` and
    `attention` (a backend; empty: torch's choice): `cinelora/wan/attention.py`. Raises UserError if the files do not
    hold the weights of the config, or if the backend cannot run on this device.
    """
    part = folder / "transformer"
    with init_empty_weights():  # parameters take no memory yet; buffers, which no file holds, are created as usual
        model = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(part, local_files_only=True))
    _fill(model, part, TORCH_DTYPE[dtype], device)
    if short_text:
        use_short_text(model)
    if attention:
        use_attention(model, attention, TORCH_DTYPE[dtype])
    return model.requires_grad_(False).eval().to(device)


def _fill(model: Any, part: Path, dtype: torch.dtype, device: str) -> None:
    """Give an empty model its weights, each read, cast and moved alone, so that memory holds the model once.

    `from_pretrained` maps whole shards, and the few tensors that stay in float32 keep every shard of a float32
    checkpoint mapped: it peaked at 2.4 times the model, this at 1.25 times (benchmarks/loading.py).
    """
    expected = {name: each.shape for name, each in model.named_parameters()}
    files = weight_files(part)
    for name in sorted(expected):
        if name not in files:
            raise UserError(f"{part}: no file holds {name}, which its config.json asks for; fetch the checkpoint again")
        with safe_open(files[name], framework="pt") as stream:  # for each tensor, since closing releases its pages
            tensor = stream.get_tensor(name)
        if tensor.shape != expected[name]:
            shapes = f"{list(tensor.shape)}, its config.json asks for {list(expected[name])}"
            raise UserError(f"{files[name]}: {name} is {shapes}; fetch the checkpoint again")
        kept = any(each in model._keep_in_fp32_modules for each in name.split("."))
        tensor = _aligned(tensor.to(device).to(torch.float32 if kept else dtype))
        module, _, leaf = name.rpartition(".")
        model.get_submodule(module).register_parameter(leaf, torch.nn.Parameter(tensor, requires_grad=False))


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """An aligned copy of float32 weights that are not aligned, as in a mapped file.

    On a CPU the rounding of a product depends on the address: weights moved by FSDP would give other last bits.
    """
    unaligned = tensor.dtype is torch.float32 and tensor.data_ptr() % CACHE_LINE
    return tensor.clone() if unaligned else tensor


def load_vae(folder: Path, device: str = "cpu") -> Any:
    """The video autoencoder (AutoencoderKLWan) in float32, frozen; kernels channels last, 0.7 of the time on a CPU."""
    vae = AutoencoderKLWan.from_pretrained(
        folder, subfolder="vae", torch_dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    for parameter in vae.parameters():
        if parameter.ndim in (4, 5):
            layout = torch.channels_last if parameter.ndim == 4 else torch.channels_last_3d
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return vae.requires_grad_(False).eval().to(device)


def load_text_encoder(folder: Path, device: str = "cpu", dtype: Dtype | None = None) -> tuple[Any, Any]:
    """(tokenizer, UMT5 encoder), frozen, in `dtype` or as it is stored."""
    from transformers import UMT5EncoderModel

    encoder = UMT5EncoderModel.from_pretrained(
        folder / "text_encoder",
        dtype="auto" if dtype is None else TORCH_DTYPE[dtype],
        device_map={"": device},
        use_safetensors=True,
        local_files_only=True,
    )
    return load_tokenizer(folder), encoder.requires_grad_(False).eval()


def load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def load_image_encoder(folder: Path, device: str = "cpu") -> tuple[Any, Any]:
    """(image processor, CLIP vision tower), frozen, as it is stored."""
    from transformers import CLIPImageProcessorPil, CLIPVisionModel

    encoder = CLIPVisionModel.from_pretrained(
        folder / "image_encoder", device_map={"": device}, use_safetensors=True, local_files_only=True
    )
    processor = CLIPImageProcessorPil.from_pretrained(folder / "image_processor", local_files_only=True)
    return processor, encoder.requires_grad_(False).eval()


def load_scheduler(folder: Path, kind: Scheduler, shift: float) -> Any:
    """A fresh scheduler of the given kind and flow shift."""
    if kind is Scheduler.euler:
        return FlowMatchEulerDiscreteScheduler(shift=shift)
    return UniPCMultistepScheduler.from_pretrained(
        folder, subfolder="scheduler", flow_shift=shift, local_files_only=True
    )


def write_weight_norms(path: Path, transformer: Any) -> None:
    """Write a JSON of layer -> Frobenius norm of its frozen weight, once per model and study.

    With it, analysis relates the size of an update to that of the weights without torch or the model. Call it before an
    adapter is attached. Nothing is written where `path` exists, or where ZeRO-3 has sharded the weights.
    """
    layers = {
        name: module.weight for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)
    }
    if path.exists() or any(weight.numel() == 0 for weight in layers.values()):
        return
    norms = {name: torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) for name, weight in layers.items()}
    write_json(path, {name: float(f"{float(norm):.{DIGITS}g}") for name, norm in sorted(norms.items())})
