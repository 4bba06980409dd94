"""Where everything of a study lies on disk. Standard library only; a study folder can be copied whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SampleFolder:
    """Clips, features and per-clip scores: of one trial, or of the true held-out clips."""

    root: Path

    def sample(self, clip_id: str) -> Path:
        return self.root / "samples" / f"{clip_id}.mp4"

    def features(self, net: str) -> Path:
        return self.root / "features" / f"{net}.npz"

    @property
    def clip_scores(self) -> Path:
        return self.root / "clip_scores.csv"

    @property
    def clips(self) -> Path:
        """What the clips are: clip_id, shot, caption. In a reference only."""
        return self.root / "clips.csv"

    @property
    def train(self) -> SampleFolder:
        """Features of the training clips. In a reference only."""
        return SampleFolder(self.root / "train")


@dataclass(frozen=True)
class TrialFolder(SampleFolder):
    """One trial. `result` is written last; if it exists the trial is whole."""

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def train_csv(self) -> Path:
        return self.root / "train.csv"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def progress(self) -> Path:
        return self.root / "progress.json"

    @property
    def adapter_file(self) -> Path:
        return self.adapter / ADAPTER_FILE

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def set_scores(self) -> Path:
        """Set scores on all clips of the trial, and what they were computed from: `cinelora/features/results.py`."""
        return self.root / "set_scores.json"

    @property
    def failed(self) -> Path:
        return self.root / "failed.json"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def stop(self) -> Path:
        """While this file exists, the trial saves a checkpoint and leaves."""
        return self.root / "stop"

    @property
    def pruned(self) -> Path:
        """In place of a result: the trial was ended early, `sweeps/prune.py`."""
        return self.root / "pruned.json"

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

    @property
    def study(self) -> Path:
        return self.root / "study.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def stop(self) -> Path:
        """While this file exists, running trials save a checkpoint and leave."""
        return self.root / "stop"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def truncation(self) -> StudyFolder:
        """Adapters cut to smaller ranks, laid out as trials: `cinelora/export/truncate.py`."""
        return StudyFolder(self.root / "truncation")

    def weight_norms(self, model: str) -> Path:
        """Norm of each layer of the frozen base with this fingerprint."""
        return self.root / "models" / f"{model[:12]}.json"

    def reference(self, key: str) -> SampleFolder:
        """The true held-out clips of `records.reference_key`."""
        return SampleFolder(self.root / "reference" / key)

    def trial(self, trial_id: str) -> TrialFolder:
        return TrialFolder(self.root / "trials" / trial_id)


ADAPTER_FILE = "pytorch_lora_weights.safetensors"  # in a trial's adapter folder; the name is diffusers' own
