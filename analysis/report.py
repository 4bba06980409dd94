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
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from analysis.figures.draw import Cuts, Spectra, draw
from analysis.page.page import write_page
from analysis.statistics import rank_tests as ranktests
from analysis.statistics import reliability, truncation
from analysis.statistics.answer import answers, sentence
from analysis.statistics.differences import Difference, differences, differences_csv, heading, sentences
from analysis.statistics.plateau import plateaus
from analysis.statistics.rank_tests import RankTests, as_csv, rank_tests
from analysis.statistics.reliability import tables
from analysis.statistics.spectra import spectra_csv, study_spectra
from analysis.study.load import Study
from analysis.study.merge import load_studies
from analysis.study.rows import Estimates, estimate
from analysis.tables.captions import protocol_lines
from analysis.tables.formats import latex, markdown, print_table
from analysis.tables.rank_table import Table, rank_csv, rank_table, write_scores
from cinelora.core.cli import UserError
from cinelora.core.files import whole_file


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
    estimates = estimate(study)
    tests = rank_tests(estimates)
    seen = reliability.confounds(estimates)
    table = rank_table(study, estimates, tests, reliability.sentence(seen, tests))
    found = differences(estimates)
    told = [sentence(answer) for answer in answers(estimates)]
    spectra, cuts = study_spectra(estimates), truncation.truncations(estimates)
    place = study.folder.report if out is None else out
    drawn = draw(study, estimates, found, tests, spectra, cuts, seen, place)
    for name, text in texts(study, estimates, table, found, tests, spectra, cuts, told, drawn).items():
        _write_or_remove(place / name, text)
    for name, text in tables(seen).items():
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
        "rank_table.csv": rank_csv(estimates, plateaus(estimates)),
        "rank_table.md": markdown(table),
        "rank_table.tex": latex(table),
        "further_scores.md": None if table.further is None else markdown(table.further),
        "differences.csv": differences_csv(found),
        "spectra.csv": spectra_csv(estimates, spectra),
        "truncation.csv": truncation.as_csv(cuts) if cuts else None,
        "tests.csv": as_csv(tests),
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
