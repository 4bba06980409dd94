"""Made clips: deterministic, captioned truthfully, two domains; and the sets built from them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from cinelora.core.config import DataConfig
from cinelora.data.sample_sets import SplitSpec, write_set
from cinelora.data.synthetic import COLOURS, SHAPES, draw_scene, make_clip
from cinelora.data.windows import plan_windows
from cinelora.smallbase.vae import decode_pixels, encode_moments, stock, whole_clip
from cinelora.wan import tiny


@pytest.mark.parametrize("domain", ["source", "film"])
def test_same_key_same_clip(domain: str) -> None:
    frames, caption = make_clip(domain, 3, 5)
    again, _ = make_clip(domain, 3, 5)
    other, _ = make_clip(domain, 3, 6)
    assert frames.shape == (17, 64, 64, 3) and frames.dtype == np.uint8 and caption
    assert np.array_equal(frames, again) and not np.array_equal(frames, other)


def test_domains_share_no_shape() -> None:
    captions = {domain: " ".join(make_clip(domain, 0, i)[1] for i in range(60)) for domain in SHAPES}
    assert all(shape in captions["source"] for shape in SHAPES["source"])
    assert not any(shape in captions["film"] for shape in SHAPES["source"])
    assert "film shot" in captions["film"] and "film shot" not in captions["source"]


def middle(frame: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Mean (row, column) of the pixels of this colour; NaN if there is none."""
    near = np.abs(frame / 255 - np.asarray(colour)).max(-1) < 0.12
    return np.argwhere(near).mean(0) if near.sum() > 8 else np.full(2, np.nan)


def test_the_caption_tells_the_motion() -> None:
    """The one shape before a still camera goes where its caption says."""
    ways = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    seen = set()
    for index in range(300):
        scene = draw_scene("source", 9, index)
        shape = scene.shapes[0]
        if len(scene.shapes) > 1 or scene.camera != "static" or scene.light != "steady light" or not shape.move:
            continue
        frames, caption = make_clip("source", 9, index)
        moved = middle(frames[-1], COLOURS[shape.colour]) - middle(frames[0], COLOURS[shape.colour])
        if np.isfinite(moved).all():
            way = shape.move.split()[0]
            assert f"moves {shape.move}" in caption
            assert np.dot(moved, ways[way]) > 3 * abs(np.dot(moved, ways[way][::-1])), caption
            seen.add(way)
    assert seen == set(ways)


def test_sets_have_named_splits_and_common_clips(tmp_path: Path) -> None:
    small = {
        "a": (SplitSpec("train", "film", 1, 3), SplitSpec("heldout", "film", 2, 2), SplitSpec("other", "source", 4, 1)),
        "b": (SplitSpec("train", "source", 5, 3), SplitSpec("heldout", "film", 2, 2)),
    }
    plans = {}
    for name, parts in small.items():
        write_set(tmp_path / name, parts)
        plans[name] = plan_windows(tmp_path / name, DataConfig(), tmp_path)
        assert len(plans[name].train) == 3 and len(plans[name].heldout) == 2
    assert len(plans["a"].other) == 1 and not plans["b"].other
    assert plans["a"].heldout == plans["b"].heldout, "a control is judged on the very same clips"
    with open(tmp_path / "a" / "metadata.csv") as stream:
        captions = {row["video"]: row["prompt"] for row in csv.DictReader(stream)}
    assert captions["heldout-film-001.mp4"] == make_clip("film", 2, 1)[1]


def test_whole_clip_pass_equals_the_stock_autoencoder() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**tiny.VAE).eval()
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        mode = vae.encode(video).latent_dist.mode()
        decoded = vae.decode(mode, return_dict=False)[0]
        whole_clip(vae)
        assert torch.allclose(encode_moments(vae, video)[0], mode, atol=1e-5)
        assert torch.allclose(decode_pixels(vae, mode).clamp(-1, 1), decoded, atol=1e-5)
        assert torch.equal(stock(vae).encode(video).latent_dist.mode(), mode)
