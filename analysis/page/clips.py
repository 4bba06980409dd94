"""Clips of every row -> film strips light enough to put inside a page: all frames of a clip as one WebP picture.

In: `Study`, `Estimates`; reads `samples/<clip_id>.mp4`. Out: `Reel`: lanes (truth, base, one seed of each row) by
clips, spread over the held-out set. Strips and not mp4: at 64 pixels 9 kB against 12 kB of H.264 (film study,
quality 90, 39 to 41 dB), no codec to miss in a browser, and all lanes show the same frame at the same moment.
T frames of H x W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from analysis.study.files import ClipScores
from analysis.study.frames import Image as Pixels
from analysis.study.frames import read_clip, spread
from analysis.study.load import Study
from analysis.study.rows import Estimates
from cinelora.core.paths import SampleFolder

TRUTH, BASE, CHOICE = "truth", "base", "choice"  # CHOICE: a row the reader picks with the slider
MAX_CLIPS = 24  # more than anybody looks through
MAX_LANES = 64
MAX_BYTES = 7_500_000  # of pictures; base64 adds a third, and the page should stay below 15 MB
QUALITY = 90
BLOCK = 16  # pixels of a WebP macroblock: frames are padded to it so that none bleeds into its neighbour


@dataclass(frozen=True)
class Strip:
    """One clip. Frame k is `width` x `height` pixels at column k % columns, row k // columns of a grid of cells."""

    webp: bytes
    frames: int
    width: int
    height: int
    columns: int
    cell_width: int
    cell_height: int


@dataclass(frozen=True)
class Lane:
    """One model, or the truth. `detail` says which trial is shown; `scores` are its scores of each clip."""

    name: str
    kind: str
    detail: str
    folder: SampleFolder
    scores: ClipScores


@dataclass(frozen=True)
class Reel:
    """`strips[clip]` has one strip a lane, None where its file is not on disk. `total`: clips that could be shown."""

    lanes: tuple[Lane, ...]
    strips: Mapping[str, tuple[Strip | None, ...]]
    total: int
    rows_left_out: int
    fps: float


def reel(study: Study, estimates: Estimates) -> Reel | None:
    """As many clips as MAX_CLIPS and MAX_BYTES allow, one at least; None where no clip is on disk."""
    lanes = _lanes(study, estimates)
    shown = lanes[:MAX_LANES]
    ids = tuple(clip for clip in estimates.scores.clips if any(lane.folder.sample(clip).exists() for lane in shown))
    if not ids:
        return None
    strips = _fitting(ids, shown)
    return Reel(shown, strips, len(ids), len(lanes) - len(shown), study.trials[0].spec.config.data.fps)


def strip(frames: Pixels) -> Strip:
    """uint8 RGB (T, H, W, 3) as one picture."""
    count, height, width, _ = frames.shape
    columns = math.ceil(math.sqrt(count))
    right, below = -width % BLOCK, -height % BLOCK
    padded = np.pad(frames, ((0, 0), (0, below), (0, right), (0, 0)), mode="edge")
    cell_height, cell_width = padded.shape[1:3]
    sheet = np.zeros((math.ceil(count / columns) * cell_height, columns * cell_width, 3), dtype=np.uint8)
    for index, frame in enumerate(padded):
        top, left = index // columns * cell_height, index % columns * cell_width
        sheet[top : top + cell_height, left : left + cell_width] = frame
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "WEBP", quality=QUALITY, method=4)
    return Strip(stream.getvalue(), count, width, height, columns, cell_width, cell_height)


def _fitting(ids: tuple[str, ...], lanes: tuple[Lane, ...]) -> dict[str, tuple[Strip | None, ...]]:
    made: dict[str, tuple[Strip | None, ...]] = {}
    count = min(MAX_CLIPS, len(ids))
    while True:
        shown = spread(ids, count) if count > 1 else ids[:1]
        for clip in shown:
            if clip not in made:
                made[clip] = tuple(_strip_of(lane, clip) for lane in lanes)
        size = sum(len(each.webp) for clip in shown for each in made[clip] if each)
        if size <= MAX_BYTES or count == 1:
            return {clip: made[clip] for clip in shown}
        count = max(1, min(count - 1, count * MAX_BYTES // size))


def _strip_of(lane: Lane, clip: str) -> Strip | None:
    frames = read_clip(lane.folder.sample(clip))
    return None if frames is None else strip(frames)


def _lanes(study: Study, estimates: Estimates) -> tuple[Lane, ...]:
    trials = {trial.spec.trial_id: trial for trial in study.trials}
    lanes = [Lane("truth", TRUTH, "the real clip", study.reference_folder, study.reference.scores)]
    for row in estimates.rows:
        if row.trial_ids:
            trial = trials[row.trial_ids[0]]
            detail = (
                f"trial {row.trial_ids[0]}" if row.is_base else f"seed {trial.result.seed}, trial {row.trial_ids[0]}"
            )
            kind = BASE if row.is_base and all(lane.kind != BASE for lane in lanes) else CHOICE
            lanes.append(Lane(row.full_name, kind, detail, study.trial_folder(row.trial_ids[0]), trial.scores))
    return tuple(lanes)
