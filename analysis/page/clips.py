"""Clips of every row -> film strips light enough to put inside a page: all frames of a clip as one WebP picture.

In: `Study`, `Estimates`; reads `samples/<clip_id>.mp4`. Out: `Reel`: lanes (truth, base, one seed of each row) by
clips, spread over the held-out set. Strips and not mp4: at 64 pixels 9 kB against 12 kB of H.264 (film study,
quality 90, 39 to 41 dB), no codec to miss in a browser, and all lanes show the same frame at the same moment.
T frames of H x W pixels.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

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
    lanes = [Lane("truth", TRUTH, "the real clip", study.reference_folder, study.reference.scores)]
    for row in estimates.rows:
        if row.trial_ids:
            trial = study.by_id[row.trial_ids[0]]
            detail = (
                f"trial {row.trial_ids[0]}" if row.is_base else f"seed {trial.result.seed}, trial {row.trial_ids[0]}"
            )
            kind = BASE if row.is_base and all(lane.kind != BASE for lane in lanes) else CHOICE
            lanes.append(Lane(row.full_name, kind, detail, study.trial_folder(row.trial_ids[0]), trial.scores))
    return tuple(lanes)


# ~ The part of the page where clips are compared: all rows play the same frame, a slider picks the row shown large.
# ~
# ~ In: `Reel`, `Study`. Out: HTML with the pictures inside, one JSON block a clip so that a browser decodes only
# ~ what is
# ~ looked at; `page_script.js` draws them. Every text from a study is escaped. Pure: no files.

SHOWN = {"psnr": ("psnr", 2), "consistency[mnv2]": ("consistency", 3), "motion[absdiff]": ("motion", 2)}
SPEEDS = (("1", "full speed"), ("0.5", "half speed"), ("0.25", "quarter speed"))
SCRIPTLESS = "The clips need JavaScript; contact_sheet.png, beside this page, shows some as stills."


def reel_html(reel: Reel, study: Study) -> str:
    """The whole section; hidden until its script has run."""
    clips = tuple(reel.strips)
    parts = [
        "<h2>The clips, side by side</h2>",
        f"<p>{escape(_told(reel))}</p>",
        f"<noscript><p>{SCRIPTLESS}</p></noscript>",
        '<section id="reel" class="reel" aria-label="Clips, side by side" hidden>',
        _clip_controls(clips),
        _stage(reel.lanes),
        _play_controls(reel.lanes),
        '<p class="soft keys">Keys: <kbd>space</kbd> play or pause, <kbd>,</kbd> <kbd>.</kbd> one frame back or on, '
        "<kbd>p</kbd> <kbd>n</kbd> previous or next clip, arrows move a slider.</p>",
        _lane_rows(reel.lanes),
        "</section>",
        _json("reel-index", _index(reel, study)),
        *(
            _json(f"reel-clip-{number}", [_strip(each) for each in reel.strips[clip]])
            for number, clip in enumerate(clips)
        ),
    ]
    return "\n".join(parts)


def clip_numbers(lane: Lane, clip: str) -> str:
    """The scores that this lane has of this clip, one a line."""
    here = ((lane.scores[score], *shown) for score, shown in SHOWN.items() if score in lane.scores)
    known = [(label, digits, values.get(clip)) for values, label, digits in here]
    return "\n".join(
        f"{label} {value:.{digits}f}" for label, digits, value in known if value is not None and math.isfinite(value)
    )


def _told(reel: Reel) -> str:
    chosen = f"All {reel.total} held-out clips are here."
    if len(reel.strips) < reel.total:
        chosen = (
            f"{len(reel.strips)} of {reel.total} held-out clips are here, spread evenly over the set by name; "
            "nobody picked them by eye, the page must stay small."
        )
    rows = f" {reel.rows_left_out} more rows are left out." if reel.rows_left_out else ""
    return (
        f"{chosen} Each row of the table shows its first finished seed; every model was given the same first frame, "
        f"caption and starting noise.{rows} The numbers are of the clip shown."
    )


def _clip_controls(clips: Iterable[str]) -> str:
    options = "".join(f'<option value="{number}">{escape(clip)}</option>' for number, clip in enumerate(clips))
    return (
        f'<div class="controls"><label>Clip <select id="reel-clip">{options}</select></label>'
        '<button id="reel-before" type="button">Previous</button><button id="reel-after" type="button">Next</button>'
        '<span id="reel-caption" class="soft" aria-live="polite"></span></div>'
    )


def _play_controls(lanes: tuple[Lane, ...]) -> str:
    speeds = "".join(f'<option value="{value}">{label}</option>' for value, label in SPEEDS)
    rank = ""
    names = [lane.name for lane in lanes if lane.kind == CHOICE]
    if names:
        rank = (
            f'<label class="wide">Rank <input id="reel-rank" type="range" min="0" max="{len(names) - 1}" step="1" '
            f'value="0"><output id="reel-name" for="reel-rank">{escape(names[0])}</output></label>'
        )
    return (
        f'<div class="controls">{rank}</div><div class="controls"><button id="reel-play" type="button">Play</button>'
        f'<label><span class="unseen">Speed</span> <select id="reel-speed">{speeds}</select></label>'
        '<label class="wide">Frame <input id="reel-scrub" type="range" min="0" max="0" step="1" value="0">'
        '<output id="reel-frame" for="reel-scrub"></output></label></div>'
    )


def _stage(lanes: tuple[Lane, ...]) -> str:
    """Truth and base large and fixed, beside them the row that the slider picks."""
    panes = [
        f'<figure class="pane" data-lane="{number}">{_inside(lane)}</figure>'
        for number, lane in enumerate(lanes)
        if lane.kind in (TRUTH, BASE)
    ]
    first = next((lane for lane in lanes if lane.kind == CHOICE), None)
    if first is not None:
        panes.append(f'<figure id="reel-chosen" class="pane chosen">{_inside(first)}</figure>')
    return f'<div class="stage">{"".join(panes)}</div>'


def _inside(lane: Lane) -> str:
    return (
        f'<canvas aria-hidden="true"></canvas><figcaption><b>{escape(lane.name)}</b>'
        f'<span class="detail">{escape(lane.detail)}</span><span class="numbers"></span></figcaption>'
    )


def _lane_rows(lanes: tuple[Lane, ...]) -> str:
    """Every row small; pressing one shows it large."""
    tiles = [
        f'<button class="lane" type="button" data-lane="{number}" aria-pressed="false"><canvas aria-hidden="true">'
        f'</canvas><b>{escape(lane.name)}</b><span class="numbers"></span></button>'
        for number, lane in enumerate(lanes)
        if lane.kind == CHOICE
    ]
    return f'<div class="lanes">{"".join(tiles)}</div>' if len(tiles) > 1 else ""


def _index(reel: Reel, study: Study) -> dict[str, Any]:
    captions = study.reference.captions
    return {
        "fps": reel.fps,
        "lanes": [{"name": lane.name, "kind": lane.kind, "detail": lane.detail} for lane in reel.lanes],
        "clips": [
            {"caption": captions[clip], "scores": [clip_numbers(lane, clip) for lane in reel.lanes]}
            for clip in reel.strips
        ],
    }


def _strip(found: Strip | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "frames": found.frames,
        "width": found.width,
        "height": found.height,
        "columns": found.columns,
        "cell": [found.cell_width, found.cell_height],
        "webp": base64.b64encode(found.webp).decode(),
    }


def _json(name: str, value: Any) -> str:
    """A data block; "<" is written as an escape, so no text inside can end the block."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'
