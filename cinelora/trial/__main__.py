"""One trial: train, generate, score, write the result. The same code in a warm gang and in a process of its own.

    python -m cinelora.trial STUDY/trials/ID --cache .cache        (one worker, no Ray: for debugging)

In: a TrialSpec on disk, filled encodings, a resident base. Out: everything in the trial's folder, with
`result.json` written last. Every worker of a gang runs this in step; worker 0 writes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cinelora import distributed
from cinelora.core.config import TrackingConfig
from cinelora.core.files import read_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec, trial_from_dict
from cinelora.trial.job import Job
from cinelora.trial.resident import load_resident_model
from cinelora.trial.run import run_trial


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one trial of a study in this process.")
    parser.add_argument("trial", type=Path, help="trial folder holding spec.json")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    arguments = parser.parse_args()
    data = read_json(arguments.trial / "spec.json")
    spec = TrialSpec(data["trial_id"], trial_from_dict(data["config"]), data["fingerprints"])
    study = StudyFolder(arguments.trial.resolve().parent.parent)
    job = Job(spec, study, study.root.name, arguments.cache, TrackingConfig())
    if study.trial(spec.trial_id).result.exists():
        sys.exit(f"cinelora: {study.trial(spec.trial_id).result} exists: this trial is done; copy spec.json elsewhere")
    distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    result = run_trial(job, load_resident_model(job), lambda stage, done, total, loss: print(stage, done, total, loss))
    print(study.trial(result.trial_id).result)


if __name__ == "__main__":
    main()
