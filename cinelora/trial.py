"""One trial: train, generate, score, write the result. The same code in a warm gang and in a process of its own.

    python -m cinelora.trial STUDY/trials/ID --cache .cache        (one worker, no Ray: for debugging)

In: a TrialSpec on disk, filled encodings, a resident base. Out: everything in the trial's folder, with
`result.json` written last. Every worker of a gang runs this in step; worker 0 writes.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinelora import dist, features, lora, scores, wan, zero
from cinelora.config import Dtype, Method, TrackingConfig
from cinelora.encode import Encodings, true_frames
from cinelora.generate import batches, generate
from cinelora.job import Job
from cinelora.layout import SampleFolder, StudyFolder
from cinelora.models import model_folder
from cinelora.records import TrialResult, TrialSpec, read_json, trial_from_dict, write_json
from cinelora.tracking import Tracker
from cinelora.train import Report, Trained, heldout_loss, train
from cinelora.video import write_mp4
from cinelora.weights import WEIGHTS
from cinelora.windows import Window, WindowPlan

TRACKED_CLIPS = 2  # videos a trial shows in W&B
OF_REAL_CLIPS = ("consistency[mnv2]", "motion[absdiff]")  # what a true clip can be asked without a rival


@dataclass
class Base:
    """What stays in memory between trials. `key` says which trials may use it as it is."""

    key: tuple[str, str, bool]
    folder: Path
    transformer: Any
    vae: Any
    nets: dict[str, Any]


def base_key(spec: TrialSpec) -> tuple[str, str, bool]:
    """(model, dtype, sharded): the engine casts the base in place, stage 3 leaves it partitioned."""
    return spec.fingerprints["model"], spec.config.model.dtype.value, spec.config.zero.stage == 3


def load_base(job: Job) -> Base:
    """Denoiser, VAE and feature nets on this worker's device."""
    config, device = job.spec.config, dist.device_name()
    folder = model_folder(config.model, job.cache_dir)
    paths = {name: getattr(config.score, name) for name in WEIGHTS}
    return Base(
        base_key(job.spec),
        folder,
        wan.load_transformer(folder, config.model.dtype, device),
        wan.load_vae(folder, device),
        {name: features.load_net(name, Path(path), device) for name, path in paths.items() if path},
    )


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
    kept = made if first else made[:, 1:]
    ids = [window.window_id for window in windows]
    found: dict[str, list[np.ndarray]] = {}
    per_frame = image = None
    if "tnv2" in base.nets:
        found["tnv2"] = list(features.video_features(base.nets["tnv2"], kept))
    if "mnv2" in base.nets:
        per_frame = features.frame_features(base.nets["mnv2"], made)
        image = features.frame_features(base.nets["mnv2"], truth[:, :1])[:, 0]
        found["mnv2"] = list(per_frame[:, 0 if first else 1 :].mean(axis=1))
    return Scored(ids, found, scores.clip_scores(made, truth, ids, per_frame, image, first))


def write_scored(folder: SampleFolder, scored: Scored) -> None:
    for net, rows in scored.features.items():
        scores.write_features(folder.features(net), scored.clip_ids, np.stack(rows))
    scores.write_clip_scores(folder.clip_scores, scored.rows)


def write_reference(job: Job, base: Base) -> None:
    """The true held-out clips, their features and motion: what every trial is compared with."""
    config, folder = job.spec.config, job.study.reference
    total = Scored()
    windows = list(job.windows().heldout)
    parts = []
    for chunk in batches(windows, config.sample.batch_size):
        truth = np.stack([true_frames(Path(config.data.path), config.data, window) for window in chunk])
        for window, frames in zip(chunk, truth, strict=True):
            write_mp4(folder.sample(window.window_id), frames, config.data.fps)
        parts.append(score_batch(base, chunk, truth, truth, config.score.keep_first_frame))
    merged = total.merge(parts, [window.window_id for window in windows])
    merged.rows = [row for row in merged.rows if row.metric in OF_REAL_CLIPS]
    write_scored(folder, merged)


def generate_and_score(
    job: Job, base: Base, model: Any, plan: WindowPlan, encodings: Encodings, report: Report
) -> tuple[Scored, float, float]:
    """Scores of this worker's clips, and the seconds of generating and of scoring."""
    config, folder = job.spec.config, job.study.trial(job.spec.trial_id)
    windows, mine = list(plan.heldout), Scored(features={name: [] for name in base.nets})
    clips = generate(
        model, base.vae, base.folder, config, encodings, windows,
        lambda done, total: report("generate", done, total, None),
    )  # fmt: skip
    started, scoring = time.perf_counter(), 0.0
    pending: list[tuple[Window, np.ndarray]] = []

    def flush() -> None:
        chunk = [window for window, _ in pending]
        made = np.stack([frames for _, frames in pending])
        truth = np.stack([true_frames(Path(config.data.path), config.data, window) for window in chunk])
        part = score_batch(base, chunk, made, truth, config.score.keep_first_frame)
        mine.clip_ids += part.clip_ids
        mine.rows += part.rows
        for name, rows in part.features.items():
            mine.features[name] += rows
        for window, frames in pending:
            write_mp4(folder.sample(window.window_id), frames, config.data.fps)
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


def checked_adapter(parameters: lora.NamedParameters) -> tuple[dict[str, torch.Tensor], str]:
    """The full adapter and its hash. Raises RuntimeError if the workers of the gang disagree on it.

    Training on a wrong sub-group raises no error by itself: every worker then holds another adapter.
    """
    state = zero.full_parameters(parameters)
    hashes = dist.gather_objects(lora.adapter_hash(state))
    if len(set(hashes)) != 1:
        raise RuntimeError(f"workers ended with different adapters: {', '.join(h[:12] for h in hashes)}")
    return state, hashes[0]


