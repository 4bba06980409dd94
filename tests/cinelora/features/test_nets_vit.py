"""DINO, VideoMAE-v2 and V-JEPA: counts at full size on the meta device, outputs of small ones against transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEModel, ViTConfig, ViTModel

from cinelora.core.cli import UserError
from cinelora.core.files import file_sha256
from cinelora.features.nets import NETS, dino, open_net, videomae, vjepa
from cinelora.features.nets.vit import sinusoids

WIDTH, HEADS, DEPTH = 32, 4, 2
small_dino = partial(dino.DinoVit, WIDTH, DEPTH, HEADS)
small_videomae = partial(videomae.VideoMae, WIDTH, DEPTH, HEADS, 48)
small_vjepa = partial(vjepa.VJepa, WIDTH, DEPTH, HEADS)
Tensors = dict[str, torch.Tensor]


def _random(net: torch.nn.Module, seed: int = 0) -> Any:
    """Weights large enough that every part of the net shows in its output."""
    generator = torch.Generator().manual_seed(seed)
    for each in net.parameters():
        each.data = 0.2 * torch.randn(each.shape, generator=generator)
    return net.eval().requires_grad_(False)


def _count(make: Any) -> tuple[int, int]:
    with torch.device("meta"):
        net = make()
    return sum(each.numel() for each in net.parameters()), len(net.state_dict())


def _clips(frames: int = 16, size: tuple[int, int] = (20, 36)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, frames, *size, 3), dtype=np.uint8)


def test_dino_count() -> None:
    # arXiv 2104.14294, table 1: 85 million; the published file holds 150 tensors in 343,242,485 bytes of float32
    assert _count(dino.DinoVit) == (85_798_656, 150)
    assert 0 < 343_242_485 - 4 * 85_798_656 < 100_000  # the rest names the tensors


def test_videomae_count() -> None:
    # arXiv 2303.16727: a billion; the published half-precision file, 2,023,804,201 bytes, also has the classifier
    count, tensors = _count(videomae.VideoMae)
    assert (count, tensors) == (1_011_610_752, 40 * 13 + 4)
    assert 0 < 2_023_804_201 - 2 * (count + 174 * 1408 + 174) < 200_000


def test_vjepa_count() -> None:
    # ViT-Huge has 632 million (arXiv 2010.11929, table 1); 1568 positions are kept; the pooler is one block and a query
    with torch.device("meta"):
        net = vjepa.VJepa()
    pooler = sum(each.numel() for each in net.pooler.parameters())
    assert pooler == 12 * 1280**2 + 13 * 1280 + 1280
    rest = sum(each.numel() for each in net.parameters()) - pooler - 1568 * 1280
    assert round(rest / 1e6) == 632
    assert len(net.state_dict()) == 3 + 32 * 12 + 2 + 15


@pytest.mark.parametrize(
    ("make", "name", "shape"),
    [
        (dino.DinoVit, "pos_embed", (1, 197, 768)),
        (dino.DinoVit, "blocks.11.attn.qkv.bias", (2304,)),
        (videomae.VideoMae, "patch_embed.proj.weight", (1408, 3, 2, 14, 14)),
        (videomae.VideoMae, "blocks.39.attn.q_bias", (1408,)),
        (videomae.VideoMae, "blocks.0.mlp.fc1.weight", (6144, 1408)),
        (vjepa.VJepa, "patch_embed.proj.weight", (1280, 3, 2, 16, 16)),
        (vjepa.VJepa, "blocks.31.mlp.fc2.weight", (1280, 5120)),
        (vjepa.VJepa, "pooler.cross_attention_block.xattn.kv.weight", (2560, 1280)),
    ],
)
def test_published_layers(make: Any, name: str, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert tuple(make().state_dict()[name].shape) == shape


@pytest.mark.parametrize(("make", "width"), [(videomae.VideoMae, 1408), (vjepa.VJepa, 1280)])
def test_big_nets_run_on_the_meta_device(make: Any, width: int) -> None:
    with torch.device("meta"):
        assert make()(torch.zeros(1, 3, 16, 224, 224)).shape == (1, width)


def _split(state: Tensors, place: int, names: tuple[str, str, str]) -> Tensors:
    """Query, key and value of block `place` apart, as transformers has them."""
    weights = state[f"blocks.{place}.attn.qkv.weight"].chunk(3)
    return {f"{name}.weight": weight for name, weight in zip(names, weights, strict=True)}


def test_dino_equals_transformers() -> None:
    net = _random(small_dino())
    state = net.state_dict()
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        layer_norm_eps=1e-6,
    )
    theirs = ViTModel(config, add_pooling_layer=False).eval()
    mapped = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    for place in range(DEPTH):
        mine, other = f"blocks.{place}", f"layers.{place}"
        names = tuple(f"{other}.attention.{part}_proj" for part in "qkv")
        mapped |= _split(state, place, names)
        biases = state[f"{mine}.attn.qkv.bias"].chunk(3)
        mapped |= {f"{name}.bias": bias for name, bias in zip(names, biases, strict=True)}
        pairs = {"attn.proj": "attention.o_proj", "norm1": "layernorm_before", "norm2": "layernorm_after"}
        for here, there in (pairs | {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}).items():
            mapped |= {f"{other}.{there}.{kind}": state[f"{mine}.{here}.{kind}"] for kind in ("weight", "bias")}
    theirs.load_state_dict(mapped)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(net(images), theirs(images).last_hidden_state[:, 0], atol=1e-4, rtol=1e-4)


def _reference(state: Tensors, patch: int, hidden: int, last_norm: bool) -> VideoMAEModel:
    """transformers' VideoMAE with the blocks of `state`; it has no bias for the keys."""
    config = VideoMAEConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=hidden,
        layer_norm_eps=1e-6,
        patch_size=patch,
        use_mean_pooling=not last_norm,
    )
    mapped = {f"embeddings.patch_embeddings.projection.{k}": state[f"patch_embed.proj.{k}"] for k in ("weight", "bias")}
    if last_norm:
        mapped |= {f"layernorm.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")}
    for place in range(DEPTH):
        mine, other = f"blocks.{place}", f"encoder.layer.{place}"
        names = tuple(f"{other}.attention.attention.{part}" for part in ("query", "key", "value"))
        mapped |= _split(state, place, names)
        if f"{mine}.attn.q_bias" in state:
            query, value = state[f"{mine}.attn.q_bias"], state[f"{mine}.attn.v_bias"]
        else:
            query, _, value = state[f"{mine}.attn.qkv.bias"].chunk(3)
        mapped |= {f"{names[0]}.bias": query, f"{names[2]}.bias": value}
        pairs = {"attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
        for here, there in (pairs | {"norm1": "layernorm_before", "norm2": "layernorm_after"}).items():
            mapped |= {f"{other}.{there}.{kind}": state[f"{mine}.{here}.{kind}"] for kind in ("weight", "bias")}
    theirs = VideoMAEModel(config).eval()
    theirs.load_state_dict(mapped)
    return theirs


def test_videomae_equals_transformers() -> None:
    net = _random(small_videomae())
    theirs = _reference(net.state_dict(), patch=14, hidden=48, last_norm=False)
    video = torch.randn(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        tokens = theirs(video.transpose(1, 2)).last_hidden_state
        wanted = net.fc_norm(tokens.mean(dim=1))
        torch.testing.assert_close(net(video), wanted, atol=1e-4, rtol=1e-4)


def test_the_encoder_of_vjepa_equals_transformers() -> None:
    # a bias of the keys adds the same to every score of a query, so that softmax does not see it
    net = _random(small_vjepa())
    theirs = _reference(net.state_dict(), patch=16, hidden=4 * WIDTH, last_norm=True)
    theirs.embeddings.position_embeddings = net.pos_embed
    video = torch.randn(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = theirs(video.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(net.encoded(video), wanted, atol=1e-4, rtol=1e-4)


def test_the_pooler_of_vjepa_is_one_block_of_attention_to_all_tokens() -> None:
    pooler = _random(small_vjepa()).pooler
    block = pooler.cross_attention_block
    theirs = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    theirs.in_proj_weight.copy_(torch.cat([block.xattn.q.weight, block.xattn.kv.weight]))
    theirs.in_proj_bias.copy_(torch.cat([block.xattn.q.bias, block.xattn.kv.bias]))
    theirs.out_proj.load_state_dict(block.xattn.proj.state_dict())
    tokens = torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(1))
    normed = block.norm1(tokens)
    query = pooler.query_tokens.expand(2, 1, WIDTH)
    query = query + theirs(query, normed, normed, need_weights=False)[0]
    torch.testing.assert_close(pooler(tokens), (query + block.mlp(block.norm2(query)))[:, 0], atol=1e-5, rtol=1e-5)


def test_sinusoids_alternate_sine_and_cosine() -> None:
    table = sinusoids(3, 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    assert table[2].tolist() == pytest.approx([np.sin(2), np.cos(2), np.sin(0.02), np.cos(0.02)])


def _cubic(distance: float) -> float:
    """Keys' cubic convolution with PyTorch's slope of -3/4 (IEEE ASSP 1981, eq. 4 in general form)."""
    x, slope = abs(distance), -0.75
    near = (slope + 2) * x**3 - (slope + 3) * x**2 + 1
    return near if x <= 1 else slope * (x**3 - 5 * x**2 + 8 * x - 4)


def test_dino_stretches_its_grid_as_published() -> None:
    net = small_dino()
    rows = torch.arange(14.0).view(14, 1, 1).expand(14, 14, WIDTH)
    net.pos_embed.data = torch.cat([torch.full((1, 1, WIDTH), 9.0), rows.reshape(1, 196, WIDTH)], dim=1)
    stretched = net.positions(28, 24)
    assert stretched.shape == (1, 1 + 28 * 24, WIDTH) and (stretched[:, 0] == 9).all()
    # row i of the new grid looks at row (i + 1/2) * 14 / 28.1 - 1/2 of the old: the 0.1 is that of the published code
    place = 12.5 * 14 / 28.1 - 0.5
    wanted = sum(row * _cubic(place - row) for row in range(int(place) - 1, int(place) + 3))
    column = stretched[0, 1:, 0].unflatten(0, (28, 24))[:, 5]
    assert column[12].item() == pytest.approx(wanted, abs=1e-4)
    assert torch.equal(net.positions(14, 14), net.pos_embed)


def test_dino_looks_at_the_whole_wide_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dino, "DinoVit", small_dino)
    net = _random(small_dino())
    torch.save(net.state_dict() | {"head.weight": torch.zeros(1)}, tmp_path / "dino.pth")
    loaded = open_net("dino", tmp_path / "dino.pth", {"weights": file_sha256(tmp_path / "dino.pth")})
    clips = _clips(2, (32, 64))
    got = NETS["dino"].extract(loaded.net, clips)
    assert got.shape == (2, 2, WIDTH) and got.dtype == np.float32
    clips[..., -8:, :] = 255  # a centre crop would lose this margin
    assert np.abs(NETS["dino"].extract(loaded.net, clips) - got).max() > 0.01
    back = NETS["dino"].extract(loaded.net, clips[:, ::-1].copy(), batch=2)
    np.testing.assert_allclose(back[:, ::-1], NETS["dino"].extract(loaded.net, clips), atol=1e-4)


def test_videomae_reads_its_checkpoint_and_zero_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videomae, "VideoMae", small_videomae)
    net = _random(small_videomae())
    path = tmp_path / "vit_g_hybrid_pt_1200e_ssv2_ft.pth"
    head = {"head.weight": torch.zeros(174, WIDTH), "head.bias": torch.zeros(174)}
    torch.save({"module": {k: v.half() for k, v in net.state_dict().items()} | head}, path)
    loaded = open_net("videomae", path, {"weights": file_sha256(path)})
    clips = np.full((1, 16, 20, 36, 3), 51, np.uint8)
    got = NETS["videomae"].extract(loaded.net, clips)
    with torch.inference_mode():
        wanted = loaded.net(torch.full((1, 3, 16, 224, 224), 0.2)).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert got.shape == (1, WIDTH) and next(loaded.net.parameters()).dtype == torch.float32


def test_vjepa_reads_encoder_and_probe_from_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vjepa, "VJepa", small_vjepa)
    state = _random(small_vjepa()).state_dict()
    encoder = {f"module.backbone.{k}": v for k, v in state.items() if not k.startswith("pooler.")}
    other = {key: torch.zeros_like(value) for key, value in encoder.items()}
    torch.save({"encoder": other, "target_encoder": encoder, "opt": {}, "epoch": 300}, tmp_path / "vith16.pth.tar")
    with pytest.raises(UserError, match=r"score\.vjepa=.*ssv2-probe\.pth\.tar: no such file"):
        open_net("vjepa", tmp_path)
    probe = {f"module.{key}": value for key, value in state.items() if key.startswith("pooler.")}
    probe["module.linear.weight"] = torch.zeros(174, WIDTH)
    torch.save({"classifier": probe, "epoch": 20}, tmp_path / "ssv2-probe.pth.tar")
    loaded = open_net("vjepa", tmp_path)
    assert loaded.sha256 == {
        "encoder": file_sha256(tmp_path / "vith16.pth.tar"),
        "probe": file_sha256(tmp_path / "ssv2-probe.pth.tar"),
    }
    assert all(torch.equal(value, state[key]) for key, value in loaded.net.state_dict().items())
    assert NETS["vjepa"].extract(loaded.net, _clips()).shape == (2, WIDTH)
    with pytest.raises(UserError, match="SHA-256 of the probe expected 00"):
        open_net("vjepa", tmp_path, {"probe": "00"})


def test_vjepa_sees_the_mean_of_imagenet_as_zero() -> None:
    net = _random(small_vjepa())
    clips = np.zeros((1, 16, 20, 36, 3), np.uint8)
    clips[...] = (124, 116, 104)  # 0.485, 0.456, 0.406 of 255, to the nearest level
    with torch.inference_mode():
        wanted = net(torch.zeros(1, 3, 16, 224, 224)).numpy()
    np.testing.assert_allclose(NETS["vjepa"].extract(net, clips), wanted, atol=0.05)
    clips += 100  # the tolerance above is not what lets it pass
    assert np.abs(NETS["vjepa"].extract(net, clips) - wanted).max() > 0.2


@pytest.mark.parametrize("name", ["videomae", "vjepa"])
def test_clips_of_another_length_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="17 frames: give exactly 16"):
        NETS[name].extract(torch.nn.Identity(), _clips(17))


@pytest.mark.parametrize("make", [small_videomae, small_vjepa])
def test_video_nets_see_the_order_of_frames(make: Any) -> None:
    name = "vjepa" if make is small_vjepa else "videomae"
    net, clips = _random(make()), _clips()
    forth, back = (NETS[name].extract(net, each) for each in (clips, clips[:, ::-1].copy()))
    assert np.abs(forth - back).max() > 1e-3
