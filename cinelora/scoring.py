"""Generate a trial's clips, score them against the truth, and write what was found.

In: a model with its adapter in place, or the true clips themselves. Out: per-clip features and scores in a
SampleFolder. Every worker scores the clips it generated; the parts are merged in the order of the windows.
"""

from __future__ import annotations

import csv
import time
from typing import Any

import numpy as np

from cinelora import dist, scores
from cinelora.base import Base
from cinelora.encode import Encodings
from cinelora.generate import batches, generate
from cinelora.job import Job
from cinelora.layout import SampleFolder
from cinelora.nets import NETS
from cinelora.nets.clip import text_features
from cinelora.parts import load_part, save_part
from cinelora.protocol import OF_REAL_CLIPS, family
from cinelora.records import whole_file
from cinelora.scored import Scored
from cinelora.scores import FrameFeatures
from cinelora.stopping import Stopped, StopSign
from cinelora.train import Report
from cinelora.video import write_clips
from cinelora.weights import CLIP_NETS, WEIGHTS
from cinelora.windows import Window, WindowPlan


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
    job: Job,
    base: Base,
    model: Any,
    plan: WindowPlan,
    encodings: Encodings,
    adapter: str,
    report: Report,
    stop: StopSign,
) -> tuple[Scored, float, float]:
    """Scores of this worker's clips, and the seconds of generating and of scoring.

    Every batch is on disk as soon as it is scored; those that an earlier run of the same `adapter` (its hash) left
    are not generated again. Raises Stopped between batches when `stop` says so.
    """
    config, folder = job.spec.config, job.study.trial(job.spec.trial_id)
    windows, started, scoring = list(plan.heldout), time.perf_counter(), 0.0
    work = batches(windows, config.sample.batch_size)
    kept = {index: part for index in range(len(work)) if (part := load_part(folder.part(index), adapter))}
    kept = dist.gather_objects(kept)[0]  # one worker's view for all
    mine = Scored(features={name: [] for name in feature_nets(base)})
    for index in sorted(kept):
        if dist.rank() == 0:
            mine.add(kept[index])
    todo = [index for index in range(len(work)) if index not in kept]

    def told(done: int, total: int) -> None:
        report("generate", done, total, None)

    for index, chunk, made in generate(model, base.vae, base.folder, config, encodings, windows, todo, told):
        before = time.perf_counter()
        truth = np.stack([base.truth(config.data, window) for window in chunk])
        part = score_batch(base, chunk, made, truth, config.score.keep_first_frame)
        write_clips([folder.sample(window.window_id) for window in chunk], made, config.data.fps)
        save_part(folder.part(index), adapter, part)
        mine.add(part)
        scoring += time.perf_counter() - before
        if stop():
            raise Stopped(f"stopped after {len(mine.clip_ids)} clips")
    return mine, time.perf_counter() - started - scoring, scoring
