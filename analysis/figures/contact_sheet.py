"""The contact sheet: frames of a few held-out clips, the reference on top, below it the base and each rank.

In: `Estimates`; reads `samples/<clip_id>.mp4`. Out: one picture, rows are models, columns are frames, grouped by clip.
A clip that is not on disk, or of another size, stays blank. R rows, C clips, F frames of H x W pixels.
"""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.style import WIDTH, headline
from analysis.statistics.findings import Findings
from analysis.study.frames import Image, read_clip, spread
from analysis.study.rows import Estimates

CLIPS, FRAMES = 3, 4
MAX_ROWS = 12  # a sheet taller than a page helps nobody
BLANK = 235  # grey of a clip that is absent
LABEL_LETTERS = 13  # of a row label: 0.75 inches of 7-point type
GAP, CLIP_GAP = 2, 10  # pixels between frames and between clips
LEFT, RIGHT, BOTTOM = 0.8, 0.05, 0.05  # margins in inches
TOP, TOP_WITH_HEADLINE = 0.32, 0.5


class Sheet(NamedTuple):
    rows: tuple[str, ...]
    clips: tuple[str, ...]
    frame_numbers: tuple[int, ...]  # counted from 0
    frames: Image  # uint8 (R, C, F, H, W, 3)


def contact_sheet(findings: Findings) -> Figure | None:
    """None where no reference clip is on disk."""
    sheet = read_sheet(findings.estimates)
    if sheet is None:
        return None
    picture, tops, lefts = mosaic(sheet.frames)
    top = TOP_WITH_HEADLINE if headline(findings.study) else TOP
    inner_width = WIDTH - LEFT - RIGHT
    inner_height = inner_width * picture.shape[0] / picture.shape[1]
    height = inner_height + top + BOTTOM
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, inner_width / WIDTH, inner_height / height))
    axes.imshow(picture, interpolation="antialiased", aspect="equal")
    axes.set_axis_off()
    _label(axes, sheet, tops, lefts)
    return figure


def read_sheet(estimates: Estimates) -> Sheet | None:
    """Reference, base, then each row with its first finished seed; None where no reference clip is on disk."""
    study, clips = estimates.study, spread(estimates.scores.clips, CLIPS)
    folders = [("reference", study.reference_folder)]
    folders += [(row.full_name, study.trial_folder(row.trial_ids[0])) for row in estimates.rows if row.done]
    names, places = zip(*folders[:MAX_ROWS], strict=True)
    shown = [[read_clip(folder.sample(clip)) for clip in clips] for folder in places]
    first = next((frames for frames in shown[0] if frames is not None), None)
    if first is None:
        return None
    numbers = spread(tuple(range(len(first))), FRAMES)
    blank = np.full((len(numbers), *first.shape[1:]), BLANK, dtype=np.uint8)
    grid = np.stack([np.stack([_pick(frames, numbers, blank) for frames in row]) for row in shown])
    return Sheet(names, clips, numbers, grid)


def mosaic(frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[int], list[list[int]]]:
    """(R, C, F, H, W, 3) -> one picture on white, the top of each row, the left of each frame of each clip."""
    rows, clips, count, height, width, _ = frames.shape
    clip_width = count * width + (count - 1) * GAP
    tops = [row * (height + GAP) for row in range(rows)]
    lefts = [
        [clip * (clip_width + CLIP_GAP) + frame * (width + GAP) for frame in range(count)] for clip in range(clips)
    ]
    picture = np.full((tops[-1] + height, lefts[-1][-1] + width, 3), 255, dtype=np.uint8)
    for row, clip, frame in np.ndindex(rows, clips, count):
        top, left = tops[row], lefts[clip][frame]
        picture[top : top + height, left : left + width] = frames[row, clip, frame]
    return picture, tops, lefts


def _label(axes: Axes, sheet: Sheet, tops: list[int], lefts: list[list[int]]) -> None:
    """Rows at the left; above the top row the name of each clip and the number of each frame."""
    height, width = sheet.frames.shape[3:5]
    for name, top in zip(sheet.rows, tops, strict=True):
        lines = "\n".join(textwrap.wrap(name, LABEL_LETTERS))
        axes.text(-4, top + height / 2, lines, ha="right", va="center", fontsize=7)
    above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "annotation_clip": False}
    for clip, starts in zip(sheet.clips, lefts, strict=True):
        axes.annotate(clip, ((starts[0] + starts[-1] + width) / 2, 0), (0, 11), fontsize=7, **above)
        for number, start in zip(sheet.frame_numbers, starts, strict=True):
            axes.annotate(f"{number}", (start + width / 2, 0), (0, 2), fontsize=6, color="0.35", **above)


def _pick(frames: Image | None, numbers: tuple[int, ...], blank: Image) -> Image:
    """The numbered frames (F, H, W, 3); blank if the clip is absent, shorter or of another size."""
    if frames is None or len(frames) <= max(numbers) or frames.shape[1:] != blank.shape[1:]:
        return blank
    return np.asarray(frames[list(numbers)], dtype=np.uint8)
