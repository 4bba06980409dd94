"""The contact sheet of rendered clips: frames of each, and the change from frame to frame, with the seams marked.

In: frames of clips of equal length, uint8, and their changes. Out: a PNG, 7 inches wide; same input, same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cinelora.core.files import whole_file
from cinelora.features.nets.frames import Frames
from cinelora.metrics.distances import Array
from cinelora.render.long_clips import seams

COLUMNS, DPI = 9, 200
WIDTH, MARGIN, CURVE, TOP, GAP = 7.0, 0.75, 1.4, 0.2, 0.04  # inches
COLOURS = ("0.25", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito 2008
STYLES = ("-", "--", "-.", ":")


def shown_frames(frames: int) -> NDArray[np.intp]:
    """Indices of the frames that the sheet shows, evenly spread."""
    return np.unique(np.linspace(0, frames - 1, COLUMNS).round().astype(np.intp))


def write_sheet(
    path: Path,
    pictures: Mapping[str, Frames],
    steps: Mapping[str, Array],
    window: int,
    overlap: int,
) -> None:
    """`pictures`: the `shown_frames` of each clip; `steps`: mean absolute change of each step (T - 1,), levels."""
    count, tall, wide, _ = next(iter(pictures.values())).shape
    strip = (WIDTH - MARGIN) / count * tall / wide
    height = len(pictures) * (strip + GAP) + CURVE + TOP
    with matplotlib.rc_context({"font.size": 7, "axes.linewidth": 0.6}):
        figure = Figure(figsize=(WIDTH, height), dpi=DPI)
        _strips(figure, height, strip, pictures, shown_frames(len(next(iter(steps.values()))) + 1))
        _curves(figure, height, steps, window, overlap)
        with whole_file(path) as temporary:
            figure.savefig(temporary, metadata={"Software": None})


def _strips(figure: Figure, height: float, strip: float, pictures: Mapping[str, Frames], at: NDArray[np.intp]) -> None:
    for row, (name, frames) in enumerate(pictures.items()):
        bottom = height - TOP - row * (strip + GAP) - strip
        axes = figure.add_axes((MARGIN / WIDTH, bottom / height, 1 - MARGIN / WIDTH, strip / height))
        axes.imshow(np.concatenate(list(frames), axis=1), aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        axes.text(-0.01, 0.5, name.replace("-", " ", 1), transform=axes.transAxes, ha="right", va="center")
        if row == 0:
            for place, index in enumerate(at):
                axes.text((place + 0.5) / len(at), 1.02, str(index), transform=axes.transAxes, ha="center", va="bottom")


def _curves(figure: Figure, height: float, steps: Mapping[str, Array], window: int, overlap: int) -> None:
    axes = figure.add_axes((MARGIN / WIDTH, 0.38 / height, 0.985 - MARGIN / WIDTH, (CURVE - 0.65) / height))
    length = len(next(iter(steps.values()))) + 1
    for seam in seams(length, window, overlap):
        axes.axvspan(float(seam.start) + 0.5, float(seam.stop) + 0.5, color="0.88", linewidth=0)
    for index, (name, values) in enumerate(steps.items()):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index % len(STYLES)]
        axes.plot(range(1, length), values, linewidth=1, label=name.replace("-", " ", 1), color=colour, linestyle=style)
    axes.set(xlim=(0, length), ylim=(0, None), xlabel="frame (grey: across a seam)", ylabel="change,\nlevels")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=6, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, handlelength=2.4)
