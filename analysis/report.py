"""Study folder -> report folder: the rank table, figures, differences to the base, tests, all scores, one page.

In: a study folder, finished or half finished. Out, in its folder `report`: index.html (everything on one page),
summary.md, answer.csv, rank_table.{csv,md,tex}, further_scores.md, differences.csv, tests.csv, spectra.csv,
truncation.csv, votes.{csv,md}, noise_floor.csv, fvd_vs_n.csv, scores.csv, and NAME.{png,pdf} of each figure of
`analysis/figures/draw.py`. What the study has nothing for is left out. Each file is whole or absent, and the same study
gives the same bytes. No torch, no ray, no network.
Run:  python -m analysis.report studies/tiny            (or `make figures STUDY=studies/tiny`)
      python -m analysis.report studies/tiny --out /tmp/report
      python -m analysis.report studies/a studies/b --out /tmp/report      (one report of several, which are only read)
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from analysis.figures.draw import draw
from analysis.page.page import write_page
from analysis.statistics import answer, differences, noise, rank_tests, reliability, spectra, steadiness, truncation
from analysis.statistics.findings import Findings, answer_lines, find
from analysis.study import costs
from analysis.study.merge import load_studies
from analysis.tables.captions import protocol_lines
from analysis.tables.csv_files import rank_csv, write_scores
from analysis.tables.markdown_latex import latex, markdown, markdown_body, plain_markdown, terminal
from analysis.tables.rank_table import Table, rank_table
from analysis.votes import results
from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.files import check_writable, whole_file

WIDTH = 100  # characters of printed text


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = Parser(prog="python -m analysis.report", description="Rank table and figures of a study.")
        parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY", help="folder; several make one report")
        parser.add_argument("--out", type=Path, default=None, help="default: STUDY/report; must be given for several")
        options = parser.parse_args(arguments)
        report(options.studies, options.out)

    return exit_status(command)


def report(roots: Sequence[Path], out: Path | None = None) -> Path:
    """Write the whole report, of several studies as one, and print its table. Returns the folder written."""
    if len(roots) > 1 and out is None:
        raise UserError("several studies: name a folder for their report with --out; the studies are only read")
    if out is not None:
        check_writable("--out", out)
    study = load_studies(roots)
    folder = study.folder.report if out is None else out
    check_writable("report folder", folder)
    findings = find(study)
    table = rank_table(findings)
    print(printed(findings, table), flush=True)
    drawn = draw(findings, folder)
    for name, text in texts(findings, table, drawn).items():
        if text is None:  # a file of an earlier report would pass for a part of this one
            (folder / name).unlink(missing_ok=True)
            continue
        with whole_file(folder / name) as path:
            path.write_text(text, "utf-8", "backslashreplace")
    write_scores(findings.estimates, folder / "scores.csv")
    page = write_page(findings, table, drawn, folder)
    print(f"table:   {folder / 'rank_table.md'}")
    for name in drawn:
        print(f"figure:  {folder / name}.png")
    print(f"page:    {page}")
    return folder


def texts(findings: Findings, table: Table, drawn: Sequence[str]) -> dict[str, str | None]:
    """File name -> content of what is written as a whole; None for what the study has nothing for."""
    cuts = findings.truncations
    return {
        "rank_table.csv": rank_csv(findings.estimates, findings.plateaus, findings.votes),
        "rank_table.md": markdown(table),
        "rank_table.tex": latex(table),
        "further_scores.md": None if table.further is None else markdown(table.further),
        "answer.csv": answer.as_csv(findings.answers),
        "differences.csv": differences.differences_csv(findings.differences),
        "spectra.csv": spectra.spectra_csv(findings.estimates, findings.spectra),
        "truncation.csv": truncation.as_csv(cuts) if cuts else None,
        "tests.csv": rank_tests.as_csv(findings.tests),
        "noise_floor.csv": noise.as_csv(findings.halves, findings.reseeds),
        "fvd_vs_n.csv": reliability.as_csv(findings.sizes),
        "votes.csv": results.as_csv(findings.votes) if findings.votes else None,
        "votes.md": results.as_markdown(findings.votes, findings.study.name) if findings.votes else None,
        "summary.md": summary(findings, table, drawn),
    }


def summary(findings: Findings, table: Table, drawn: Sequence[str]) -> str:
    """One page of Markdown: what is missing first, then the answer, the table, the figures, the recorded protocols."""
    study = findings.study
    parts = [f"# {study.name}"]
    if table.banner:
        parts.append(f"**{table.banner}**")
    parts.append(f"{len(study.trials)} of {len(study.specs)} planned trials have finished.")
    if table.missing:
        parts.append("Missing:\n\n" + _bullets(table.missing))
    if answers := answer_lines(findings):
        parts.append(_bullets(answers))
    if cost := costs.sentence(findings.costs):
        parts.append(f"What it cost: {cost}")
    parts.append(markdown_body(table))
    parts += [f"{heading}:\n\n{_bullets(lines)}" for heading, lines in sections(findings)]
    if cost:
        parts.append("What it cost, row by row:\n\n" + plain_markdown(*costs.table(findings.costs)))
    parts += [f"![{name}]({name}.png)" for name in drawn]
    if lines := protocol_lines(study):
        parts.append("Protocols as recorded by the trials:\n\n" + _bullets(lines))
    return "\n\n".join(parts) + "\n"


def sections(findings: Findings) -> list[tuple[str, list[str]]]:
    """Heading and lines of the comparisons that the study allows."""
    found = (
        (differences, findings.differences),
        (rank_tests, findings.tests),
        (truncation, findings.truncations),
    )
    shown = findings.estimates.primary.compared
    lines = ((module.heading, records, module.sentences(records, shown)) for module, records in found)
    steady = steadiness.sentences(findings.estimates, findings.differences, findings.tests, findings.matched)
    first = [(steadiness.heading(findings.estimates), steady)] if steady else []
    shared = [note] if (note := rank_tests.rates_note(findings.estimates)) else []
    return (
        first
        + [
            (heading(records), [*own, *(shared if records is findings.tests else [])])
            for heading, records, own in lines
            if own
        ]
        + ([(results.heading(), results.sentences(findings.votes))] if findings.votes else [])
    )


def printed(findings: Findings, table: Table) -> str:
    """What is missing, the answer, the cost, the table and the comparisons for a terminal."""
    parts = [table.banner] if table.banner else []
    if table.missing:
        parts += ["missing trials:", *(f"  {line}" for line in table.missing)]
    parts += [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in answer_lines(findings)]
    if cost := costs.sentence(findings.costs):
        parts.append(textwrap.fill(f"cost: {cost}", WIDTH, subsequent_indent="  "))
    parts.append(terminal(table, WIDTH).rstrip("\n"))
    for heading, lines in sections(findings):
        parts += [textwrap.fill(heading, WIDTH), *(f"  {line}" for line in lines)]
    return "\n".join(parts)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
