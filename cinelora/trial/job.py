"""One trial to run, and where its study and cache lie on this machine. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cinelora.core.config import TrackingConfig
from cinelora.core.files import read_json, write_csv
from cinelora.core.paths import SampleFolder, StudyFolder, TrialFolder
from cinelora.core.records import TrialSpec, reference_key
from cinelora.data.encodings import WINDOWS_FILE, encoding_folder, shared_folder
from cinelora.data.windows import WindowPlan


@dataclass(frozen=True)
class Job:
    """What a worker needs to run one trial; the driver sends it."""

    spec: TrialSpec
    study: StudyFolder
    study_name: str
    cache_dir: Path
    tracking: TrackingConfig
    causes: tuple[str, ...] = ()  # why it was restarted in this sweep, one per restart: sweeps/failures.py

    @property
    def restarts(self) -> int:
        return len(self.causes)

    @property
    def folder(self) -> TrialFolder:
        return self.study.trial(self.spec.trial_id)

    @property
    def encodings(self) -> Path:
        found, model = self.spec.fingerprints, self.spec.config.model
        return encoding_folder(self.cache_dir, found["data"], found["model"], model.text_dtype)

    @property
    def shared_encodings(self) -> Path:
        model = self.spec.config.model
        return shared_folder(self.cache_dir, self.spec.fingerprints["model"], model.text_dtype)

    @property
    def reference(self) -> SampleFolder:
        return self.study.reference(reference_key(self.spec))

    def windows(self) -> WindowPlan:
        return WindowPlan.from_json(read_json(self.encodings / WINDOWS_FILE))

    def list_reference(self) -> None:
        """Write which clips are held out, with shot and caption: all that a study without clips has of them."""
        rows = ((window.window_id, window.shot_id, window.caption) for window in self.windows().heldout)
        write_csv(self.reference.clips, ["clip_id", "shot", "caption"], rows)


def for_one_process(spec: TrialSpec) -> TrialSpec:
    """The same trial for a process alone, which has no others to share a clip's tokens with. The result is the same."""
    return replace(spec, config=replace(spec.config, model=replace(spec.config.model, sequence_workers=1)))
