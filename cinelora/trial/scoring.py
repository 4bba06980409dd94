"""Generate a trial's clips, score them against the truth, and write what was found.

In: a model with its adapter in place, or the true clips themselves. Out: per-clip features and scores in a
SampleFolder. Every worker scores the clips it generated; the parts are merged in the order of the windows.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np

from cinelora import distributed as dist
from cinelora.core.config import TrialConfig
from cinelora.core.paths import SampleFolder
from cinelora.core.records import whole_file
from cinelora.data.video import write_clips
from cinelora.data.windows import Window, WindowPlan
from cinelora.features import clip_scores as scores
from cinelora.features.clip_scores import FrameFeatures
from cinelora.features.motion import PIXEL_SCORES, Footage, tdelta, temporal_flickering
from cinelora.features.nets import NETS
from cinelora.features.nets.clip import text_features
from cinelora.features.parts import load_part, save_part
from cinelora.features.results import Scored
from cinelora.metrics.catalogue import COLOURS, OF_FLOW, OF_REAL_CLIPS, family, flow_of
from cinelora.metrics.feature_nets import CLIP_NETS, WEIGHTS
from cinelora.metrics.few_clips import colour_histograms
from cinelora.training.loop import Report
from cinelora.training.stopping import Stopped, StopSign
from cinelora.trial.job import Job
from cinelora.trial.memorised import memorised
from cinelora.trial.resident import Base
from cinelora.wan.encoding import Encodings, true_frames
from cinelora.wan.sampler import batches, generate


def score_batch(
    base: Base, windows: list[Window], made: np.ndarray, truth: np.ndarray, first: bool, footage: Footage | None = None
) -> Scored:
    """Features and clip scores of frames (N, F, H, W, 3) against the truth; `first`: frame 0 counts in features.

    `footage` are the same frames and truth with what optical flow is asked of; without it there are no flow scores.
    """
    ids, captions = [window.window_id for window in windows], [window.caption for window in windows]
    per_frame, features = net_features(base, made, first)
    of_frames: dict[str, FrameFeatures] = {}
    others = {"temporal_flickering": temporal_flickering(Footage(made, fps=1.0))}  # no rate is asked for
    for name, found in per_frame.items():
        net = base.nets[name]
        text = text_features(net, captions) if name in CLIP_NETS else None
        of_frames[name] = FrameFeatures(found, NETS[name].extract(net, truth[:, :1])[:, 0], text)
        others[f"tdelta[{name}]"] = tdelta(found)
    if footage is not None:
        others |= {f"{name}[{footage.flow}]": PIXEL_SCORES[name].compute(footage) for name in OF_FLOW}
    pairs = [name for name in base.nets if WEIGHTS[name].kind == "pair"]
    distances = {name: NETS[name].extract(base.nets[name], made, truth) for name in pairs}
    rows = scores.clip_scores(made, truth, ids, first, of_frames, distances, others)
    return Scored(ids, {name: list(found) for name, found in features.items()}, rows)


def net_features(
    base: Base, frames: np.ndarray, first: bool
) -> tuple[dict[str, scores.Floats], dict[str, scores.Floats]]:
    """Of frame nets all frames (N, F, D); of `feature_nets` the clips (N, D), for frame nets the mean over frames."""
    start = 0 if first else 1
    per_frame, of_clips = {}, {}
    for name, net in base.nets.items():
        facts, extract = WEIGHTS[name], NETS[name].extract
        if facts.kind == "video":
            of_clips[name] = extract(net, frames[:, start:][:, : facts.most_frames])
        elif facts.kind == "frame":
            per_frame[name] = extract(net, frames)
            of_clips[name] = per_frame[name][:, start:].mean(axis=1)
    colours = colour_histograms(frames[:, start:]).reshape(len(frames), -1)
    return per_frame, of_clips | {COLOURS: colours.astype(np.float32)}


def feature_nets(base: Base) -> list[str]:
    """The feature sets that are kept: of all nets but those that compare two clips, and the colours."""
    return [*(name for name in base.nets if WEIGHTS[name].kind != "pair"), COLOURS]


def _footage(
    base: Base, config: TrialConfig, windows: list[Window], made: np.ndarray, truth: np.ndarray
) -> Footage | None:
    """None where no flow is asked for."""
    if not (flow := flow_of(config.score)):
        return None
    return Footage(made, config.data.fps, truth, flow, base.true_pairs(config.data, windows, flow))


def write_scored(folder: SampleFolder, scored: Scored) -> None:
    _write_features(folder, scored)
    scores.write_clip_scores(folder.clip_scores, scored.rows)


def _write_features(folder: SampleFolder, scored: Scored) -> None:
    for net, rows in scored.features.items():
        scores.write_features(folder.features(net), scored.clip_ids, np.stack(rows))


def write_reference(job: Job, base: Base) -> None:
    """The true held-out clips, their features and motion, and those of the training clips: what trials compare with."""
    config, folder = job.spec.config, job.reference
    total = Scored()
    windows = list(job.windows().heldout)
    parts = []
    for chunk in batches(windows, config.sample.batch_size):
        truth = np.stack([base.truth(config.data, window) for window in chunk])
        write_clips([folder.sample(window.window_id) for window in chunk], truth, config.data.fps)
        footage = _footage(base, config, chunk, truth, truth)
        parts.append(score_batch(base, chunk, truth, truth, config.score.keep_first_frame, footage))
    merged = total.merge(parts, [window.window_id for window in windows])
    merged.rows = [row for row in merged.rows if family(row.metric) in OF_REAL_CLIPS]
    with whole_file(folder.clips) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["clip_id", "shot", "caption"])
        writer.writerows((window.window_id, window.shot_id, window.caption) for window in windows)
    _write_train_features(job, base)
    _write_features(folder, merged)
    scores.write_clip_scores(folder.clip_scores, merged.rows + memorised(folder, merged))


def _write_train_features(job: Job, base: Base) -> None:
    """Features of all training windows, in their order."""
    config, windows = job.spec.config, list(job.windows().train)
    found: dict[str, list[np.ndarray]] = {}
    for chunk in batches(windows, config.sample.batch_size):
        truth = np.stack([true_frames(Path(config.data.path), config.data, window) for window in chunk])
        for name, features in net_features(base, truth, config.score.keep_first_frame)[1].items():
            found.setdefault(name, []).extend(features)
    for name, rows in found.items():
        path = job.reference.train.features(name)
        scores.write_features(path, [window.window_id for window in windows], np.stack(rows))


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
    nets = set(feature_nets(base))
    parts = {index: load_part(folder.part(index), adapter) for index in range(len(work))}
    kept = {index: part for index, part in parts.items() if part and set(part.features) == nets}
    kept = dist.gather_objects(kept)[0]  # one worker's view for all
    mine = Scored(features={name: [] for name in feature_nets(base)})
    for index in sorted(kept):
        if dist.rank() == 0:
            mine.add(kept[index])
    todo = [index for index in range(len(work)) if index not in kept]

    in_step = config.zero.stage == 3 or config.model.sequence_workers > 1  # no worker may leave the others in a pass

    def told(done: int, total: int) -> None:
        report("generate", done, total, None)
        if in_step and dist.any_worker(stop()):
            raise Stopped(f"stopped after batch {done} of {total}")

    for index, chunk, made in generate(model, base.vae, base.folder, config, encodings, windows, todo, told):
        before = time.perf_counter()
        truth = np.stack([base.truth(config.data, window) for window in chunk])
        footage = _footage(base, config, chunk, made, truth)
        part = score_batch(base, chunk, made, truth, config.score.keep_first_frame, footage)
        write_clips([folder.sample(window.window_id) for window in chunk], made, config.data.fps)
        save_part(folder.part(index), adapter, part)
        mine.add(part)
        scoring += time.perf_counter() - before
        if not in_step and stop():
            raise Stopped(f"stopped after {len(mine.clip_ids)} clips")
    return mine, time.perf_counter() - started - scoring, scoring
