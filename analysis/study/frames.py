"""Generated and true clips -> the frames of the contact sheet.

In: `Estimates`; reads `samples/<clip_id>.mp4`. Out: `Sheet`, frames uint8
(R rows, C clips, F frames, H, W, 3). A clip that is not on disk stays blank and is named in `absent`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from analysis.study.load import Study
from analysis.study.rows import Estimates, Row
from cinelora.core.paths import SampleFolder

CLIPS, FRAMES = 3, 4
MAX_ROWS = 12  # a sheet taller than a page helps nobody
MAX_HEIGHT = 180  # pixels of one frame: about 300 dots per inch in print
BLANK = 235  # grey of a clip that is absent

Image = NDArray[np.uint8]
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Sheet:
    rows: tuple[str, ...]
    clips: tuple[str, ...]
    frame_numbers: tuple[int, ...]  # counted from 0
    frames: Image  # (R, C, F, H, W, 3)
    absent: tuple[str, ...]  # what could not be drawn, one sentence each


def contact_sheet(estimates: Estimates) -> Sheet | None:
    """Truth, base, then each rank with its first finished seed; None where the true clips are not there."""
    study, clips = estimates.study, spread(estimates.scores.clips, CLIPS)
    folders = [("truth", study.reference_folder), *_rows(study, estimates.rows)]
    shown = [(name, [read_clip(folder.sample(clip)) for clip in clips]) for name, folder in folders[:MAX_ROWS]]
    first = next((frames for frames in shown[0][1] if frames is not None), None)
    if first is None:
        return None
    numbers = spread(tuple(range(len(first))), FRAMES)
    blank = np.full((len(numbers), *first.shape[1:]), BLANK, dtype=np.uint8)
    grid = np.stack([np.stack([_pick(frames, numbers, blank) for frames in row]) for _, row in shown])
    absent = [
        f"{name} of {clip} is not on disk or of another size"
        for row, (name, _) in enumerate(shown)
        for column, clip in enumerate(clips)
        if (grid[row, column] == blank).all()
    ]
    if len(folders) > MAX_ROWS:
        absent.append(f"the first {MAX_ROWS} of {len(folders)} rows are shown")
    return Sheet(tuple(name for name, _ in shown), clips, numbers, grid, tuple(absent))


def read_clip(path: Path) -> Image | None:
    """All frames of an mp4, uint8 RGB (T, H, W, 3), shrunk to MAX_HEIGHT; None if there is no such file."""
    if not path.exists():
        return None
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            height = min(frame.height, MAX_HEIGHT)
            width = round(frame.width * height / frame.height)
            frames.append(frame.to_ndarray(format="rgb24", width=width, height=height))
    return np.stack(frames).astype(np.uint8) if frames else None


def spread(items: tuple[Item, ...], count: int) -> tuple[Item, ...]:
    """At most `count` of `items`, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return tuple(items[round(index * (len(items) - 1) / (count - 1))] for index in range(count))


def _rows(study: Study, rows: tuple[Row, ...]) -> list[tuple[str, SampleFolder]]:
    """The folder of the first finished trial of each row, in row order."""
    out: list[tuple[str, SampleFolder]] = []
    for row in rows:
        if row.trial_ids:
            name = row.full_name
            out.append((name, study.trial_folder(row.trial_ids[0])))
    return out


def _pick(frames: Image | None, numbers: tuple[int, ...], blank: Image) -> Image:
    """The numbered frames (F, H, W, 3); blank if the clip is absent, shorter or of another size."""
    if frames is None or len(frames) <= max(numbers) or frames.shape[1:] != blank.shape[1:]:
        return blank
    return np.asarray(frames[list(numbers)], dtype=np.uint8)
