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

from cinelora import distributed
from cinelora.core.config import TrialConfig
from cinelora.core.files import whole_file
from cinelora.core.paths import SampleFolder
from cinelora.data.video import write_clips
from cinelora.data.windows import Window, WindowPlan
from cinelora.features.extract import feature_nets, net_features, score_batch
from cinelora.features.motion import Footage
from cinelora.features.results import (
    ClipScore,
    Scored,
    load_part,
    read_features,
    save_part,
    write_clip_scores,
    write_features,
)
from cinelora.metrics.catalogue import OF_REAL_CLIPS, family, flow_of
from cinelora.metrics.distances import standardise
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.few_clips import memorisation
from cinelora.training.checkpoint import Stopped, StopSign
from cinelora.training.loop import Report
from cinelora.trial.job import Job
from cinelora.trial.resident import ResidentModel
from cinelora.wan.encoding import Encodings, reference_frames
from cinelora.wan.sampler import batches, generate

# ~ Has a model copied its training clips? Made clips against those and against the other held-out clips, net by net.
# ~
# ~ In: features of some clips, and on disk those of the true held-out clips and of the training clips. Out: clip
# ~ scores.
# ~ How it is measured: `cinelora/metrics/few_clips.py`; which features are standardised:
# ~ `cinelora/metrics/feature_nets.py`.


def memorised(reference: SampleFolder, made: Scored) -> list[ClipScore]:
    """Two scores a clip by each video net: its ratio, and whether it is nearer to a training clip (1, 0.5, 0).

    A clip's own held-out clip, left out for it, is the one of its id. None for fewer than 2 held-out or training clips,
    and none where the features of the training clips are missing, as in a study that an older version began.
    """
    rows: list[ClipScore] = []
    for net in (name for name in made.features if name in WEIGHTS and WEIGHTS[name].kind == "video"):
        if not reference.train.features(net).exists():
            continue
        (_, train), (ids, heldout) = (
            read_features(reference.train.features(net)),
            read_features(reference.features(net)),
        )
        if min(len(train), len(heldout)) < 2:
            continue
        sets = (train, np.stack(made.features[net]), heldout)
        seen, new, unseen = standardise(*sets) if WEIGHTS[net].standardised else sets
        found = memorisation(new, seen, unseen, [ids.index(clip) for clip in made.clip_ids])
        for clip, ratio, nearer in zip(made.clip_ids, found.ratios, found.nearer, strict=True):
            rows.append(ClipScore(clip, f"memorisation_ratio[{net}]", float(ratio)))
            rows.append(ClipScore(clip, f"memorisation_share[{net}]", float(nearer)))
    return rows


def _footage(
    base: ResidentModel, config: TrialConfig, windows: list[Window], made: np.ndarray, truth: np.ndarray
) -> Footage | None:
    """None where no flow is asked for."""
    if not (flow := flow_of(config.score)):
        return None
    return Footage(made, config.data.fps, truth, flow, base.reference_pairs(config.data, windows, flow))


def write_scored(folder: SampleFolder, scored: Scored) -> None:
    _write_features(folder, scored)
    write_clip_scores(folder.clip_scores, scored.rows)


def _write_features(folder: SampleFolder, scored: Scored) -> None:
    for net, rows in scored.features.items():
        write_features(folder.features(net), scored.clip_ids, np.stack(rows))


def write_reference(job: Job, base: ResidentModel) -> None:
    """The true held-out clips, their features and motion, and those of the training clips: what trials compare with."""
    config, folder = job.spec.config, job.reference
    total = Scored()
    windows = list(job.windows().heldout)
    parts = []
    for chunk in batches(windows, config.sample.batch_size):
        truth = np.stack([base.reference_frames(config.data, window) for window in chunk])
        write_clips([folder.sample(window.window_id) for window in chunk], truth, config.data.fps)
        footage = _footage(base, config, chunk, truth, truth)
        parts.append(score_batch(base.nets, chunk, truth, truth, config.score.keep_first_frame, footage))
    merged = total.merge(parts, [window.window_id for window in windows])
    merged.rows = [row for row in merged.rows if family(row.metric) in OF_REAL_CLIPS]
    with whole_file(folder.clips) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["clip_id", "shot", "caption"])
        writer.writerows((window.window_id, window.shot_id, window.caption) for window in windows)
    _write_train_features(job, base)
    _write_features(folder, merged)
    write_clip_scores(folder.clip_scores, merged.rows + memorised(folder, merged))


def _write_train_features(job: Job, base: ResidentModel) -> None:
    """Features of all training windows, in their order."""
    config, windows = job.spec.config, list(job.windows().train)
    found: dict[str, list[np.ndarray]] = {}
    for chunk in batches(windows, config.sample.batch_size):
        truth = np.stack([reference_frames(Path(config.data.path), config.data, window) for window in chunk])
        for name, features in net_features(base.nets, truth, config.score.keep_first_frame)[1].items():
            found.setdefault(name, []).extend(features)
    for name, rows in found.items():
        path = job.reference.train.features(name)
        write_features(path, [window.window_id for window in windows], np.stack(rows))


def generate_and_score(
    job: Job,
    base: ResidentModel,
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
    nets = set(feature_nets(base.nets))
    parts = {index: load_part(folder.part(index), adapter) for index in range(len(work))}
    kept = {index: part for index, part in parts.items() if part and set(part.features) == nets}
    kept = distributed.gather_objects(kept)[0]  # one worker's view for all
    mine = Scored(features={name: [] for name in feature_nets(base.nets)})
    for index in sorted(kept):
        if distributed.rank() == 0:
            mine.add(kept[index])
    todo = [index for index in range(len(work)) if index not in kept]

    in_step = config.zero.stage == 3 or config.model.sequence_workers > 1  # no worker may leave the others in a pass

    def told(done: int, total: int) -> None:
        report("generate", done, total, None)
        if in_step and distributed.any_worker(stop()):
            raise Stopped(f"stopped after batch {done} of {total}")

    for index, chunk, made in generate(model, base.vae, base.folder, config, encodings, windows, todo, told):
        before = time.perf_counter()
        truth = np.stack([base.reference_frames(config.data, window) for window in chunk])
        footage = _footage(base, config, chunk, made, truth)
        part = score_batch(base.nets, chunk, made, truth, config.score.keep_first_frame, footage)
        write_clips([folder.sample(window.window_id) for window in chunk], made, config.data.fps)
        save_part(folder.part(index), adapter, part)
        mine.add(part)
        scoring += time.perf_counter() - before
        if not in_step and stop():
            raise Stopped(f"stopped after {len(mine.clip_ids)} clips")
    return mine, time.perf_counter() - started - scoring, scoring
