"""The pretraining of the small base: whole-clip autoencoder, short padding, resume, and the whole command once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

from cinelora.core.config import LoraConfig
from cinelora.core.seeds import generator
from cinelora.data.synthetic import make_caption, make_clip
from cinelora.features.nets.mobilenet import MobileNetTrunk
from cinelora.smallbase.__main__ import main
from cinelora.smallbase.denoiser import Clips, train_denoiser
from cinelora.smallbase.evaluate import steadiness
from cinelora.smallbase.model import new_denoiser, new_vae, tokenizer, vocabulary
from cinelora.smallbase.optimiser import Muon, decayed, random_for
from cinelora.smallbase.vae import decode_pixels, draw_batch, encode_moments, train_vae, whole_clip
from cinelora.wan import lora
from cinelora.wan.attention import use_short_text
from cinelora.wan.encoding import encode_text, pixels


@torch.no_grad()
def test_a_whole_clip_at_once_equals_the_stock_chunks() -> None:
    vae = new_vae().eval()
    video = pixels(make_clip("source", 3, 0)[0][None])
    latents = vae.encode(video).latent_dist.mode()
    decoded = vae.decode(latents).sample
    whole_clip(vae)
    torch.testing.assert_close(encode_moments(vae, video)[0], latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(decode_pixels(vae, latents).clamp(-1, 1), decoded, atol=1e-5, rtol=0)


@torch.no_grad()
def test_short_text_equals_five_hundred_paddings() -> None:
    transformer, text = new_denoiser()
    words = tokenizer(vocabulary())
    captions = [make_caption("source", 3, 0), "a red circle stays", "red " * 511]  # the last fills the 512
    draw = generator("test", "short text")
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(3, 36, 2, 4, 4, generator=draw),
        "timestep": torch.tensor([700.0, 100.0, 300.0]),
        "encoder_hidden_states": torch.cat([encode_text(words, text, caption) for caption in captions]),
        "encoder_hidden_states_image": torch.randn(3, 17, 64, generator=draw),
        "return_dict": False,
    }
    expected = transformer(**inputs)[0]
    use_short_text(transformer)
    torch.testing.assert_close(transformer(**inputs)[0], expected, atol=1e-5, rtol=0)


def test_short_text_gives_the_same_gradient_to_an_adapter() -> None:
    transformer, text = new_denoiser()
    words = tokenizer(vocabulary())
    parameters = lora.attach(transformer.requires_grad_(False), LoraConfig(rank=2), seed=0)
    draw = generator("test", "short gradient")
    for _, parameter in parameters:
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(1, 36, 2, 4, 4, generator=draw),
        "timestep": torch.tensor([700.0]),
        "encoder_hidden_states": encode_text(words, text, make_caption("film", 3, 0)),
        "encoder_hidden_states_image": torch.randn(1, 17, 64, generator=draw),
        "return_dict": False,
    }
    gradients = []
    for short in (False, True):
        if short:
            use_short_text(transformer)
        loss = transformer(**inputs)[0].square().mean()
        gradients.append(torch.autograd.grad(loss, [parameter for _, parameter in parameters]))
    for stock_one, short_one in zip(*gradients, strict=True):
        torch.testing.assert_close(short_one, stock_one, atol=1e-6, rtol=1e-3)


def test_every_word_of_the_captions_is_known_and_others_are_not() -> None:
    words = tokenizer(vocabulary())
    for domain in ("source", "film"):
        captions = [make_caption(domain, 12345, index) for index in range(200)]
        encoded = words(captions)["input_ids"]
        assert all(2 not in ids for ids in encoded)
        assert max(map(len, encoded)) <= 48
    assert words("Red, zebra")["input_ids"][2:] == [2, 1]


def test_the_rate_warms_up_holds_and_falls() -> None:
    rates = [decayed(1.0, step, 1000, warmup=10, hold=0.4) for step in range(1000)]
    assert rates[0] == 0.1 and rates[9] == rates[400] == 1.0
    assert rates[700] == pytest.approx(0.5)
    assert rates[999] == pytest.approx(0.01)


def test_training_clips_come_from_the_generator_alone() -> None:
    crops = draw_batch(random_for(0, "test"), whole=False)
    assert crops.shape == (8, 17, 32, 32, 3)
    assert np.array_equal(crops, draw_batch(random_for(0, "test"), whole=False))
    assert draw_batch(random_for(0, "test"), whole=True).shape == (2, 17, 64, 64, 3)


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinelora.smallbase.vae.HELDOUT_CLIPS", 1)
    monkeypatch.setattr("cinelora.smallbase.vae.CROPS", 2)
    monkeypatch.setattr("cinelora.smallbase.vae.decayed", lambda peak, *_, **__: peak / 100)
    train_vae(tmp_path / "stopped", 1, 0)
    resumed = train_vae(tmp_path / "stopped", 2, 0)
    straight = train_vae(tmp_path / "straight", 2, 0)
    assert resumed.keys() == straight.keys()
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-6, rtol=0, msg=name)


def test_a_stopped_denoiser_goes_on_with_its_momenta_and_its_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinelora.smallbase.denoiser.decayed", lambda peak, *_, **__: peak / 100)
    draw = generator("test", "denoiser")
    clips = Clips(
        torch.randn(4, 16, 2, 4, 4, generator=draw), torch.randn(4, 20, 2, 4, 4, generator=draw),
        torch.randn(4, 17, 64, generator=draw), torch.randint(3, 90, (4, 48), generator=draw),
        torch.tensor([5, 9, 20, 48]),
    )  # fmt: skip
    train_denoiser(tmp_path / "stopped", clips, {}, 2, 0)
    resumed = train_denoiser(tmp_path / "stopped", clips, {}, 4, 0)
    straight = train_denoiser(tmp_path / "straight", clips, {}, 4, 0)
    for one, other in zip(resumed, straight, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_the_command_writes_a_folder_that_the_stock_pipeline_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinelora.smallbase.vae.HELDOUT_CLIPS", 1)
    monkeypatch.setattr("cinelora.smallbase.vae.CROPS", 2)
    monkeypatch.setattr("cinelora.smallbase.denoiser.HELDOUT_CLIPS", 2)
    monkeypatch.setattr("cinelora.smallbase.evaluate.evaluate_base", lambda folder, weights: {"source_vae_psnr": 1.0})
    folder = tmp_path / "base"
    command = ["--out", str(folder), "--state", str(tmp_path / "state")]
    assert main([*command, "--vae-steps", "2", "--denoiser-steps", "2", "--clips", "4"]) == 0
    assert json.loads((folder / "merit.json").read_text()) == {"source_vae_psnr": 1.0}
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 20e6
    pipeline = WanImageToVideoPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    first = Image.fromarray(make_clip("source", 3, 0)[0][0])
    frames = pipeline(
        image=first, prompt=make_caption("source", 3, 0), height=64, width=64, num_frames=17,
        num_inference_steps=2, guidance_scale=1.0, output_type="np",
    ).frames  # fmt: skip
    assert frames.shape == (1, 17, 64, 64, 3) and np.isfinite(frames).all()


def test_muon_is_that_of_torch_but_for_its_rounding() -> None:
    def trained(kind: type[torch.optim.Muon], dtype: torch.dtype) -> list[torch.Tensor]:
        random = torch.Generator().manual_seed(0)
        shapes = ((6, 4), (4, 6), (6, 4))
        found = [torch.nn.Parameter(torch.randn(shape, generator=random).to(dtype)) for shape in shapes]
        optimizer = kind(found, lr=1.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for _ in range(3):
            for parameter in found:
                parameter.grad = torch.randn(parameter.shape, generator=random).to(dtype)
            optimizer.step()
        return [parameter.detach().float() for parameter in found]

    ours, theirs = trained(Muon, torch.float32), trained(torch.optim.Muon, torch.float32)
    assert all(torch.allclose(a, b, atol=0.03) for a, b in zip(ours, theirs, strict=True))
    rounded = [torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True)]
    assert not any(rounded), "torch's own is in bfloat16"


def test_the_steadiness_of_equal_clips_has_no_gap_and_that_of_frozen_ones_the_whole() -> None:
    real = np.stack([make_clip("film", 3, index)[0][:5] for index in range(2)])
    frozen = np.repeat(real[:, :1], 5, axis=1)
    found = steadiness(MobileNetTrunk().eval(), real, {"equal": real, "frozen": frozen})
    assert found["gap_equal"] == 0 and found["steadiness_equal"] == found["steadiness_real"] < 1
    assert found["steadiness_frozen"] == pytest.approx(1)
    assert found["gap_frozen"] == pytest.approx(1 - found["steadiness_real"])
