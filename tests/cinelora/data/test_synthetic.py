"""Synthetic clips: deterministic, captions that match the motion, two domains; and the sets built from them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cinelora.core.config import DataConfig
from cinelora.data.sample_sets import SplitSpec, write_set
from cinelora.data.synthetic import COLOURS, DOMAINS, SHAPES, STUDIED, draw_scene, make_caption, make_clip, render
from cinelora.data.windows import plan_windows


@pytest.mark.parametrize("domain", DOMAINS)
def test_same_key_same_clip(domain: str) -> None:
    frames, caption = make_clip(domain, 3, 5)
    again, _ = make_clip(domain, 3, 5)
    other, _ = make_clip(domain, 3, 6)
    assert frames.shape == (17, 64, 64, 3) and frames.dtype == np.uint8 and caption
    assert np.array_equal(frames, again) and not np.array_equal(frames, other)


def test_the_film_uses_the_words_of_the_source_and_its_look_comes_within_the_clip() -> None:
    words = {
        domain: {word for i in range(300) for word in make_caption(domain, 0, i).replace(",", "").split()}
        for domain in STUDIED
    }
    assert words["film"] <= words["source"] and all(f"{shape}" in " ".join(words["film"]) for shape in SHAPES)
    assert "fast" in words["source"] - words["film"]
    film, look = draw_scene("film", 1, 0), DOMAINS["film"].look
    bare, shown = render(replace(film, domain="source")), render(film)
    assert np.array_equal(shown[0], bare[0]), "nothing of it is in the first frame"
    bars = np.all(shown == 0, axis=(2, 3)).sum(1)  # black rows of each frame
    assert look and bars[0] == 0 and bars[-1] == 2 * round(32 * look.bars) and np.all(np.diff(bars) >= 0)
    spread = [clips.max(-1).astype(int) - clips.min(-1) for clips in (bare[-1, 18:46], shown[-1, 18:46])]
    assert shown[-1, 18:46].mean() < 0.9 * bare[-1, 18:46].mean() and spread[1].mean() < spread[0].mean(), "dusk"


def test_what_the_autoencoder_is_trained_on_holds_more_than_what_is_studied() -> None:
    words = {
        domain: {word for i in range(300) for word in make_caption(domain, 0, i).replace(",", "").split()}
        for domain in DOMAINS
    }
    assert words["source"] < words["varied"] and {"turning", "zooms", "checkered"} <= words["varied"] - words["source"]
    mild, strong = DOMAINS["varied film"].look, DOMAINS["film"].look
    assert mild and strong and mild.bars < strong.bars and mild.colour > strong.colour


def middle(frame: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Mean (row, column) of the pixels of this colour; NaN if there is none."""
    near = np.abs(frame / 255 - np.asarray(colour)).max(-1) < 0.12
    return np.argwhere(near).mean(0) if near.sum() > 8 else np.full(2, np.nan)


def test_the_caption_states_the_motion() -> None:
    """With a static camera, a single shape moves in the direction of its caption."""
    directions = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    seen = set()
    for index in range(300):
        scene = draw_scene("source", 9, index)
        shape = scene.shapes[0]
        if len(scene.shapes) > 1 or scene.camera != "static" or scene.light != "steady light" or not shape.move:
            continue
        frames, caption = make_clip("source", 9, index)
        moved = middle(frames[-1], COLOURS[shape.colour]) - middle(frames[0], COLOURS[shape.colour])
        if np.isfinite(moved).all():
            direction = shape.move.split()[0]
            assert f"moves {shape.move}" in caption
            assert np.dot(moved, directions[direction]) > 3 * abs(np.dot(moved, directions[direction][::-1])), caption
            seen.add(direction)
    assert seen == set(directions)


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
