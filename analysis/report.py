"""Study folder -> report folder: the rank table, figures, differences to the base, all scores, one page to read.

In: a study folder, finished or half-finished. Out: rank_table.{csv,md,tex}, quality_vs_rank.{png,pdf},
differences.{csv,png,pdf},
learning_curves.{png,pdf}, contact_sheet.{png,pdf}, scores.csv, summary.md; each file whole or absent, the
same bytes for the same study. No torch, no ray, no network.
Run:  python -m analysis.report studies/tiny            (or `make figures STUDY=studies/tiny`)
      python -m analysis.report studies/tiny --out /tmp/report
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from analysis import figures
from analysis.answer import answers, sentence
from analysis.captions import BANNER, protocol_lines
from analysis.differences import COMPARED, Difference, differences, differences_csv, heading, sentences
from analysis.estimates import Estimates, estimate
from analysis.frames import contact_sheet
from analysis.load import Study, load_study, score_table
from analysis.page import write_page
from analysis.render import latex, markdown, print_table
from analysis.scores import TrialScores, trial_scores
from analysis.spectra import spectra_csv
from analysis.tables import Table, plain, rank_csv, rank_table
from cinelora.errors import UserError
from cinelora.records import whole_file

SET_CLIP = "(set)"  # stands for the clip of a score that a whole trial has
NO_DATES: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
DOTS_PER_INCH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Rank table and figures of a study.")
    parser.add_argument("study", type=Path, help="the study folder")
    parser.add_argument("--out", type=Path, default=None, help="default: STUDY/report")
    options = parser.parse_args(arguments)
    try:
        report(options.study, options.out)
    except UserError as error:
        print(f"cinelora: {error}", file=sys.stderr)
        return 2
    return 0


def report(root: Path, out: Path | None = None) -> Path:
    """Write the whole report and print its table. Returns the folder written."""
    study = load_study(root)
    estimates = estimate(study, trial_scores(study))
    table = rank_table(study, estimates)
    found = differences(study, estimates)
    told = [sentence(answer) for answer in answers(study, estimates)]
    place = study.folder.report if out is None else out
    drawn = draw(study, estimates, found, place)
    for name, text in texts(study, estimates, table, found, told, drawn).items():
        with whole_file(place / name) as path:
            path.write_text(text)
    page = write_page(study, estimates, table, found, told, place, drawn)
    _tell(table, found, told, place, drawn)
    print(f"page:    {page}")
    return place


def texts(
    study: Study,
    estimates: Estimates,
    table: Table,
    found: tuple[Difference, ...],
    told: Sequence[str],
    drawn: Sequence[str],
) -> dict[str, str]:
    """File name -> content of everything that is not a picture."""
    return {
        "rank_table.csv": rank_csv(estimates),
        "rank_table.md": markdown(table),
        "rank_table.tex": latex(table),
        "scores.csv": scores_csv(study, estimates.scores),
        "differences.csv": differences_csv(found),
        "spectra.csv": spectra_csv(study, estimates),
        "summary.md": summary(study, table, found, told, drawn),
    }


def scores_csv(study: Study, scores: TrialScores) -> str:
    """The ScoreTable, then the scores that a trial has as a whole (clip_id SET_CLIP); nine digits."""
    table = score_table(study)
    per_clip = set(table["metric"])
    whole = [
        (*trial.head, SET_CLIP, score, value)
        for trial in study.trials
        for score, value in sorted(scores.values[trial.spec.trial_id].items())
        if score not in per_clip
    ]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    for *head, value in (*table.itertuples(index=False, name=None), *whole):
        writer.writerow([*head, plain(value)])
    return stream.getvalue()


def summary(
    study: Study, table: Table, found: tuple[Difference, ...], told: Sequence[str], drawn: Sequence[str]
) -> str:
    """One page: what is missing first, then the table, the figures, the recorded protocols."""
    parts = [f"# {study.name}"]
    if table.banner:
        parts.append(f"**{table.banner}**")
    parts.append(f"{len(study.trials)} of {len(study.specs)} planned trials have finished.")
    if table.missing:
        parts.append("Missing:\n\n" + "\n".join(f"- {line}" for line in table.missing))
    parts += [f"- {line}" for line in told]
    body = markdown(table).partition("\n\n")[2].strip()
    parts.append(body.removeprefix(f"**{table.banner}**").strip() if table.banner else body)
    if found:
        parts.append(heading(found) + ":\n\n" + "\n".join(f"- {line}" for line in sentences(found)))
    parts += [f"![{name}]({name}.png)" for name in drawn]
    lines = protocol_lines(study)
    if lines:
        parts.append("Protocols as recorded by the trials:\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def draw(study: Study, estimates: Estimates, found: tuple[Difference, ...], place: Path) -> list[str]:
    """Write what can be drawn, remove what an earlier report drew and this cannot. Returns the names."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a reader's own matplotlibrc says
        matplotlib.rcParams.update(figures.STYLE)
        made: dict[str, Figure | None] = {
            "quality_vs_rank": _quality(study, estimates),
            "differences": _differences(study, found),
            "learning_curves": _curves(study, estimates),
            "contact_sheet": _sheet(study, estimates),
        }
        for name, figure in made.items():
            for suffix in NO_DATES:
                path = place / f"{name}{suffix}"
                if figure is None:
                    path.unlink(missing_ok=True)
                else:
                    _save(figure, path)
    return [name for name, figure in made.items() if figure is not None]


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata=NO_DATES[path.suffix])


