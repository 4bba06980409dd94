"""Study folder -> report folder: the rank table, figures, differences to the base, tests, all scores, one page.

In: a study folder, finished or half-finished. Out: rank_table.{csv,md,tex}, quality_vs_rank.{png,pdf},
differences.{csv,png,pdf}, tests.csv,
learning_curves.{png,pdf}, spectra.{csv,png,pdf}, truncation.{csv,png,pdf} where adapters were cut,
contact_sheet.{png,pdf}, pareto.{png,pdf}, per_clip.{png,pdf}, noise_floor.{csv,png,pdf}, fvd_vs_n.{csv,png,pdf},
scores.csv, summary.md; each file whole or absent, the same bytes for the same
study. No torch, no ray, no network.
Run:  python -m analysis.report studies/tiny            (or `make figures STUDY=studies/tiny`)
      python -m analysis.report studies/tiny --out /tmp/report
      python -m analysis.report studies/a studies/b --out /tmp/report      (one report of several, which are only read)
"""

from __future__ import annotations

import argparse
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from analysis.figures import quality as figures
from analysis.figures.ranks import spectra_figure, truncation_figure
from analysis.page.page import write_page
from analysis.statistics import confounds, truncation
from analysis.statistics import rank_tests as ranktests
from analysis.statistics.answer import answers, sentence
from analysis.statistics.differences import COMPARED, Difference, differences, differences_csv, heading, sentences
from analysis.statistics.plateau import plateaus
from analysis.statistics.rank_tests import RankTests, rank_tests
from analysis.statistics.spectra import Spectrum, spectra_csv, study_spectra
from analysis.study.frames import contact_sheet
from analysis.study.load import Study
from analysis.study.merge import load_studies
from analysis.study.rows import Estimates, RowKey, estimate, series_of
from analysis.study.scores import trial_scores
from analysis.tables.captions import BANNER, protocol_lines
from analysis.tables.formats import latex, markdown, print_table
from analysis.tables.rank_table import Table, rank_csv, rank_table
from analysis.tables.scorescsv import write_scores
from cinelora.core.cli import UserError
from cinelora.core.records import whole_file

NO_DATES: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
DOTS_PER_INCH = 200
Spectra = Mapping[RowKey, tuple[Spectrum, ...]]
Cuts = tuple[truncation.Truncated, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Rank table and figures of a study.")
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="folder; several make one report")
    parser.add_argument("--out", type=Path, default=None, help="default: STUDY/report; must be given for several")
    options = parser.parse_args(arguments)
    try:
        report(options.studies[0], options.out, options.studies[1:])
    except UserError as error:
        print(f"cinelora: {error}", file=sys.stderr)
        return 2
    return 0


def report(root: Path, out: Path | None = None, others: Sequence[Path] = ()) -> Path:
    """Write the whole report, with `others` as one study, and print its table. Returns the folder written."""
    if others and out is None:
        raise UserError("several studies: name a folder for their report with --out; the studies are only read")
    study = load_studies((root, *others))
    estimates = estimate(study, trial_scores(study))
    tests = rank_tests(study, estimates)
    seen = confounds.confounds(study, estimates)
    table = rank_table(study, estimates, tests, confounds.sentence(seen, tests))
    found = differences(study, estimates)
    told = [sentence(answer) for answer in answers(study, estimates)]
    spectra, cuts = study_spectra(study, estimates), truncation.truncations(study, estimates)
    place = study.folder.report if out is None else out
    drawn = draw(study, estimates, found, tests, spectra, cuts, seen, place)
    for name, text in texts(study, estimates, table, found, tests, spectra, cuts, told, drawn).items():
        _write_or_remove(place / name, text)
    for name, text in confounds.tables(seen).items():
        _write_or_remove(place / name, text)
    write_scores(study, estimates.scores, place / "scores.csv")
    page = write_page(study, estimates, table, found, tests, told, place, drawn, cuts)
    _tell(table, found, tests, cuts, told, place, drawn)
    print(f"page:    {page}")
    return place


