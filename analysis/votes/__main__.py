"""Ask people which clips they prefer, and read what they answer.

python -m analysis.votes make studies/quick --raters 6 --minutes 15    writes votes/page-HASH.html, to send
python -m analysis.votes read studies/quick answers/                   takes in the files that people sent back
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from analysis.figures.draw import styled, write
from analysis.figures.votes import votes_figure
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.votes.answers import take
from analysis.votes.page import make
from analysis.votes.results import as_csv, as_markdown, find_votes, sentences
from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.files import whole_file

WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = Parser(prog="python -m analysis.votes", description="Ask people which clips they prefer.")
        commands = parser.add_subparsers(dest="command", required=True)
        asking = commands.add_parser("make", help="write the page")
        asking.add_argument("study", type=Path)
        asking.add_argument("--raters", type=int, default=6, help="lists on the page, one a rater (6)")
        asking.add_argument("--minutes", type=float, default=15, help="of each rater (15)")
        asking.add_argument("--clips", type=int, default=2, help="side by side, 2 to 4; 3 or 4 are put in order (2)")
        asking.add_argument("--seed", type=int, default=0, help="of order and sides; another for another round")
        reading = commands.add_parser("read", help="take in answers, write report/votes.{csv,md,png}")
        reading.add_argument("study", type=Path)
        reading.add_argument("answers", type=Path, nargs="+", help="votes-*.json, or folders of them")
        options = parser.parse_args(arguments)
        _make(options) if options.command == "make" else _read(options)

    return exit_status(command)


def _make(options: argparse.Namespace) -> None:
    page, lines = make(
        estimate(load_study(options.study)), options.raters, options.minutes, options.seed, options.clips
    )
    for line in lines:
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))
    print(
        f"page:    {page} ({page.stat().st_size / 1e6:.1f} MB); send it with a number from 1 to {options.raters} each"
    )
    key = page.with_name(page.name.replace("page-", "key-")).with_suffix(".json")
    print(f"key:     {key}; keep it to yourself")


def _read(options: argparse.Namespace) -> None:
    study = load_study(options.study)
    estimates = estimate(study)
    taken = take(study.folder, options.answers)
    found = find_votes(estimates)
    assert found is not None
    for line in sentences(found):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))
    if not found.preferences:
        raise UserError(f"{study.folder.root / 'votes'}: no answer counts; collect answers of more people")
    folder = study.folder.report
    with styled():
        write(votes_figure(found), folder / "votes.png", folder / "votes.pdf")
    for name, text in {"votes.csv": as_csv(found), "votes.md": as_markdown(found, study.name)}.items():
        with whole_file(folder / name) as path:
            path.write_text(text, "utf-8", "backslashreplace")
    print(f"answers: {len(taken)} files are now in {study.folder.root / 'votes'}; reports read them")
    print(f"table:   {folder / 'votes.md'}")
    print(f"figure:  {folder / 'votes.png'}")


if __name__ == "__main__":
    raise SystemExit(main())
