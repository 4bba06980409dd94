"""A tiny study folder whose scores are known on paper.

Three held-out clips c0..c2; base, rank 4 and rank 8, two seeds each for the ranks. TransNetV2 "features" are
one number a clip: the reference has -1, 0, 1 (mean 0, standard deviation 1), a trial has that plus its shift s, so
fvd = s^2, and kvd = 7 for s = 1, 136 for s = 2, worked out by hand from (ab + 1)^3 without the diagonals.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import ArrayLike

from cinelora.core.config import DataConfig, LoraConfig, Method, ModelConfig, TrainConfig, TrialConfig
from cinelora.core.files import write_json
from cinelora.core.paths import SampleFolder, StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, reference_key

CLIPS = ("c0", "c1", "c2")
SHIFTS = {"base": 3.0, "r4s0": 1.0, "r4s1": 2.0, "r8s0": 1.0, "r8s1": 1.0}
PSNR = {"base": 9.0, "r4s0": 11.0, "r4s1": 13.0, "r8s0": 14.0, "r8s1": 15.0}  # mean over clips
MOTION = {"base": 0.2, "r4s0": 2.0, "r4s1": 2.2, "r8s0": 1.8, "r8s1": 2.0}  # the base hardly moves
CONSISTENCY = {"base": 0.99, "r4s0": 0.90, "r4s1": 0.92, "r8s0": 0.94, "r8s1": 0.95}
HELDOUT = {"base": 0.9, "r4s0": 0.8, "r4s1": 0.7, "r8s0": 0.6, "r8s1": 0.6}
STEPS = 40


class Builder:
    """Writes study folders; a trial's id is its name in SHIFTS."""

    def __init__(self, root: Path) -> None:
        self.folder = StudyFolder(root)

    @property
    def reference(self) -> SampleFolder:
        return self.folder.reference(reference_key(spec("base")))

    def build(self, trained: bool = True, only: tuple[str, ...] = tuple(SHIFTS), reverse: bool = False) -> Path:
        names = list(reversed(SHIFTS)) if reverse else list(SHIFTS)
        write_json(self.folder.study, {"schema": 1, "name": "paper numbers"})
        write_json(self.folder.plan, {"trials": [spec(name, trained).to_json() for name in names]})
        write_samples(
            self.folder.reference(reference_key(spec("base"))), 0.0, {"consistency[mnv2]": 0.97, "motion[absdiff]": 2.1}
        )
        write_rows(self.reference.clips, ["clip_id", "shot", "caption"], [(clip, clip, "a clip") for clip in CLIPS])
        for name in names:
            if name in only:
                self.finish(spec(name, trained))
        return self.folder.root

    def finish(self, trial: TrialSpec) -> None:
        name, place = trial.trial_id, self.folder.trial(trial.trial_id)
        means = {
            "psnr": PSNR[name],
            "ssim": 0.5,
            "motion[absdiff]": MOTION[name],
            "consistency[mnv2]": CONSISTENCY[name],
            "image_similarity[mnv2]": 0.8,
            "heldout_loss": HELDOUT[name],
        }
        write_samples(place, SHIFTS[name], means)
        write_json(place.spec, trial.to_json())
        if trial.config.method is Method.lora:
            write_curve(place.train_csv, HELDOUT[name])
        write_json(place.result, result(trial).to_json())

    def fail(self, name: str, error: str) -> None:
        place = self.folder.trial(name)
        shutil.rmtree(place.root, ignore_errors=True)
        write_json(place.failed, {"trial_id": name, "error": error, "kind": "out_of_memory"})

    def adopt(self, name: str, **origin: Any) -> None:
        """Make a planned trial one of an adapter, or of clips, from elsewhere."""
        plan = json.loads(self.folder.plan.read_text())
        for trial in plan["trials"]:
            if trial["trial_id"] == name:
                trial["config"] |= {"method": "adapter", "adapter_sha256": name, **origin}
        write_json(self.folder.plan, plan)

    def rewrite_scores(self, name: str, keep: Callable[[str, str], bool]) -> None:
        """Leave in a trial's clip scores only the lines for which keep(clip, metric) holds."""
        path = self.folder.trial(name).clip_scores
        head, *rows = csv.reader(path.read_text().splitlines())
        write_rows(path, head, [tuple(row) for row in rows if keep(row[0], row[1])])

    def edit_json(self, path: Path, **changes: Any) -> None:
        write_json(path, {**json.loads(path.read_text()), **changes})


