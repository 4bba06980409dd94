"""The contact sheet: frames of a few held-out clips, the reference on top, below it the base and each rank.

In: `Findings`; reads `samples/<clip_id>.mp4`. Out: one picture, rows are models, columns are frames, grouped by clip.
A clip that is not on disk, shorter, or of another size, stays blank. R rows, C clips, F frames of H x W pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import WIDTH, headline
from analysis.statistics.findings import Findings
from analysis.study.frames import Image, read_clip, spread
from analysis.study.rows import Estimates, Row
from cinelora.core.config import seed_text

CLIPS, FRAMES = 3, 4
MAX_ROWS = 12  # a sheet taller than a page helps nobody
BLANK = 235  # grey of a clip that is absent
LABEL_LETTERS = 13, 30  # of a line of a row label; the margin widens for longer words, up to the second
LETTER = 0.058  # inches per letter of 7-point type
GAP, CLIP_GAP = 2, 10  # pixels between frames and between clips
SIDE = 0.05  # other margins in inches
TOP, TOP_WITH_HEADLINE = 0.52, 0.7
CAPTION_LINES, CAPTION_LETTERS = 2, 150  # of 5-point type, letters across all clips


class Sheet(NamedTuple):
    rows: tuple[str, ...]
    clips: tuple[str, ...]
    captions: tuple[str, ...]
    frame_numbers: tuple[int, ...]  # counted from 0
    frames: Image  # uint8 (R, C, F, H, W, 3)


def contact_sheet(findings: Findings) -> Figure | None:
    """None where no reference clip is on disk."""
    sheet = read_sheet(findings.estimates)
    if sheet is None:
        return None
    picture = mosaic(sheet.frames)
    labels = row_labels(sheet.rows)
    left = SIDE + LETTER * max(len(line) for label in labels for line in label.split("\n"))
    inner_width = WIDTH - left - SIDE
    inner_height = inner_width * picture.shape[0] / picture.shape[1]
    height = inner_height + SIDE + (TOP_WITH_HEADLINE if headline(findings.study) else TOP)
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((left / WIDTH, SIDE / height, inner_width / WIDTH, inner_height / height))
    axes.imshow(picture, interpolation="antialiased", aspect="equal")
    axes.set_axis_off()
    _label(axes, sheet, labels)
    return figure


def row_labels(names: Sequence[str]) -> list[str]:
    """The names in lines of the same width, which fits the longest word, so that no word and no "rank 8" is broken."""
    names, (least, most) = [name.replace("rank ", "rank\N{NO-BREAK SPACE}") for name in names], LABEL_LETTERS
    width = min(most, max(least, *(len(word) for name in names for word in name.split(" "))))
    return ["\n".join(textwrap.wrap(name, width)) for name in names]


def read_sheet(estimates: Estimates) -> Sheet | None:
    """Reference, base, then each row with its first finished seed; None where no reference clip is on disk."""
    study, clips = estimates.study, spread(estimates.scores.clips, CLIPS)
    folders = [("reference", study.reference_folder)]
    folders += [(_shown(row, estimates), study.trial_folder(row.trial_ids[0])) for row in estimates.rows if row.done]
    names, places = zip(*folders[:MAX_ROWS], strict=True)
    shown = [[read_clip(folder.sample(clip)) for clip in clips] for folder in places]
    first = next((frames for frames in shown[0] if frames is not None), None)
    if first is None:
        return None
    numbers = spread(tuple(range(len(first))), FRAMES)
    grid = np.full((len(shown), len(clips), len(numbers), *first.shape[1:]), BLANK, dtype=np.uint8)
    for row, clip in np.ndindex(grid.shape[:2]):
        frames = shown[row][clip]
        if frames is not None and len(frames) > max(numbers) and frames.shape[1:] == first.shape[1:]:
            grid[row, clip] = frames[list(numbers)]
    return Sheet(names, clips, tuple(study.reference.captions.get(clip, "") for clip in clips), numbers, grid)


def _shown(row: Row, estimates: Estimates) -> str:
    """The name of a row, and the seed that is shown of several."""
    return f"{row.full_name}, seed {seed_text(estimates.trials(row)[0].result.seed)}" if row.done > 1 else row.full_name


def mosaic(frames: Image) -> Image:
    """(R, C, F, H, W, 3) -> one picture on white, (R (H + GAP) - GAP, width, 3)."""
    rows, clips, count, height, width, _ = frames.shape
    padded = np.pad(frames, ((0, 0),) * 3 + ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
    strips = padded.transpose(0, 3, 1, 2, 4, 5).reshape(rows * (height + GAP), clips, count * (width + GAP), 3)
    apart = np.pad(strips, ((0, 0), (0, 0), (0, CLIP_GAP - GAP), (0, 0)), constant_values=255)
    return apart.reshape(len(apart), -1, 3)[:-GAP, :-CLIP_GAP]


def _label(axes: Axes, sheet: Sheet, labels: Sequence[str]) -> None:
    """Rows at the left; above the top row the name of each clip, its caption and the number of each frame."""
    count, height, width = sheet.frames.shape[2:5]
    for row, label in enumerate(labels):
        axes.text(-4, row * (height + GAP) + height / 2, label, ha="right", va="center", fontsize=7)
    above: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "annotation_clip": False}
    clip_width = count * (width + GAP) - GAP
    letters = CAPTION_LETTERS // len(sheet.clips)
    for clip, (name, caption) in enumerate(zip(sheet.clips, sheet.captions, strict=True)):
        left = clip * (clip_width + CLIP_GAP)
        axes.annotate(name, (left + clip_width / 2, 0), (0, 24), fontsize=7, **above)
        lines = textwrap.wrap(caption, letters, max_lines=CAPTION_LINES, placeholder=" ...")
        axes.annotate("\n".join(lines), (left + clip_width / 2, 0), (0, 10), fontsize=5, color="0.35", **above)
        for frame, number in enumerate(sheet.frame_numbers):
            place = left + frame * (width + GAP) + width / 2
            axes.annotate(f"{number}", (place, 0), (0, 2), fontsize=6, color="0.35", **above)