def texts(
    study: Study,
    estimates: Estimates,
    table: Table,
    found: tuple[Difference, ...],
    tests: tuple[RankTests, ...],
    spectra: Spectra,
    cuts: Cuts,
    told: Sequence[str],
    drawn: Sequence[str],
) -> dict[str, str | None]:
    """File name -> content of everything that is not a picture; None for what there is nothing to say about."""
    return {
        "rank_table.csv": rank_csv(estimates, plateaus(study, estimates)),
        "rank_table.md": markdown(table),
        "rank_table.tex": latex(table),
        "further_scores.md": None if table.further is None else markdown(table.further),
        "differences.csv": differences_csv(found),
        "spectra.csv": spectra_csv(estimates, spectra),
        "truncation.csv": truncation.as_csv(cuts) if cuts else None,
        "tests.csv": ranktests.as_csv(tests),
        "summary.md": summary(study, table, found, tests, cuts, told, drawn),
    }


def _write_or_remove(path: Path, text: str | None) -> None:
    """A file of an earlier report that this one has nothing for would pass for a part of it."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as temporary:
        temporary.write_text(text)


def summary(
    study: Study,
    table: Table,
    found: tuple[Difference, ...],
    tests: tuple[RankTests, ...],
    cuts: Cuts,
    told: Sequence[str],
    drawn: Sequence[str],
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
    if ranked := ranktests.sentences(tests):
        parts.append(ranktests.heading(tests) + ":\n\n" + "\n".join(f"- {line}" for line in ranked))
    if cut := truncation.sentences(cuts):
        parts.append(truncation.heading(cuts) + ":\n\n" + "\n".join(f"- {line}" for line in cut))
    parts += [f"![{name}]({name}.png)" for name in drawn]
    lines = protocol_lines(study)
    if lines:
        parts.append("Protocols as recorded by the trials:\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"


def draw(
    study: Study,
    estimates: Estimates,
    found: tuple[Difference, ...],
    tests: tuple[RankTests, ...],
    spectra: Spectra,
    cuts: Cuts,
    seen: confounds.Confounds,
    place: Path,
) -> list[str]:
    """Write what can be drawn, remove what an earlier report drew and this cannot. Returns the names."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a reader's own matplotlibrc says
        matplotlib.rcParams.update(figures.STYLE)
        made: dict[str, Figure | None] = {
            "quality_vs_rank": _quality(study, estimates),
            "differences": _differences(study, found),
            "learning_curves": _curves(study, estimates),
            "spectra": _under_banner(study, spectra_figure(estimates, spectra)),
            "truncation": _under_banner(study, truncation_figure(cuts)),
            "contact_sheet": _sheet(study, estimates),
            **{
                name: _under_banner(study, figure)
                for name, figure in confounds.drawings(study, estimates, found, tests, seen).items()
            },
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


def _under_banner(study: Study, figure: Figure | None) -> Figure | None:
    if figure is not None:
        figures.say_above(figure, _above(study))
    return figure


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
    figure = Figure(layout="constrained")
    handles = figures.learning_curves(list(figure.subplots(1, 2)), study, estimates)
    across = 4 if len(series_of(estimates.rows)) > 1 else 6  # the name of a series takes more room than a rank
    figure.set_size_inches(figures.WIDTH, 2.75 + 0.16 * math.ceil(len(handles) / across))
    figure.legend(handles=handles, loc="outside lower center", ncols=across, frameon=False)
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


def _tell(
    table: Table,
    found: tuple[Difference, ...],
    tests: tuple[RankTests, ...],
    cuts: Cuts,
    told: Sequence[str],
    place: Path,
    drawn: Sequence[str],
) -> None:
    if table.banner:
        print(table.banner)
    if table.missing:
        print("missing trials:", *(f"  {line}" for line in table.missing), sep="\n")
    print_table(table)
    if found:
        print(textwrap.fill(heading(found), 100))
        print(*(f"  {line}" for line in sentences(found)), sep="\n")
    if ranked := ranktests.sentences(tests):
        print(textwrap.fill(ranktests.heading(tests), 100))
        print(*(f"  {line}" for line in ranked), sep="\n")
    if cut := truncation.sentences(cuts):
        print(textwrap.fill(truncation.heading(cuts), 100))
        print(*(f"  {line}" for line in cut), sep="\n")
    for line in told:
        print(textwrap.fill(line, 100, subsequent_indent="  "))
    print(f"table:   {place / 'rank_table.md'}")
    for name in drawn:
        print(f"figure:  {place / name}.png")


if __name__ == "__main__":
    raise SystemExit(main())