def spec(name: str, trained: bool = True) -> TrialSpec:
    """The planned trial called "base" or "r<rank>s<seed>"."""
    base = name == "base"
    rank, seed = (8, 0) if base else (int(name[1]), int(name[3]))
    config = TrialConfig(
        method=Method.base if base else Method.lora,
        seed=seed,
        model=ModelConfig(trained=trained),
        data=DataConfig(frames=5, height=32, width=32),
        lora=LoraConfig(rank=rank),
        train=TrainConfig(steps=STEPS),
    )
    return TrialSpec(name, config, {"model": "aa", "data": "bb"})


def result(trial: TrialSpec) -> TrialResult:
    config, name = trial.config, trial.trial_id
    base = config.method is Method.base
    rank = 0 if base else config.lora.rank
    protocol = {"features": "tnv2", "frames": 4, "fps": 16.0, "size": [32, 32], "resize": "crop"}
    return TrialResult(
        trial_id=name,
        method=config.method.value,
        arm=config.arm,
        rank=rank,
        alpha=float(rank),
        scale=0.0 if base else 1.0,
        scaling=config.lora.scaling.value,
        targets=config.lora.targets.value,
        learning_rate=config.train.learning_rate,
        seed=config.seed,
        steps=0 if base else STEPS,
        trainable_parameters=3072 * rank,
        adapter_bytes=12500 * rank,
        adapter_sha256="",
        train_loss=None if base else 1.0,
        heldout_loss=HELDOUT[name],
        other_loss=None,
        clips=len(CLIPS),
        seconds={"train": 8.0},
        seconds_per_step=None if base else 0.25,
        peak_memory_gib=1.0,
        world_size=1,
        restarts=0,
        protocol={"kvd[tnv2]": protocol, "fvd[tnv2]": protocol},
        unavailable={"lpips": "needs LPIPS weights", "fvd[i3d]": "needs I3D weights"},
    )


def write_samples(place: SampleFolder, shift: float, means: dict[str, float]) -> None:
    """Videos, features -1, 0, 1 plus `shift`, and clip scores mean - 1/8, mean, mean + 1/8 (exact in binary)."""
    place.features("tnv2").parent.mkdir(parents=True, exist_ok=True)
    features = np.array([[-1.0], [0.0], [1.0]], dtype=np.float32) + np.float32(shift)
    for net in ("tnv2", "mnv2"):
        np.savez(place.features(net), ids=np.array(CLIPS), features=features)
    write_rows(
        place.clip_scores,
        ["clip_id", "metric", "value"],
        [(clip, metric, mean + (index - 1) / 8) for metric, mean in means.items() for index, clip in enumerate(CLIPS)],
    )
    for index, clip in enumerate(CLIPS):
        write_video(place.sample(clip), level=40 + 60 * index)


def write_curve(path: Path, final: float) -> None:
    head = ["step", "loss", "heldout_loss", "grad_norm", "learning_rate", "seconds"]
    lines = [(step, 1 / step, final if step in (1, STEPS) else "", 1.0, 1e-4, 0.25) for step in range(1, STEPS + 1)]
    write_rows(path, head, lines)


def write_rows(path: Path, head: list[str], rows: list[tuple[Any, ...]]) -> None:
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])


def write_video(path: Path, level: ArrayLike, frames: int = 5, size: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=16)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((size, size, 3), np.add(level, 5 * index), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
