"""What a study folder holds for W&B: its runs, what they should show, its report. No network.

In: a study folder with a report. Out: run folders to upload, a `RunRecord` per trial, a `Board`; and one offline run
with the figures, whose id is the hash of their content, so that the same figures are sent once.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.files import content_hash, file_sha256
from cinelora.core.paths import StudyFolder
from cinelora.metrics.primary import DISTANCES, GAPS, MOTION, STEADINESS, primary_scores
from cinelora.trial.tracking import CLIP, COST, SCORE, labels, result_summary, run_id, score_key
from launch.wandb_mirror.board import CURVES, FIGURES_JOB, Board
from sweeps.ledger import Ledger, check_schema, chosen_scores

OFFLINE = "offline-"
MAX_INSPECTED = 8  # runs that are read to find what is logged
FIGURE = "figure/"


@dataclass(frozen=True)
class RunRecord:
    """What the run of a finished trial should show: `labels` as `wandb.init` names them; scores and costs."""

    run_id: str
    labels: Mapping[str, Any]
    summary: Mapping[str, float]


def study_name(study: StudyFolder) -> str:
    """The study's name. Raises UserError for a folder without study or report."""
    name = str(check_schema(study).get("name", study.root.name))
    if not (study.report / "scores.csv").exists():
        raise UserError(f"{study.report}: no report yet; run `make figures STUDY={study.typed}`")
    return name


def run_of(folder: Path) -> str:
    """The run id of [offline-]run-DATE_TIME-ID."""
    return folder.name.removeprefix(OFFLINE).split("-", 2)[2]


def runs(study: StudyFolder) -> list[Path]:
    """Run folders, oldest first."""
    found = (path for path in study.wandb.glob("*run-*_*-*") if any(path.glob("*.wandb")))
    return sorted(found, key=lambda path: path.name.removeprefix(OFFLINE))


def is_synced(folder: Path) -> bool:
    return any(folder.glob("*.wandb.synced"))


def read_run(folder: Path) -> dict[str, Any]:
    """A run as W&B's own reader gives it: project, exit_code (None: it never ended), summary. Raises UserError."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", str(folder), "--summary", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{folder}: W&B cannot read this run ({last}); move it away")
    return dict(json.loads(done.stdout))


def to_send(study: StudyFolder) -> tuple[list[Path], list[Path]]:
    """Offline runs that were not sent: those that have ended, and those whose trial may still be running.

    A run that is still written to must wait: W&B accepts its file only once.
    """
    ready: list[Path] = []
    waiting: list[Path] = []
    for folder in runs(study):
        if folder.name.startswith(OFFLINE) and not is_synced(folder):
            trial = study.trial(run_of(folder).partition("-")[0])
            ended = not trial.root.exists() or trial.result.exists() or read_run(folder)["exit_code"] is not None
            (ready if ended else waiting).append(folder)
    return ready, waiting


def run_records(study: StudyFolder, name: str) -> tuple[RunRecord, ...]:
    """One per finished trial, in the order of the plan. A score of the report is the mean over its clips."""
    values: dict[str, dict[str, list[float]]] = {}  # trial -> score -> values
    with open(study.report / "scores.csv", newline="", encoding="utf-8") as stream:
        for line in csv.DictReader(stream):
            of_trial = values.setdefault(line["trial_id"], {})
            of_trial.setdefault(score_key(line["metric"]), []).append(float(line["value"]))
    ledger, found = Ledger(study), []
    existing = {run_of(path) for path in runs(study)}
    for spec in ledger.plan().trials:
        if (result := ledger.result(spec.trial_id)) is not None:
            trial = spec.trial_id
            identity = trial if trial in existing else run_id(trial, name)  # older runs have the bare id
            means = {score: sum(known) / len(known) for score, known in values.get(trial, {}).items()}
            found.append(RunRecord(identity, labels(spec, name), {**means, **result_summary(result)}))
    return tuple(found)


def logged(study: StudyFolder) -> tuple[set[str], str]:
    """Keys of the first runs, until clips and curves are among them; and the project that they name ("": none)."""
    keys: set[str] = set()
    project = ""
    for folder in runs(study)[:MAX_INSPECTED]:
        run = read_run(folder)
        keys |= set(run["summary"])
        project = project or run["project"]
        if CURVES[0] in keys and any(key.startswith(CLIP) for key in keys):
            break
    return keys, project


def board(study: StudyFolder, name: str, records: tuple[RunRecord, ...], keys: set[str]) -> Board:
    """What the view and the report show. `keys`: what `logged` found."""
    summaries = sorted({key for record in records for key in record.summary})
    scores = [key for key in summaries if key.startswith(SCORE)]
    names, chosen = (*GAPS, *DISTANCES), chosen_scores(check_schema(study))
    known = [[name for name in names if score_key(name) in record.summary] for record in records]
    primary = primary_scores(known, chosen).answered
    first = [key for key in map(score_key, dict.fromkeys((*primary, STEADINESS, MOTION))) if key in scores]
    # The report's summary without its title and pictures: the text above the pictures, and the text below them.
    blocks = [
        text for text in (study.report / "summary.md").read_text("utf-8").strip().split("\n\n") if text[:2] != "# "
    ]
    pictures = [index for index, text in enumerate(blocks) if text.startswith("![")] or [len(blocks)]
    before = "\n\n".join(blocks[: pictures[0]])
    return Board(
        study=name,
        configs=tuple(record.labels["config"] for record in records),
        scores=(*first, *(key for key in scores if key not in first)),
        costs=tuple(key for key in summaries if key.startswith(COST)),
        curves=tuple(key for key in CURVES if key in keys),
        clips=tuple(sorted(key for key in keys if key.startswith(CLIP))),
        figures=tuple(FIGURE + path.stem for path in figures(study)),
        figures_run=figures_id(study, name),
        answer=before.partition("\n| ")[0].strip(),
        before=before,
        after="\n\n".join(blocks[pictures[-1] + 1 :]),
    )


def figures(study: StudyFolder) -> list[Path]:
    return sorted(study.report.glob("*.png"))


def figures_id(study: StudyFolder, name: str) -> str:
    digest = content_hash([[path.name, file_sha256(path)] for path in figures(study)], 12)
    return run_id(digest, f"{FIGURES_JOB}-{name}")


def write_figures_run(study: StudyFolder, name: str, project: str) -> None:
    """Write the figures as an offline run, unless there is one with these figures."""
    identity = figures_id(study, name)
    if any(run_of(path) == identity for path in runs(study)):
        return
    import wandb

    run = wandb.init(
        project=project,
        id=identity,
        name=f"figures-{identity[:6]}",
        group=name,
        job_type=FIGURES_JOB,
        tags=[name[:64], FIGURES_JOB],
        config={"study": name},
        dir=str(study.root),
        mode="offline",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
    )
    run.log({FIGURE + path.stem: wandb.Image(str(path)) for path in figures(study)})
    run.finish()
