"""Clips of every row -> film strips small enough to put inside a page: all frames of a clip as one WebP picture.

In: `Estimates`; reads `samples/<clip_id>.mp4`. Out: the strips of each lane (reference, base, every seed of each row)
for clips spaced evenly over the held-out set, and how far the ranks are apart on each; `clips.html` lays them out,
`script.js` plays, slices, zooms and sorts them. Strips instead of mp4: 9 kB against 12 kB of H.264 at 64 pixels (`film`
study, quality 90, 39 to 41 dB), every browser has the codec, and all lanes show the same frame at the same moment.
T frames of H x W pixels.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.study.files import ClipScores
from analysis.study.frames import read_clip, spread, strip
from analysis.study.rows import Estimates
from cinelora.core.config import Method, seed_text
from cinelora.core.paths import SampleFolder
from cinelora.metrics.catalogue import family
from cinelora.metrics.primary import MOTION, PICTURE, STEADINESS, plain_name

REFERENCE, BASE, CHOICE = "reference", "base", "choice"  # CHOICE: a row that the reader picks with the slider
MAX_CLIPS = 24  # more than anybody looks through
MAX_LANES = 64
MAX_BYTES = 7_500_000  # of pictures; base64 adds a third, and the page should stay below 15 MB
SHOWN = {PICTURE: 2, STEADINESS: 3, MOTION: 2}  # score -> decimals


@dataclass(frozen=True)
class Lane:
    """One trial, or the reference. `detail` says which trial is shown; `scores` are its scores of each clip."""

    name: str
    kind: str
    detail: str
    folder: SampleFolder
    scores: ClipScores
    seed: str = ""


def reel(estimates: Estimates) -> dict[str, Any] | None:
    """What `clips.html` shows: as many clips as MAX_CLIPS and MAX_BYTES allow, at least one; None without any.

    `strips`: clip -> one strip per lane, None where its file is not on disk. `total`: clips that could be shown.
    `described`: what the script reads: frame rate, lanes, the score that sorts the clips, and of each clip its
    caption, its scores and its `apart`.
    """
    study, lanes = estimates.study, _lanes(estimates)
    shown = lanes[:MAX_LANES]
    ids = tuple(clip for clip in estimates.scores.clips if any(lane.folder.sample(clip).exists() for lane in shown))
    if not ids:
        return None
    strips, captions = _fitting(ids, shown), study.reference.captions
    distances = apart(estimates)
    described = {
        "fps": study.trials[0].spec.config.data.fps,
        "score": plain_name(estimates.primary.answered[0]) if distances else "",
        "lanes": [{"name": lane.name, "kind": lane.kind, "detail": lane.detail, "seed": lane.seed} for lane in shown],
        "clips": [
            {
                "caption": captions[clip],
                "scores": [clip_numbers(lane, clip) for lane in shown],
                "apart": distances.get(clip),
            }
            for clip in strips
        ],
    }
    counts = {"total": len(ids), "left_out": len(lanes) - len(shown)}
    elsewhere = any(trial.spec.config.method is Method.clips for trial in study.trials)
    return {"strips": strips, **counts, "elsewhere": elsewhere, "described": described}


def apart(estimates: Estimates) -> dict[str, float]:
    """Clip -> the largest minus the smallest mean over seeds of its ranks, in the study's first primary score.

    Of several adapter series the one whose ranks are farthest apart counts. Without clips that lack the score.
    """
    score, clips = estimates.primary.answered[0], estimates.scores.clips
    found = [
        np.ptp([values.mean(axis=0) for values in by_rank.values()], axis=0)
        for by_rank in (estimates.values_by_rank(series, score) for series in estimates.series)
        if len(by_rank) > 1
    ]
    farthest = np.max(found, axis=0).tolist() if found else []
    return {clip: value for clip, value in zip(clips, farthest, strict=False) if math.isfinite(value)}


def clip_numbers(lane: Lane, clip: str) -> str:
    """The scores that this lane has of this clip, one per line."""
    known = [
        (family(score), digits, lane.scores[score].get(clip, math.nan))
        for score, digits in SHOWN.items()
        if score in lane.scores
    ]
    return "\n".join(f"{name} {value:.{digits}f}" for name, digits, value in known if math.isfinite(value))


def _fitting(ids: tuple[str, ...], lanes: tuple[Lane, ...]) -> dict[str, tuple[dict[str, Any] | None, ...]]:
    """Clip -> its strips, of as many evenly spaced clips as fit."""

    def strips_of(clip: str) -> tuple[dict[str, Any] | None, ...]:
        frames = [read_clip(lane.folder.sample(clip)) for lane in lanes]
        return tuple(None if each is None else strip(each) for each in frames)

    known: dict[str, tuple[dict[str, Any] | None, ...]] = {}
    count = min(MAX_CLIPS, len(ids))
    while True:
        shown = spread(ids, count) if count > 1 else ids[:1]
        new = [clip for clip in shown if clip not in known]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # the decoder and the encoder let other threads run
            known |= zip(new, pool.map(strips_of, new), strict=True)
        size = sum(len(each["webp"]) * 3 // 4 for clip in shown for each in known[clip] if each)
        if size <= MAX_BYTES or count == 1:
            return {clip: known[clip] for clip in shown}
        count = max(1, min(count - 1, count * MAX_BYTES // size))


def _lanes(estimates: Estimates) -> tuple[Lane, ...]:
    """The real clips, then every finished trial of every row, by seed."""
    study = estimates.study
    lanes = [Lane("reference", REFERENCE, "the real clip", study.reference_folder, study.reference.scores)]
    for row in estimates.rows:
        for trial in estimates.trials(row):
            name = trial.result.trial_id
            seed = "" if row.is_base or row.is_frozen else f"seed {seed_text(trial.result.seed)}"
            detail = ", ".join(filter(None, (seed, f"trial {name}")))
            kind = BASE if trial is estimates.base else CHOICE
            lanes.append(Lane(row.full_name, kind, detail, study.trial_folder(name), trial.scores, seed))
    return tuple(lanes)
