"""Memorisation, diversity and colour grade on numbers that fit on paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from cinelora.metrics.catalogue import RATIO_CAP
from cinelora.metrics.few_clips import (
    YCBCR,
    YCBCR_OFFSET,
    colour_histograms,
    memorisation_ratios,
    nearer_to_training,
    style_distance,
)


def _flat(red: int, green: int, blue: int, clips: int = 1) -> np.ndarray:
    return np.full((clips, 2, 4, 4, 3), (red, green, blue), np.uint8)


def test_memorisation_by_hand() -> None:
    train, heldout = [[0.0, 0.0], [10.0, 0.0]], [[0.0, 4.0], [100.0, 0.0], [100.0, 1.0]]
    found = memorisation_ratios([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], train, heldout, [1, 2, 1, 2])
    assert found.tolist() == [0.0, 1 / 3, 1.0, 3.0]
    assert nearer_to_training(found).tolist() == [1.0, 1.0, 0.5, 0.0]  # the tie counts half


def test_the_held_out_clip_that_gave_the_first_frame_is_left_out() -> None:
    made, train, heldout = [[1.0]], [[3.0]], [[0.5], [9.0]]
    assert memorisation_ratios(made, train, heldout, [1]).tolist() == [4.0]
    assert memorisation_ratios(made, train, heldout, [0]).tolist() == [2 / 8]


def test_a_clip_equal_to_both_sets_has_ratio_one_and_to_a_held_out_clip_the_largest() -> None:
    heldout = [[1.0], [50.0]]
    assert memorisation_ratios([[1.0]], [[1.0]], heldout, [1]).tolist() == [1.0]
    found = memorisation_ratios([[1.0], [1.001]], [[3.0]], heldout, [1, 1])
    assert found.tolist() == [RATIO_CAP, RATIO_CAP] and nearer_to_training(found).tolist() == [0.0, 0.0]


def test_share_by_chance_is_what_clips_of_neither_set_show() -> None:
    random = np.random.default_rng(0)
    shares = []  # of fresh sets: one pair of sets has its own luck
    for _ in range(200):
        sets = [random.standard_normal((count, 4)) for count in (20, 30, 11)]
        shares.append(nearer_to_training(memorisation_ratios(*sets, np.zeros(20, int))).mean())
    assert np.mean(shares) == pytest.approx(0.75, abs=4 * stats.sem(shares))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": [[1.0, 2.0]]}, "do not compare"),
        ({"train": np.empty((0, 1))}, "1 clip or more"),
        ({"generated": [[np.nan]]}, "give finite"),
        ({"own": [2]}, "there are 2 held-out clips"),
        ({"own": [0, 1]}, "one held-out row for each of 1"),
        ({"own": [0.0]}, "one held-out row"),
        ({"heldout": [[0.5]], "own": [0]}, "of 2 or more"),
    ],
)
def test_bad_memorisation_input_is_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"generated": [[1.0]], "train": [[3.0]], "heldout": [[0.5], [9.0]], "own": [0]} | change
    with pytest.raises(ValueError, match=message):
        memorisation_ratios(**given)


def test_histograms_are_those_of_every_pixel_converted() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (1, 2, 40, 50, 3), dtype=np.uint8)
    levels = np.rint(clip.reshape(-1, 3) @ YCBCR.T + YCBCR_OFFSET).clip(0, 255).astype(int)
    expected = [np.bincount(channel, minlength=256) / len(levels) for channel in levels.T]
    assert np.array_equal(colour_histograms(clip)[0], expected)


def test_histograms_of_plain_colours() -> None:
    """Grey has chroma 128; pure red is Y 76, Cb 85, Cr 255 (255.5 is cut off)."""
    found = colour_histograms(np.concatenate([_flat(90, 90, 90), _flat(255, 0, 0)]))
    assert found.argmax(-1).tolist() == [[90, 128, 128], [76, 85, 255]]
    assert np.allclose(found.sum(-1), 1.0)


def test_style_distance_is_the_shift_in_levels() -> None:
    target = colour_histograms(_flat(90, 90, 90, clips=3))
    assert style_distance(colour_histograms(_flat(100, 100, 100)), target) == pytest.approx(np.array([[10.0, 0, 0]]))
    assert not style_distance(target, target).any()
    # a target half dark, half bright: every grey between is as far from it
    mixed = colour_histograms(np.concatenate([_flat(50, 50, 50), _flat(150, 150, 150)]))
    for level in (50, 70, 100, 150):
        assert style_distance(colour_histograms(_flat(level, level, level)), mixed)[0, 0] == pytest.approx(50.0)
    assert not style_distance(mixed.mean(axis=0), mixed).any()


def test_style_distance_is_the_wasserstein_distance_of_scipy() -> None:
    a, b = (np.random.default_rng(i).integers(0, 256, (1, 2, 8, 8, 3), dtype=np.uint8) for i in range(2))
    made, target = colour_histograms(a), colour_histograms(b)
    levels = np.arange(256)
    expected = [stats.wasserstein_distance(levels, levels, made[0, c], target[0, c]) for c in range(3)]
    assert style_distance(made, target)[0] == pytest.approx(expected)


def test_bad_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="give uint8"):
        colour_histograms(_flat(1, 2, 3)[0])
    good = colour_histograms(_flat(1, 2, 3))
    for made, target in ((good[..., :9], good), (good, good[0]), (good, good[:0])):
        with pytest.raises(ValueError, match="3, 256"):
            style_distance(made, target)
