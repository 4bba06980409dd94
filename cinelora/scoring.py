"""Generate a trial's clips, score them against the truth, and write what was found.

In: a model with its adapter in place, or the true clips themselves. Out: per-clip features and scores in a
SampleFolder. Every worker scores the clips it generated; the parts are merged in the order of the windows.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cinelora import scores
from cinelora.base import Base
from cinelora.encode import Encodings
from cinelora.generate import batches, generate
from cinelora.job import Job
from cinelora.layout import SampleFolder
from cinelora.nets import NETS
from cinelora.nets.clip import text_features
from cinelora.protocol import OF_REAL_CLIPS, family
from cinelora.records import whole_file
from cinelora.scores import FrameFeatures
from cinelora.train import Report
from cinelora.video import write_clips
from cinelora.weights import CLIP_NETS, WEIGHTS
from cinelora.windows import Window, WindowPlan


@dataclass
class Scored:
    """Per-clip outcomes of one worker, then of the gang."""

    clip_ids: list[str] = field(default_factory=list)
    features: dict[str, list[np.ndarray]] = field(default_factory=dict)  # net -> rows (D,)
    rows: list[Any] = field(default_factory=list)

    def merge(self, parts: list[Scored], order: list[str]) -> Scored:
        """All parts in one, clips in `order`."""
        place = {clip: index for index, clip in enumerate(order)}
        merged = Scored()
        ids = [clip for part in parts for clip in part.clip_ids]
        sequence = sorted(range(len(ids)), key=lambda i: place[ids[i]])
        merged.clip_ids = [ids[i] for i in sequence]
        for net in parts[0].features:
            rows = [row for part in parts for row in part.features[net]]
            merged.features[net] = [rows[i] for i in sequence]
        merged.rows = sorted((row for part in parts for row in part.rows), key=lambda row: place[row.clip_id])
        return merged


def score_batch(base: Base, windows: list[Window], made: np.ndarray, truth: np.ndarray, first: bool) -> Scored:
    """Features and clip scores of frames (N, F, H, W, 3) against the truth; `first`: frame 0 counts in features."""
    start, ids = 0 if first else 1, [window.window_id for window in windows]
    found: dict[str, list[np.ndarray]] = {}
    of_frames: dict[str, FrameFeatures] = {}
    distances: dict[str, np.ndarray] = {}
    for name, net in base.nets.items():
        facts, extract = WEIGHTS[name], NETS[name].extract
        if facts.kind == "video":
            found[name] = list(extract(net, made[:, start:][:, : facts.most_frames]))
        elif facts.kind == "frame":
            per_frame = extract(net, made)
            text = text_features(net, [window.caption for window in windows]) if name in CLIP_NETS else None
            of_frames[name] = FrameFeatures(per_frame, extract(net, truth[:, :1])[:, 0], text)
            found[name] = list(per_frame[:, start:].mean(axis=1))
        else:
            distances[name] = extract(net, made, truth)
    return Scored(ids, found, scores.clip_scores(made, truth, ids, first, of_frames, distances))


def feature_nets(base: Base) -> list[str]:
    """The nets whose features are kept: all but those that compare two clips."""
    return [name for name in base.nets if WEIGHTS[name].kind != "pair"]


def write_scored(folder: SampleFolder, scored: Scored) -> None:
    for net, rows in scored.features.items():
        scores.write_features(folder.features(net), scored.clip_ids, np.stack(rows))
    scores.write_clip_scores(folder.clip_scores, scored.rows)


def write_reference(job: Job, base: Base) -> None:
    """The true held-out clips, their features and motion: what every trial is compared with."""
    config, folder = job.spec.config, job.reference
    total = Scored()
    windows = list(job.windows().heldout)
    parts = []
    for chunk in batches(windows, config.sample.batch_size):
        truth = np.stack([base.truth(config.data, window) for window in chunk])
        write_clips([folder.sample(window.window_id) for window in chunk], truth, config.data.fps)
        parts.append(score_batch(base, chunk, truth, truth, config.score.keep_first_frame))
    merged = total.merge(parts, [window.window_id for window in windows])
    merged.rows = [row for row in merged.rows if family(row.metric) in OF_REAL_CLIPS]
    with whole_file(folder.clips) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["clip_id", "shot", "caption"])
        writer.writerows((window.window_id, window.shot_id, window.caption) for window in windows)
    write_scored(folder, merged)


def generate_and_score(
    job: Job, base: Base, model: Any, plan: WindowPlan, encodings: Encodings, report: Report
) -> tuple[Scored, float, float]:
    """Scores of this worker's clips, and the seconds of generating and of scoring."""
    config, folder = job.spec.config, job.study.trial(job.spec.trial_id)
    windows, mine = list(plan.heldout), Scored(features={name: [] for name in feature_nets(base)})
    clips = generate(
        model, base.vae, base.folder, config, encodings, windows,
        lambda done, total: report("generate", done, total, None),
    )  # fmt: skip
    started, scoring = time.perf_counter(), 0.0
    pending: list[tuple[Window, np.ndarray]] = []

    def flush() -> None:
        chunk = [window for window, _ in pending]
        made = np.stack([frames for _, frames in pending])
        truth = np.stack([base.truth(config.data, window) for window in chunk])
        part = score_batch(base, chunk, made, truth, config.score.keep_first_frame)
        mine.clip_ids += part.clip_ids
        mine.rows += part.rows
        for name, rows in part.features.items():
            mine.features[name] += rows
        write_clips([folder.sample(window.window_id) for window in chunk], made, config.data.fps)
        pending.clear()

    for item in clips:
        pending.append(item)
        if len(pending) == config.sample.batch_size:
            before = time.perf_counter()
            flush()
            scoring += time.perf_counter() - before
    if pending:
        before = time.perf_counter()
        flush()
        scoring += time.perf_counter() - before
    return mine, time.perf_counter() - started - scoring, scoring
