"""Long clips, checked by hand: a window is eight frames of one grey level each."""

from __future__ import annotations

import numpy as np
import pytest

from cinelora.render.long_clips import changes, continuity, joined, long_clip, seams, window_count

SIDE = 16


def levels(*values: int) -> np.ndarray:
    """Frames (T, 16, 16, 3) of these grey levels."""
    return np.repeat(np.array(values, np.uint8), SIDE * SIDE * 3).reshape(-1, SIDE, SIDE, 3)


def greys(clip: np.ndarray) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in clip]


@pytest.mark.parametrize(
    ("frames", "overlap", "windows"),
    [(5, 1, 1), (8, 1, 1), (9, 1, 2), (15, 1, 2), (16, 1, 3), (12, 4, 2), (13, 4, 3)],
)
def test_how_many_windows(frames: int, overlap: int, windows: int) -> None:
    assert window_count(frames, 8, overlap) == windows
    assert len(list(seams(frames, 8, overlap))) == windows - 1


def test_one_frame_of_overlap_keeps_the_frame_that_was_given() -> None:
    assert greys(joined(levels(0, 10, 20), levels(90, 30, 40), 1)) == [0, 10, 20, 30, 40]


def test_more_overlap_fades() -> None:
    """Weights 0, 1/4, 2/4, 3/4 on the new window."""
    old, new = levels(7, 100, 100, 100, 100), levels(0, 0, 0, 0, 50)
    assert greys(joined(old, new, 4)) == [7, 100, 75, 50, 25, 50]


def test_each_window_starts_from_the_frame_where_it_is_laid() -> None:
    """A window counts up from its picture, so a correct clip counts up throughout."""
    calls = []

    def render(index: int, picture: np.ndarray) -> np.ndarray:
        calls.append((index, int(picture[0, 0, 0])))
        return levels(*range(int(picture[0, 0, 0]), int(picture[0, 0, 0]) + 8))

    assert greys(long_clip(render, levels(100)[0], 15, 8, 3)) == list(range(100, 115))
    assert calls == [(0, 100), (1, 105), (2, 110)]


def test_a_jump_shows_at_its_seam_alone() -> None:
    """Steps of 1, but 5 into the second window; frame features are the level itself."""
    clip = levels(0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18)
    steps = changes(clip, {"net": clip[:, 0, 0, :1].astype(np.float32)})
    found = continuity(steps, 8, 1)
    for name in ("pixels", "tdelta[net]"):
        assert found[name] == {
            "inside_median": 1.0,
            "inside_largest_ratio": 1.0,
            "seams": [5.0],
            "seam_ratios": [5.0],
        }
    assert found["1-ssim"]["seams"][0] > found["1-ssim"]["inside_median"] > 0


def test_a_frozen_clip_has_no_ratio() -> None:
    found = continuity(changes(levels(*[9] * 12), {}), 8, 1)
    assert found["pixels"]["seam_ratios"] == [None]
