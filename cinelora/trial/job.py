"""The order to run one trial: what, and where its study and cache lie. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cinelora.core.config import TrackingConfig
from cinelora.core.files import read_json
from cinelora.core.paths import SampleFolder, StudyFolder
from cinelora.core.records import TrialSpec, reference_key
from cinelora.data.encodings import WINDOWS_FILE, encoding_folder
from cinelora.data.windows import WindowPlan


@dataclass(frozen=True)
class Job:
    """One trial and where its study lives on this machine."""

    spec: TrialSpec
    study: StudyFolder
    study_name: str
    cache_dir: Path
    tracking: TrackingConfig
    causes: tuple[str, ...] = ()  # of its restarts in this sweep, sweeps/failures.py

    @property
    def restarts(self) -> int:
        return len(self.causes)

    @property
    def encodings(self) -> Path:
        marks = self.spec.fingerprints
        return encoding_folder(self.cache_dir, marks["data"], marks["model"], self.spec.config.model.text_dtype)

    @property
    def reference(self) -> SampleFolder:
        return self.study.reference(reference_key(self.spec))

    def windows(self) -> WindowPlan:
        return WindowPlan.from_json(read_json(self.encodings / WINDOWS_FILE))