def _above(study: Study) -> str:
    done, planned = len(study.trials), len(study.specs)
    parts = [] if study.trained else [BANNER]
    if done < planned:
        parts.append(f"{done} of {planned} trials finished")
    return "   |   ".join(parts)


def _quality(study: Study, estimates: Estimates) -> Figure:
    figure = Figure(figsize=(figures.WIDTH, 4.4), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    handles = figures.quality_vs_rank(list(panels), estimates)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figures.say_above(figure, _above(study))
    return figure


def _differences(study: Study, found: tuple[Difference, ...]) -> Figure | None:
    told = [each for each in found if each.score in COMPARED]
    if not told:
        return None
    rows = len({each.row for each in told})
    figure = Figure(figsize=(figures.WIDTH, 0.9 + 0.22 * rows), layout="constrained")
    scores = [score for score in COMPARED if any(each.score == score for each in told)]
    figures.paired_differences(list(figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]), told, scores)
    figures.say_above(figure, _above(study))
    return figure


def _curves(study: Study, estimates: Estimates) -> Figure | None:
    if all(trial.curve.empty for trial in study.trials):
        return None
    figure = Figure(figsize=(figures.WIDTH, 2.9), layout="constrained")
    panels = figure.subplots(1, 2)
    handles = figures.learning_curves(list(panels), study, estimates)
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    figures.say_above(figure, _above(study))
    return figure


def _sheet(study: Study, estimates: Estimates) -> Figure | None:
    sheet = contact_sheet(study, estimates)
    if sheet is None:
        return None
    height, width = figures.mosaic(sheet.frames)[0].shape[:2]
    margins = {"left": 0.8, "right": 0.05, "top": 0.5 if _above(study) else 0.32, "bottom": 0.05}
    inner = figures.WIDTH - margins["left"] - margins["right"]
    tall = inner * height / width + margins["top"] + margins["bottom"]
    figure = Figure(figsize=(figures.WIDTH, tall))
    box = (margins["left"] / figures.WIDTH, margins["bottom"] / tall, inner / figures.WIDTH)
    axes = figure.add_axes((*box, inner * height / width / tall))
    figures.contact_sheet(axes, sheet)
    figures.say_above(figure, _above(study))
    return figure


def _tell(table: Table, found: tuple[Difference, ...], told: Sequence[str], place: Path, drawn: Sequence[str]) -> None:
    if table.banner:
        print(table.banner)
    if table.missing:
        print("missing trials:", *(f"  {line}" for line in table.missing), sep="\n")
    print_table(table)
    if found:
        print(textwrap.fill(heading(found), 100))
        print(*(f"  {line}" for line in sentences(found)), sep="\n")
    for line in told:
        print(textwrap.fill(line, 100, subsequent_indent="  "))
    print(f"table:   {place / 'rank_table.md'}")
    for name in drawn:
        print(f"figure:  {place / name}.png")


if __name__ == "__main__":
    raise SystemExit(main())
