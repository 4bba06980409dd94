"""The frozen Wan2.1 I2V parts and what they encode, equal to what the stock diffusers pipeline prepares.

Legend: N clips, F=4n+1 frames, H, W pixels; T=n+1 latent frames, h=H/8, w=W/8; S image tokens.
Frames are uint8 (N, F, H, W, 3). Latents are float32 (N, 16, T, h, w), normalised per channel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan.pipeline_wan_i2v import prompt_clean
from PIL import Image
from safetensors import safe_open

from cinelora.core.cli import UserError
from cinelora.core.config import TEMPORAL_FACTOR, Dtype, Scheduler
from cinelora.wan.modelfiles import weight_files
from cinelora.wan.padding import TEXT_TOKENS, use_short_text

CACHE_LINE = 64  # bytes; torch's own tensors begin at one
TORCH_DTYPE = {Dtype.float32: torch.float32, Dtype.bfloat16: torch.bfloat16}


def load_transformer(folder: Path, dtype: Dtype, device: str = "cpu", short_text: bool = False) -> Any:
    """The denoiser (WanTransformer3DModel), frozen, in evaluation mode; `short_text` as in `cinelora.padding`.

    In bfloat16 the parts that the model computes in float32 (norms, time embedding) stay so. Equal to what
    `from_pretrained` loads. Raises UserError if the files do not hold the weights of the config.
    """
    part = folder / "transformer"
    with init_empty_weights():  # parameters take no memory yet; the buffers, which no file holds, are made as ever
        model = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(part, local_files_only=True))
    _fill(model, part, TORCH_DTYPE[dtype], device)
    if short_text:
        use_short_text(model)
    return model.requires_grad_(False).eval().to(device)


def _fill(model: Any, part: Path, dtype: torch.dtype, device: str) -> None:
    """Give an empty model its weights, each read, cast and moved by itself: memory holds the model once.

    `from_pretrained` maps whole shards, and the few tensors that stay in float32 keep every shard of a float32
    checkpoint mapped: it held 2.4 times the model, this holds 1.25 times (benchmarks/loading.py).
    """
    expected = {name: each.shape for name, each in model.named_parameters()}
    files = weight_files(part)
    for name in sorted(expected):
        if name not in files:
            raise UserError(f"{part}: no file holds {name}, which its config.json asks for; fetch the checkpoint again")
        with safe_open(files[name], framework="pt") as stream:  # opened for each: closing gives its pages back
            tensor = stream.get_tensor(name)
        if tensor.shape != expected[name]:
            shapes = f"{list(tensor.shape)}, its config.json asks for {list(expected[name])}"
            raise UserError(f"{files[name]}: {name} is {shapes}; fetch the checkpoint again")
        kept = any(each in model._keep_in_fp32_modules for each in name.split("."))
        tensor = _aligned(tensor.to(device).to(torch.float32 if kept else dtype))
        module, _, leaf = name.rpartition(".")
        model.get_submodule(module).register_parameter(leaf, torch.nn.Parameter(tensor, requires_grad=False))


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of float32 that lies askew, as in a mapped file: on a CPU its products round by the address.

    Moved elsewhere, as FSDP does, the same weights would give other last bits.
    """
    askew = tensor.dtype is torch.float32 and tensor.data_ptr() % CACHE_LINE
    return tensor.clone() if askew else tensor


def load_vae(folder: Path, device: str = "cpu") -> Any:
    """The video autoencoder (AutoencoderKLWan) in float32, frozen; kernels channels last: 0.7 of the time on a CPU."""
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
    from transformers import AutoTokenizer, UMT5EncoderModel

    encoder = UMT5EncoderModel.from_pretrained(
        folder / "text_encoder",
        dtype="auto" if dtype is None else TORCH_DTYPE[dtype],
        device_map={"": device},
        use_safetensors=True,
        local_files_only=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return tokenizer, encoder.requires_grad_(False).eval()


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


def pixels(frames: np.ndarray) -> torch.Tensor:
    """uint8 (N, F, H, W, 3) -> float32 (N, 3, F, H, W) in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float().div(255).mul(2).sub(1)


def to_uint8(video: torch.Tensor) -> np.ndarray:
    """float (N, 3, F, H, W) in [-1, 1] -> uint8 (N, F, H, W, 3), rounded."""
    levels = video.float().div(2).add(0.5).clamp(0, 1).mul(255).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()


def _latent_statistics(vae: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return mean.to(like), std.to(like)


@torch.no_grad()
def encode_video(vae: Any, video: torch.Tensor) -> torch.Tensor:
    """Normalised posterior mode of float (N, 3, F, H, W) in [-1, 1]: (N, 16, T, h, w)."""
    latents = vae.encode(video.to(vae.device, vae.dtype)).latent_dist.mode().float()
    mean, std = _latent_statistics(vae, latents)
    return (latents - mean) * (1.0 / std)


@torch.no_grad()
def decode_video(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Normalised latents (N, 16, T, h, w) -> uint8 frames (N, F, H, W, 3)."""
    latents = latents.to(vae.device, vae.dtype)
    mean, std = _latent_statistics(vae, latents)
    return to_uint8(vae.decode(latents / (1.0 / std) + mean, return_dict=False)[0])


def condition_latents(vae: Any, first: torch.Tensor, frames: int) -> torch.Tensor:
    """Mask and condition (N, 20, T, h, w) from first frames float (N, 3, H, W) in [-1, 1].

    Channels 0-3: the mask, 1 at latent frame 0 and 0 elsewhere. Channels 4-19: the encoding of the first
    frame followed by mid-grey frames (zero pixels), which is not the first latent followed by zeros.
    """
    n, channels, height, width = first.shape
    video = torch.cat([first.unsqueeze(2), first.new_zeros(n, channels, frames - 1, height, width)], dim=2)
    latents = encode_video(vae, video)
    mask = torch.zeros_like(latents[:, :TEMPORAL_FACTOR])
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def grey_latent(vae: Any, height: int, width: int) -> torch.Tensor:
    """The encoding (16, 1, h, w) of one mid-grey frame, on the CPU."""
    return encode_video(vae, torch.zeros(1, 3, 1, height, width))[0].cpu()


@torch.no_grad()
def encode_image(processor: Any, encoder: Any, image: np.ndarray) -> torch.Tensor:
    """Penultimate CLIP hidden state (1, S, D) of one uint8 image (H, W, 3)."""
    inputs = processor(images=Image.fromarray(image), return_tensors="pt").to(encoder.device)
    return encoder(**inputs, output_hidden_states=True).hidden_states[-2].float()


@torch.no_grad()
def encode_text(tokenizer: Any, encoder: Any, prompt: str) -> torch.Tensor:
    """UMT5 states (1, 512, D) of one prompt, zero past its end."""
    inputs = tokenizer(
        [prompt_clean(prompt)],
        padding="max_length",
        max_length=TEXT_TOKENS,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    ).to(encoder.device)
    states = encoder(inputs.input_ids, inputs.attention_mask).last_hidden_state.float()
    return states * inputs.attention_mask.unsqueeze(-1)
