"""CLIP: published counts, files in the published layout, pixels as transformers prepares them, long texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from cinelora.core.cli import UserError
from cinelora.core.files import file_sha256
from cinelora.features.nets import NETS, clip, open_net
from cinelora.metrics.feature_nets import WEIGHTS, checked_files

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = [START, END, "a", "b", "c", "a</w>", "b</w>", "c</w>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of B/32's output width with one narrow layer a tower, and a tokenizer of three letters."""
    narrow = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**narrow, "vocab_size": len(VOCABULARY), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(projection_dim=512, text_config=text, vision_config={**narrow, "patch_size": 32})
    torch.manual_seed(0)
    model = CLIPModel(config)
    for each in model.parameters():
        each.data = 0.2 * torch.randn(each.shape)
    path = tmp_path_factory.mktemp("clip")
    model.save_pretrained(path)
    (path / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(VOCABULARY)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return path


@pytest.fixture(scope="module")
def net(folder: Path) -> clip.Clip:
    loaded = open_net("clip_b32", folder, {"weights": file_sha256(folder / "model.safetensors")})
    assert isinstance(loaded.net, clip.Clip)
    return loaded.net


def _clips(size: tuple[int, int] = (60, 100)) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (1, 2, size[0] // 10, size[1] // 10, 3), dtype=np.uint8)
    return coarse.repeat(10, axis=2).repeat(10, axis=3)


def test_counts_are_the_published_ones() -> None:
    # openai/clip-vit-base-patch32 and openai/clip-vit-large-patch14 on the Hugging Face hub
    text = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    vision = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    large = CLIPConfig(projection_dim=768, text_config=text, vision_config={**vision, "patch_size": 14})
    counts = []
    for config in (CLIPConfig(), large):
        with torch.device("meta"):
            counts.append(sum(each.numel() for each in CLIPModel(config).parameters()))
    assert counts == [151_277_313, 427_616_513]
    assert 0 < 1_710_540_580 - 4 * counts[1] < 100_000  # the file's size, less the values: its header


def test_frames_become_directions(net: clip.Clip) -> None:
    got = NETS["clip_b32"].extract(net, _clips())
    assert got.shape == (1, 2, 512) and got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1, atol=1e-5)
    assert not net.training and not any(each.requires_grad for each in net.parameters())


@pytest.mark.parametrize("size", [(60, 100), (300, 500), (500, 290)])
def test_pixels_are_those_of_transformers(size: tuple[int, int]) -> None:
    frames = _clips(size)[0]
    wanted = CLIPImageProcessorPil()(list(frames), return_tensors="pt")["pixel_values"]
    got = clip.pixels(torch.from_numpy(frames).permute(0, 3, 1, 2).float())
    level = 1 / 255 / min(clip.STD)
    assert (got - wanted).abs().max() < 2 * level  # they round to levels twice, we do not
    assert (got - wanted).abs().mean() < 0.3 * level


def test_a_frame_equals_the_model_called_directly(net: clip.Clip, folder: Path) -> None:
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        wanted = model.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(net(pixels), wanted / wanted.norm(dim=-1, keepdim=True), atol=1e-5, rtol=1e-5)


def test_long_texts_keep_their_end_token(net: clip.Clip) -> None:
    fits, longer, other = " ".join("a" * 75), " ".join("a" * 75 + "b" * 200), " ".join("a" * 74)
    assert clip.token_counts(net.folder, [fits, longer, other]) == [77, 277, 76]
    got = clip.text_features(net, [fits, longer, other], batch=2)
    assert got.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(got[0], got[1], atol=1e-5)
    assert np.abs(got[0] - got[2]).max() > 1e-4


def test_padding_does_not_change_a_text(net: clip.Clip) -> None:
    tokens = torch.tensor([[0, 5, 6, 1]])
    with torch.inference_mode():
        wanted = net.text(tokens, torch.ones_like(tokens)).numpy()
    np.testing.assert_allclose(clip.text_features(net, ["a b"]), wanted, atol=1e-5)


def test_a_checkpoint_is_read_without_pickle_and_must_be_whole(folder: Path, tmp_path: Path) -> None:
    state = CLIPModel.from_pretrained(folder, local_files_only=True).state_dict()
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path)
    loaded = open_net("clip_b32", tmp_path, {"weights": file_sha256(path)})
    assert all(torch.equal(value, state[key.removeprefix("model.")]) for key, value in loaded.net.state_dict().items())
    del state["visual_projection.weight"]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"not the weights of clip_b32: 1 missing \(visual_projection\.weight\)"):
        open_net("clip_b32", tmp_path, {"weights": file_sha256(path)})


def test_the_other_size_and_unpinned_weights_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="a model of width 512; clip_l14 has 768"):
        open_net("clip_l14", folder)
    with pytest.raises(UserError, match=rf"expected {WEIGHTS['clip_b32'].files[0].sha256[0]}, found"):
        open_net("clip_b32", folder)


def test_a_folder_without_the_config_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"score\.clip_b32=.*: no config\.json there; give the folder"):
        checked_files("clip_b32", tmp_path)


def test_texts_need_a_tokenizer(net: clip.Clip, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer there; add tokenizer\.json or vocab\.json"):
        clip.text_features(clip.Clip(net.model, tmp_path), ["a"])
    with pytest.raises(ValueError, match="no texts"):
        clip.text_features(net, [])
