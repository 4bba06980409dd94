"""Encodings and generated clips equal those of the stock diffusers pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

from cinelora.core.cli import UserError
from cinelora.core.config import LoraConfig, SampleConfig, Scaling, Scheduler, TargetSet
from cinelora.core.seeds import draw_noise
from cinelora.wan import lora
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import Conditions, condition_latents, decode_video, encode_image, encode_text, pixels
from cinelora.wan.loading import load_scheduler
from cinelora.wan.sampler import denoise
from tests import tiny_study

PROMPT = "a square moves right, quickly"


@pytest.fixture(scope="module")
def folder(study_root: Path) -> Path:
    return model_folder(tiny_study.tiny_config(study_root).model, study_root / "cache")


@pytest.fixture()
def pipeline(folder: Path) -> Any:
    pipe = WanImageToVideoPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (1, 9, 32, 48, 3), dtype=np.uint8)


def conditions(pipe: Any, frames: np.ndarray) -> dict[str, torch.Tensor]:
    """Ours, from the pipeline's own parts."""
    first = pixels(frames)[:, :, 0]
    return {
        "condition": condition_latents(pipe.vae, first, frames.shape[1]),
        "image": encode_image(pipe.image_processor, pipe.image_encoder, frames[0, 0]),
        "text": encode_text(pipe.tokenizer, pipe.text_encoder, PROMPT),
        "negative": encode_text(pipe.tokenizer, pipe.text_encoder, ""),
    }


def test_a_text_is_cut_only_where_that_is_wanted(pipeline: Any) -> None:
    text = "x" * 512
    with pytest.raises(UserError, match="513 tokens, the model reads 512"):
        encode_text(pipeline.tokenizer, pipeline.text_encoder, text)
    with torch.no_grad():
        stock, _ = pipeline.encode_prompt(text, "", max_sequence_length=512)
    assert torch.allclose(encode_text(pipeline.tokenizer, pipeline.text_encoder, text, cut=True), stock, atol=1e-5)


def test_cached_conditions_equal_the_pipelines(pipeline: Any, frames: np.ndarray) -> None:
    ours = conditions(pipeline, frames)
    image = pipeline.video_processor.preprocess(Image.fromarray(frames[0, 0]), height=32, width=48)
    _, condition = pipeline.prepare_latents(image, 1, 16, 32, 48, 9, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        text, negative = pipeline.encode_prompt(PROMPT, "", max_sequence_length=512)
        clip = pipeline.encode_image(Image.fromarray(frames[0, 0]))
    for name, stock in {"condition": condition, "text": text, "negative": negative, "image": clip}.items():
        assert torch.allclose(ours[name], stock, atol=1e-5, rtol=0), name
    assert ours["text"].shape[1] == 512 and ours["condition"].shape == (1, 20, 3, 4, 6)


def test_condition_is_not_the_first_latent_padded_with_zeros(pipeline: Any, frames: np.ndarray) -> None:
    condition = conditions(pipeline, frames)["condition"]
    assert condition[:, :4, 0].eq(1).all() and condition[:, :4, 1:].eq(0).all()
    assert condition[:, 4:, 1:].abs().max() > 0


def stock_video(pipe: Any, frames: np.ndarray, noise: torch.Tensor, sample: SampleConfig, kind: str) -> Any:
    return pipe(
        image=Image.fromarray(frames[0, 0]), prompt=PROMPT, negative_prompt="", height=32, width=48, num_frames=9,
        num_inference_steps=sample.steps, guidance_scale=sample.guidance, latents=noise, output_type=kind,
    ).frames  # fmt: skip


def our_latents(pipe: Any, frames: np.ndarray, noise: torch.Tensor, sample: SampleConfig, folder: Path) -> torch.Tensor:
    given = conditions(pipe, frames)
    negative = given["negative"] if sample.guidance > 1 else None
    seen = Conditions(given["condition"], given["image"], given["text"])
    return denoise(pipe.transformer, folder, sample, noise, seen, negative)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("kind", list(Scheduler))
def test_own_loop_equals_the_pipeline(
    pipeline: Any, folder: Path, frames: np.ndarray, kind: Scheduler, guidance: float
) -> None:
    sample = SampleConfig(steps=3, guidance=guidance, scheduler=kind)
    pipeline.scheduler = load_scheduler(folder, kind, sample.shift)
    noise = draw_noise((1, 16, 3, 4, 6), 0, "test")
    stock = stock_video(pipeline, frames, noise, sample, "latent")
    ours = our_latents(pipeline, frames, noise, sample, folder)
    assert torch.allclose(ours, stock, atol=1e-5, rtol=0)
    video = stock_video(pipeline, frames, noise, sample, "np")
    levels = np.abs(decode_video(pipeline.vae, ours).astype(float) - video * 255)
    assert levels.max() <= 0.51


def test_untrained_adapter_equals_the_base_exactly(pipeline: Any, folder: Path, frames: np.ndarray) -> None:
    sample, noise = SampleConfig(steps=2), draw_noise((1, 16, 3, 4, 6), 0, "test")
    before = our_latents(pipeline, frames, noise, sample, folder)
    names = list(pipeline.transformer.state_dict())
    lora.attach(pipeline.transformer, LoraConfig(rank=4, targets=TargetSet.block), seed=1)
    assert torch.equal(our_latents(pipeline, frames, noise, sample, folder), before)
    lora.detach(pipeline.transformer)
    assert list(pipeline.transformer.state_dict()) == names
    assert torch.equal(our_latents(pipeline, frames, noise, sample, folder), before)


@pytest.mark.parametrize("scaling", list(Scaling))
def test_saved_adapter_gives_the_same_video_in_the_stock_pipeline(
    pipeline: Any, folder: Path, frames: np.ndarray, tmp_path: Path, scaling: Scaling
) -> None:
    """alpha != rank: without the metadata a reload would scale by 1 instead of alpha / r."""
    settings = LoraConfig(rank=4, scaling=scaling, alpha=12.0, targets=TargetSet.cross)
    parameters = lora.attach(pipeline.transformer, settings, seed=2)
    for name, parameter in parameters:
        if ".lora_B" in name:
            parameter.data = draw_noise(tuple(parameter.shape), name) * 0.05
    sample, noise = SampleConfig(steps=2), draw_noise((1, 16, 3, 4, 6), 0, "test")
    trained = our_latents(pipeline, frames, noise, sample, folder)
    lora.save_adapter(tmp_path / "adapter", {name: p.data for name, p in parameters}, settings)

    stock = WanImageToVideoPipeline.from_pretrained(folder, local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = load_scheduler(folder, sample.scheduler, sample.shift)
    base = stock_video(stock, frames, noise, sample, "latent")
    stock.load_lora_weights(tmp_path / "adapter", weight_name="pytorch_lora_weights.safetensors")
    loaded = stock_video(stock, frames, noise, sample, "latent")
    assert torch.allclose(loaded, trained, atol=1e-5, rtol=0)
    assert (trained - base).abs().max() > 1e-3