def peak_memory_gib() -> float:
    """Of this process: device memory on a GPU, resident memory elsewhere."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "diffusers", "peft", "deepspeed", "transformers", "ray", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _open_model(
    job: Job, base: Base, plan: WindowPlan, encodings: Encodings, report: Report, tracker: Tracker
) -> tuple[Any, Trained | None]:
    """(what to call for a velocity, the training behind it)."""
    spec, config = job.spec, job.spec.config
    if config.method is Method.lora:
        folder = job.study.trial(spec.trial_id)
        trained = train(base.transformer, spec, encodings, plan, folder, report, tracker.log)
        return trained.engine, trained
    if config.zero.stage == 3:  # the base may only fit sharded: an adapter at its zero start is the base exactly
        parameters = lora.attach(base.transformer, config.lora, config.seed)
        engine = zero.build_engine(base.transformer, parameters, config.train, config.zero, config.model.dtype)
        return engine, Trained(engine, parameters, 0, None, None, 0.0, None)
    if config.model.dtype is not Dtype.float32:
        base.transformer.to(wan.TORCH_DTYPE[config.model.dtype])
    return base.transformer, None


def run_trial(job: Job, base: Base, report: Report, clock: Callable[[], float] = time.perf_counter) -> TrialResult:
    """Run the trial to its result, resuming from its last checkpoint. Every worker returns the same result.

    Raises NonFiniteLoss, RuntimeError (workers disagree), and whatever the disk raises.
    """
    spec, started = job.spec, clock()
    folder, plan = job.study.trial(spec.trial_id), job.windows()
    order = [window.window_id for window in plan.heldout]
    encodings = Encodings(job.encodings)
    tracker = Tracker(spec, job.tracking, job.study_name, job.study.wandb, active=dist.rank() == 0)
    result, trained = None, None
    try:
        model, trained = _open_model(job, base, plan, encodings, report, tracker)
        training = trained.seconds if trained else 0.0
        base_loss = None
        if spec.config.method is Method.base:
            base_loss = heldout_loss(model, spec.config, encodings, plan)
        state, digest = checked_adapter(trained.parameters) if trained and trained.steps else ({}, "")
        mine, generating, scoring = generate_and_score(job, base, model, plan, encodings, report)
        scored = mine.merge(dist.gather_objects(mine), order)
        seconds = {"train": training, "generate": generating, "score": scoring}
        result = describe(job, trained, base_loss, digest, len(scored.clip_ids), seconds)
        if dist.rank() == 0:
            size = lora.save_adapter(folder.adapter, state, spec.config.lora) if state else 0
            write_scored(folder, scored)
            tracker.scores(scored.rows, [folder.sample(clip) for clip in scored.clip_ids[:TRACKED_CLIPS]])
            seconds["overhead"] = clock() - started - sum(seconds.values())
            result = TrialResult(**{**result.to_json(), "adapter_bytes": size, "seconds": seconds})
            write_json(folder.result, result.to_json())
            folder.failed.unlink(missing_ok=True)
        return result
    finally:
        tracker.finish(result)
        if trained is not None:
            zero.release(trained.engine, trained.parameters)
        lora.detach(base.transformer)


def describe(
    job: Job, trained: Trained | None, base_loss: float | None, digest: str, clips: int, seconds: dict[str, float]
) -> TrialResult:
    """The result record; bytes on disk and overhead are filled in by the worker that writes."""
    spec, config = job.spec, job.spec.config
    is_lora = config.method is Method.lora
    return TrialResult(
        trial_id=spec.trial_id,
        method=config.method.value,
        rank=config.lora.rank if is_lora else 0,
        alpha=config.lora.effective_alpha if is_lora else 0.0,
        scale=config.lora.scale if is_lora else 0.0,
        scaling=config.lora.scaling.value,
        targets=config.lora.targets.value,
        learning_rate=config.train.learning_rate,
        seed=config.seed,
        steps=trained.steps if trained else 0,
        trainable_parameters=trained.trainable_parameters if trained and is_lora else 0,
        adapter_bytes=0,
        adapter_sha256=digest,
        train_loss=trained.train_loss if trained else None,
        heldout_loss=trained.heldout_loss if trained and is_lora else base_loss,
        clips=clips,
        seconds=seconds,
        seconds_per_step=trained.seconds_per_step if trained else None,
        peak_memory_gib=peak_memory_gib(),
        world_size=dist.world_size(),
        restarts=job.restarts,
        protocol=scores.protocol(config.score, config.data),
        unavailable=scores.unavailable(config.score),
        versions=versions(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one trial of a study in this process.")
    parser.add_argument("trial", type=Path, help="trial folder holding spec.json")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    arguments = parser.parse_args()
    data = read_json(arguments.trial / "spec.json")
    spec = TrialSpec(data["trial_id"], trial_from_dict(data["config"]), data["fingerprints"])
    study = StudyFolder(arguments.trial.resolve().parent.parent)
    job = Job(spec, study, study.root.name, arguments.cache, TrackingConfig())
    dist.start(0, 1, "127.0.0.1", 29511)
    result = run_trial(job, load_base(job), lambda stage, done, total, loss: print(stage, done, total, loss))
    print(study.trial(result.trial_id).result)


if __name__ == "__main__":
    main()
