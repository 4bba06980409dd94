"""Run one trial of a study in this process: one worker, no Ray, for debugging.

    python -m cinelora.trial STUDY/trials/ID --cache .cache

In: spec.json in the trial's folder and, in the cache, the encodings of its windows. Out: everything else in that
folder, `result.json` last; its path on stdout after the progress. Exit status 0; after one line on stderr 2, or 130
if the trial was stopped, by Ctrl-C or by its stop file.
"""

from __future__ import annotations

from pathlib import Path

from cinelora import distributed
from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.config import TrackingConfig
from cinelora.core.paths import StudyFolder, TrialFolder
from cinelora.core.records import read_trial
from cinelora.training.checkpoint import Stopped
from cinelora.trial.job import Job, for_one_process
from cinelora.trial.resident import load_resident_model
from cinelora.trial.run import run_trial


def main() -> None:
    """Parse the command line and run the trial. Raises UserError for a trial that is absent or finished."""
    parser = Parser(prog="python -m cinelora.trial", description="Run one trial of a study in this process.")
    parser.add_argument("trial", type=Path, help="trial folder holding spec.json")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where its encodings are (default: .cache)")
    options = parser.parse_args()
    folder = TrialFolder(options.trial.resolve())
    spec, result = read_trial(folder)
    if result is not None:
        raise UserError(f"{folder.result}: exists, so this trial is done; copy spec.json elsewhere to run it again")
    study = folder.root.parent.parent
    job = Job(for_one_process(spec), StudyFolder(study), study.name, options.cache, TrackingConfig())
    distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    try:
        run_trial(job, load_resident_model(job), lambda stage, done, total, loss: print(stage, done, total, loss))
    except Stopped as stopped:
        raise KeyboardInterrupt from stopped
    print(folder.result)


if __name__ == "__main__":
    hint = "stopped; the same command continues from the last checkpoint, once any stop file is removed"
    raise SystemExit(exit_status(main, stopped=hint))
