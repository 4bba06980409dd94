"""Generate a trial's clips, score them against the reference clips, and write what a study compares its trials with.

In: a model with its adapter in place, or the real clips. Out: `Scored`, features and values per clip, and the reference
folder. Every worker scores the clips it generated; `cinelora/features/results.py` merges and writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cinelora import distributed
from cinelora.adopt import clips
from cinelora.core.cli import UserError
from cinelora.core.config import Method, TrialConfig
from cinelora.core.paths import SampleFolder
from cinelora.data.video import write_clips
from cinelora.data.windows import Window, WindowPlan
from cinelora.features.extract import Batch, clip_metrics, feature_sets, score_batch
from cinelora.features.nets.frames import Frames
from cinelora.features.results import (
    Scored,
    load_part,
    merged,
    read_features,
    save_part,
    write_clip_scores,
    write_features,
)
from cinelora.metrics.catalogue import COLOURS, FLOWS
from cinelora.metrics.distances import Array
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.few_clips import memorisation_ratios, nearer_to_training
from cinelora.metrics.set_metrics import scaled
from cinelora.training.batch import prefetch
from cinelora.training.checkpoint import Stopped, StopSign
from cinelora.training.clock import clock
from cinelora.training.loop import Report
from cinelora.trial.job import Job
from cinelora.trial.resident import ResidentModel
from cinelora.wan.encoding import Encodings, reference_frames
from cinelora.wan.sampler import batches, generate


def write_reference(job: Job, resident: ResidentModel) -> None:
    """Write the held-out clips, their features and clip scores, and the features of the training clips.

    Trials are compared with these. Clip scores: those that need no other clip, and `memorised`.
    """
    config, folder, plan = job.spec.config, job.reference, job.windows()
    known = clip_metrics(resident.nets, config.score.flow, config.data.frames)
    metrics = [each for each in known if each.kind == "clip"]

    def real(windows: Sequence[Window], place: SampleFolder, heldout: bool) -> Scored:
        def frames_of(chunk: Sequence[Window]) -> Frames:
            read = resident.reference_frames if heldout else partial(reference_frames, Path(config.data.path))
            frames = np.stack([read(config.data, window) for window in chunk])
            if heldout:
                write_clips([place.sample(clip) for clip in _ids(chunk)], frames, config.data.fps)
            return frames

        parts, chunks = [], batches(list(windows), config.sample.batch_size)
        for chunk, frames in zip(chunks, prefetch(partial(frames_of, chunk) for chunk in chunks), strict=True):
            batch = _batch(resident, config, chunk, frames)
            parts.append(score_batch(batch, _ids(chunk), metrics if heldout else (), feature_sets(resident.nets)))
        scored = merged(parts, _ids(windows))
        for net, rows in scored.features.items():
            write_features(place.features(net), scored.clip_ids, rows)
        return scored

    scored = real(plan.heldout, folder, heldout=True)
    real(plan.train, folder.train, heldout=False)
    job.list_reference()
    scored.values |= memorised(folder, scored)  # reads the features from disk
    write_clip_scores(folder.clip_scores, scored)


def memorised(reference: SampleFolder, scored: Scored) -> dict[str, Array]:
    """Has a model copied its training clips? By each video net the memorisation ratio and share of every clip, (N,).

    Definitions: `cinelora/metrics/few_clips.py`. The held-out clip of the same id does not count. Nothing for fewer
    than 2 held-out or training clips, or where the study is of an older version, without features of training clips.
    """
    found: dict[str, Array] = {}
    for net in (name for name in scored.features if name in WEIGHTS and WEIGHTS[name].kind == "video"):
        if not reference.train.features(net).exists():
            continue
        _, train = read_features(reference.train.features(net))
        ids, heldout = read_features(reference.features(net))
        if min(len(train), len(heldout)) < 2:
            continue
        seen, generated, unseen = scaled(net, train, scored.features[net], heldout)
        ratios = memorisation_ratios(generated, seen, unseen, [ids.index(clip) for clip in scored.clip_ids])
        found |= {f"memorisation_ratio[{net}]": ratios, f"memorisation_share[{net}]": nearer_to_training(ratios)}
    return found


def _batch(
    resident: ResidentModel,
    config: TrialConfig,
    windows: Sequence[Window],
    frames: Frames,
    reference: Frames | None = None,
) -> Batch:
    """Clips of these windows with what their metrics need."""
    return Batch(
        resident.nets,
        frames,
        reference,
        dropped=0 if config.score.keep_first_frame else 1,
        fps=config.data.fps,
        captions=[window.caption for window in windows],
        device=distributed.device_name(),
    )


def _ids(windows: Sequence[Window]) -> list[str]:
    return [window.window_id for window in windows]


def frames_without_model(
    resident: ResidentModel, config: TrialConfig, windows: list[Window]
) -> Callable[[Window], Frames]:
    """What gives the frames of a window: finished clips, or the first frame of the real one, repeated.

    UserError: the clips have changed since they were planned.
    """
    if config.method is Method.clips:
        found, _ = clips.paired(Path(config.clips_folder), windows)
        if clips.content(found) != config.clips_sha256:
            raise UserError(f"{config.clips_folder}: has changed since it was planned; run the same command again")
        return lambda window: clips.frames_of(found[window.window_id], config.data)
    return lambda window: np.repeat(resident.reference_frames(config.data, window)[:1], config.data.frames, axis=0)


def ready_clips(
    frames_of: Callable[[Window], Frames],
    config: TrialConfig,
    windows: list[Window],
    todo: Sequence[int],
    report: Callable[[int, int], None],
) -> Iterator[tuple[int, list[Window], Frames]]:
    """As `generate`, without a model."""
    chunks = batches(windows, config.sample.batch_size)
    share = distributed.deal(todo, config.model.sequence_workers)
    for turn, (index, counts) in enumerate(share, start=1):
        if counts:
            yield index, chunks[index], np.stack([frames_of(window) for window in chunks[index]])
        report(turn, len(share))


def generate_and_score(
    job: Job,
    resident: ResidentModel,
    model: Any,
    plan: WindowPlan,
    encodings: Encodings,
    adapter: str,
    report: Report,
    stop: StopSign,
) -> tuple[Scored, dict[str, float], float]:
    """Scores of this worker's clips, the seconds of "generate" and "score", and those of them that earlier runs took.

    Each batch is written when it is scored. Batches that an earlier run of the same `adapter` (its hash) wrote are not
    generated again. Raises Stopped between batches once `stop` returns true. With `sample.clips=false` the ids of the
    clips alone.
    """
    config = job.spec.config
    windows = list(plan.heldout)
    if not config.sample.clips:
        return Scored(_ids(windows) if distributed.rank() == 0 else []), {"generate": 0.0, "score": 0.0}, 0.0
    work = batches(windows, config.sample.batch_size)
    metrics = clip_metrics(resident.nets, config.score.flow, config.data.frames)
    names = {*feature_sets(resident.nets), *(each.name for each in metrics)}
    parts = {index: load_part(job.folder.part(index), adapter) for index in range(len(work))}
    kept = {index: part for index, part in parts.items() if part and {*part.features, *part.values} == names}
    kept = distributed.gather_objects(kept)[0]  # all skip the same batches
    made: list[Scored] = []  # by this worker now
    todo = [index for index in range(len(work)) if index not in kept]
    share = distributed.deal(todo, config.model.sequence_workers)

    # workers share each pass, so they stop together
    in_step = config.zero.stage == 3 or config.model.sequence_workers > 1

    def on_step(done: int, total: int) -> None:
        report("generate", done, total, None)

    def on_progress(done: int, total: int) -> None:
        on_step(done, total)
        if in_step and distributed.any_worker(stop()):
            raise Stopped(f"stopped after batch {done} of {total}")

    vae, base = resident.vae, resident.folder
    if not config.method.has_model:
        frames_of = frames_without_model(resident, config, windows)
        generated = ready_clips(frames_of, config, windows, todo, on_progress)
    else:
        generated = generate(model, vae, base, config, encodings, windows, todo, on_progress, on_step)
    due = [work[index] for index, counts in share if counts]
    with closing(_scored(job, resident, adapter, generated, due)) as scored:  # closed: the last batch is on disk
        for part in scored:
            made.append(part)
            if not in_step and stop():
                raise Stopped(f"stopped after {sum(len(part.clip_ids) for part in (*kept.values(), *made))} clips")
    own = [*(kept[index] for index in sorted(kept) if distributed.rank() == 0), *made]
    groups = distributed.data_group(config.model.sequence_workers).count  # which divided the earlier batches too
    earlier = np.sum([part.seconds for part in kept.values()] or [(0.0, 0.0)], axis=0) / groups
    generating, scoring = (earlier + np.sum([part.seconds for part in made] or [(0.0, 0.0)], axis=0)).tolist()
    return merged(own, _ids(windows)), {"generate": generating, "score": scoring}, float(earlier.sum())


def _scored(
    job: Job,
    resident: ResidentModel,
    adapter: str,
    generated: Iterable[tuple[int, list[Window], Frames]],
    due: Sequence[Sequence[Window]],
) -> Generator[Scored]:
    """The scores of each batch of `generated`, whose windows are `due`; complete and on disk when the next one comes.

    While the next batch is generated, a thread reads its reference clips, and then completes the last one: colours and
    flow, which need no device, videos, part. What it raises is raised with the next batch, or at the end.
    """
    config, folder, since = job.spec.config, job.folder, clock()
    metrics = clip_metrics(resident.nets, config.score.flow, config.data.frames)
    features = feature_sets(resident.nets)
    here = [each for each in metrics if each.inside not in FLOWS]
    chunks, part = iter(due), Scored()

    def reference() -> Frames | None:
        clips = [resident.reference_frames(config.data, window) for window in next(chunks, ())]
        return np.stack(clips) if clips else None

    def complete(path: Path, chunk: Sequence[Window], batch: Batch, part: Scored) -> None:
        flow = config.score.flow
        if flow:
            batch = replace(batch, reference_pairs={flow: resident.reference_pairs(config.data, list(chunk), flow)})
        rest = score_batch(batch, part.clip_ids, [each for each in metrics if each not in here], [COLOURS])
        part.features = {name: (part.features | rest.features)[name] for name in features}
        part.values = {each.name: (part.values | rest.values)[each.name] for each in metrics}
        _check_finite(part)
        write_clips([folder.sample(clip) for clip in part.clip_ids], batch.frames, config.data.fps)
        save_part(path, adapter, part)

    with ThreadPoolExecutor(1, "clips") as thread:
        ahead, written = thread.submit(reference), thread.submit(lambda: None)
        try:
            for index, chunk, frames in generated:
                before = clock()
                batch = _batch(resident, config, chunk, frames, ahead.result())
                ahead = thread.submit(reference)
                part = score_batch(batch, _ids(chunk), here, [name for name in features if name != COLOURS])
                written.result()
                part.seconds = before - since, clock() - before
                since = clock()
                written = thread.submit(complete, folder.part(index), chunk, batch, part)
                yield part
            since = clock()
        finally:
            written.result()
            part.seconds = part.seconds[0], part.seconds[1] + clock() - since


def _check_finite(scored: Scored) -> None:
    for metric, values in scored.values.items():
        for clip, value in zip(scored.clip_ids, values, strict=True):
            if not np.isfinite(value):
                raise ValueError(f"{metric} of {clip} is not finite: {value}")
