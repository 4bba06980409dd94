"""Where everything of a study lies on disk. Standard library only.

In: a folder. Out: paths; nothing is read or written. All paths are relative to the study, so it can be copied whole.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Entry:
    """The path of a file or folder with a fixed name, as an attribute of the folder that holds it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: Any, kind: type) -> Path:
        return Path(folder.root / self.name)


@dataclass(frozen=True)
class SampleFolder:
    """Clips, features and per-clip scores: of one trial, or of the reference held-out clips."""

    root: Path

    def sample(self, clip_id: str) -> Path:
        return self.root / "samples" / f"{clip_id}.mp4"

    def features(self, net: str) -> Path:
        return self.root / "features" / f"{net}.npz"

    clip_scores = Entry("clip_scores.csv")
    clips = Entry("clips.csv")  # What the clips are: clip_id, shot, caption. In a reference only.

    @property
    def train(self) -> SampleFolder:
        """Features of the training clips. In a reference only."""
        return SampleFolder(self.root / "train")


@dataclass(frozen=True)
class TrialFolder(SampleFolder):
    """One trial. `result` is written last; if it exists the trial is whole."""

    spec = Entry("spec.json")
    train_csv = Entry("train.csv")
    adapter = Entry("adapter")
    checkpoints = Entry("checkpoints")
    progress = Entry("progress.json")
    result = Entry("result.json")
    # Set scores on all clips of the trial, and their inputs: `cinelora/features/results.py`.
    set_scores = Entry("set_scores.json")
    failed = Entry("failed.json")
    provenance = Entry("provenance.json")
    stop = Entry("stop")  # While this file exists, the trial saves a checkpoint and leaves.
    pruned = Entry("pruned.json")  # in place of a result: the trial was ended early, `sweeps/prune.py`.

    @property
    def adapter_file(self) -> Path:
        return self.adapter / ADAPTER_FILE

    def code_diff(self, sha256: str) -> Path:
        """Changes of the code since its commit."""
        return self.root / f"code-{sha256[:12]}.diff"

    def part(self, batch: int) -> Path:
        """Scores of one batch of generated clips, until all are there."""
        return self.root / "parts" / f"{batch:05d}.npz"

    def log(self, worker: int) -> Path:
        return self.root / "logs" / f"worker-{worker}.log"


@dataclass(frozen=True)
class StudyFolder:
    root: Path

    study = Entry("study.json")
    plan = Entry("plan.json")
    rates = Entry("rates.json")  # Of a study whose learning rates were searched first: `sweeps/rates.py`.
    looks = Entry("looks.json")  # Of a study that goes on until it knows: `sweeps/looks.py`.
    events = Entry("events.jsonl")
    lock = Entry(".lock")
    stop = Entry("stop")  # While this file exists, running trials save a checkpoint and leave.
    wandb = Entry("wandb")
    report = Entry("report")

    @property
    def truncation(self) -> StudyFolder:
        """Adapters cut to smaller ranks, laid out as trials: `cinelora/export/truncate.py`."""
        return StudyFolder(self.root / "truncation")

    @property
    def typed(self) -> str:
        """As it is typed in a shell."""
        return shlex.quote(str(self.root))

    def weight_norms(self, model: str) -> Path:
        """Norm of each layer of the frozen base with this fingerprint."""
        return self.root / "models" / f"{model[:12]}.json"

    def reference(self, key: str) -> SampleFolder:
        """The reference held-out clips of `records.reference_key`."""
        return SampleFolder(self.root / "reference" / key)

    def trial(self, trial_id: str) -> TrialFolder:
        return TrialFolder(self.root / "trials" / trial_id)


ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # in a trial's adapter folder; the name is diffusers' own
