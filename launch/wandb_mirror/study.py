"""What a study folder holds for W&B: its runs, what the ledger says of them, its report. No network.

In: a study folder with a report. Out: run folders to upload, `Facts` per trial, a `Board`; and one offline run of
our figures, whose id is their content, so that the same figures make no second run.
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
from cinelora.trial.tracking import CLIP, COST, SCORE, labels, result_summary, run_id, score_key
from launch.wandb_mirror.board import CURVES, REPORT_JOB, Board
from sweeps.ledger import Ledger, check_schema

OFFLINE = "offline-run-"
FIRST_SCORES = tuple(map(score_key, ("kvd[tnv2]", "heldout_loss", "consistency[mnv2]", "motion[absdiff]")))
LOOKED_AT = 8  # runs, at most, to learn what is logged
FIGURE = "figure/"


@dataclass(frozen=True)
class Facts:
    """What a finished trial's run should say, by the ledger and the report; `labels` as `wandb.init` names them."""

    run_id: str
    labels: Mapping[str, Any]
    summary: Mapping[str, float]


def study_name(study: StudyFolder) -> str:
    """The study's name. Raises UserError for a folder without study or report."""
    name = str(check_schema(study).get("name", study.root.name))
    if not (study.report / "scores.csv").exists():
        raise UserError(f"{study.report}: no report yet; run `make figures STUDY={study.root}`")
    return name


def run_of(folder: Path) -> str:
    """The run id of [offline-]run-DATE_TIME-ID."""
    return folder.name.removeprefix("offline-").removeprefix("run-").partition("-")[2]


def runs(study: StudyFolder, prefix: str = "*run-") -> list[Path]:
    """Run folders in order of time."""
    found = (path for path in study.wandb.glob(f"{prefix}*_*-*") if any(path.glob("*.wandb")))
    return sorted(found, key=lambda path: path.name.removeprefix("offline-"))


def is_synced(folder: Path) -> bool:
    return any(folder.glob("*.wandb.synced"))


def read_run(folder: Path) -> dict[str, Any]:
    """W&B's own reading of a run: project, exit_code (None: it never ended), summary. Raises UserError."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", str(folder), "--summary", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{folder}: W&B cannot read this run ({last}); move it away")
    return dict(json.loads(done.stdout))


def to_send(study: StudyFolder) -> tuple[list[Path], list[Path]]:
    """Offline runs that are not up yet: those that will grow no more, and those of trials that may be running.

    W&B takes a run's file once, so a running trial has to wait.
    """
    ready: list[Path] = []
    waiting: list[Path] = []
    for folder in runs(study, OFFLINE):
        if not is_synced(folder):
            place = study.trial(run_of(folder).partition("-")[0])
            ended = not place.root.exists() or place.result.exists() or read_run(folder)["exit_code"] is not None
            (ready if ended else waiting).append(folder)
    return ready, waiting


def facts(study: StudyFolder, name: str) -> tuple[Facts, ...]:
    """Every finished trial of the plan, in its order."""
    ledger, scores, out = Ledger(study), trial_scores(study.report / "scores.csv"), []
    here = {run_of(path) for path in runs(study)}
    for spec in ledger.plan().trials:
        result = ledger.result(spec.trial_id)
        if result is not None:
            known = {score_key(metric): value for metric, value in scores.get(spec.trial_id, {}).items()}
            ident = spec.trial_id if spec.trial_id in here else run_id(spec.trial_id, name)  # older runs: the bare id
            out.append(Facts(ident, labels(spec, name), {**known, **result_summary(result)}))
    return tuple(out)


def trial_scores(path: Path) -> dict[str, dict[str, float]]:
    """Trial id -> score -> mean over its clips, or the score of the whole set."""
    found: dict[str, dict[str, list[float]]] = {}
    with open(path, newline="") as stream:
        for line in csv.DictReader(stream):
            found.setdefault(line["trial_id"], {}).setdefault(line["metric"], []).append(float(line["value"]))
    return {
        trial: {metric: sum(values) / len(values) for metric, values in scores.items()}
        for trial, scores in found.items()
    }


def logged(study: StudyFolder) -> tuple[set[str], str]:
    """Keys of the first runs, until clips and curves are among them; and the project that they name ("": none)."""
    keys: set[str] = set()
    project = ""
    for folder in runs(study)[:LOOKED_AT]:
        run = read_run(folder)
        keys |= set(run["summary"])
        project = project or run["project"]
        if CURVES[0] in keys and any(key.startswith(CLIP) for key in keys):
            break
    return keys, project


def board(study: StudyFolder, name: str, of_trials: tuple[Facts, ...], keys: set[str]) -> Board:
    """`keys`: what `logged` found."""
    known = sorted({key for fact in of_trials for key in fact.summary})
    scores = {key for key in known if key.startswith(SCORE)}
    before, after = split_summary((study.report / "summary.md").read_text())
    return Board(
        study=name,
        configs=tuple(fact.labels["config"] for fact in of_trials),
        scores=(*(key for key in FIRST_SCORES if key in scores), *sorted(scores - set(FIRST_SCORES))),
        costs=tuple(key for key in known if key.startswith(COST)),
        curves=tuple(key for key in CURVES if key in keys),
        clips=tuple(sorted(key for key in keys if key.startswith(CLIP))),
        figures=tuple(FIGURE + path.stem for path in figures(study)),
        figures_run=figures_id(study, name),
        answer=before.partition("\n| ")[0].strip(),
        before=before,
        after=after,
    )


def split_summary(text: str) -> tuple[str, str]:
    """summary.md without its title and its pictures: what stands above them, what below."""
    blocks = [block for block in text.strip().split("\n\n") if not block.startswith("# ")]
    pictures = [index for index, block in enumerate(blocks) if block.startswith("![")]
    cut = pictures[0] if pictures else len(blocks)
    below = [block for block in blocks[cut:] if not block.startswith("![")]
    return "\n\n".join(blocks[:cut]), "\n\n".join(below)


def figures(study: StudyFolder) -> list[Path]:
    return sorted(study.report.glob("*.png"))


def figures_id(study: StudyFolder, name: str) -> str:
    digest = content_hash([[path.name, file_sha256(path)] for path in figures(study)], 12)
    return run_id(digest, f"{REPORT_JOB}-{name}")


def write_figures_run(study: StudyFolder, name: str, project: str) -> None:
    """The figures as one more offline run, unless one holds just these."""
    ident = figures_id(study, name)
    if any(run_of(path) == ident for path in runs(study, OFFLINE)):
        return
    import wandb

    run = wandb.init(
        project=project,
        id=ident,
        name=f"figures-{ident[:6]}",
        group=name,
        job_type=REPORT_JOB,
        tags=[name[:64], REPORT_JOB],
        config={"study": name},
        dir=str(study.root),
        mode="offline",
        settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
    )
    run.log({FIGURE + path.stem: wandb.Image(str(path)) for path in figures(study)})
    run.finish()
