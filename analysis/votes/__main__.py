"""Ask people which clips they prefer, and read what they answer.

python -m analysis.votes make studies/quick --raters 6 --minutes 15    writes votes/page-HASH.html, to send
python -m analysis.votes read studies/quick answers/                   reads the files that people sent back
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.votes.answers import read_ballots
from analysis.votes.page import make
from analysis.votes.results import as_csv, as_markdown, figure, result, sentences
from cinelora.core.cli import Parser, exit_status
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
        asking.add_argument("--seed", type=int, default=0, help="of order and sides; another for another round")
        reading = commands.add_parser("read", help="read answers, write report/votes.{csv,md,png}")
        reading.add_argument("study", type=Path)
        reading.add_argument("answers", type=Path, nargs="+", help="votes-*.json, or folders of them")
        options = parser.parse_args(arguments)
        _make(options) if options.command == "make" else _read(options)

    return exit_status(command)


def _make(options: argparse.Namespace) -> None:
    page, lines = make(estimate(load_study(options.study)), options.raters, options.minutes, options.seed)
    for line in lines:
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))
    print(
        f"page:    {page} ({page.stat().st_size / 1e6:.1f} MB); send it with a number from 1 to {options.raters} each"
    )
    key = page.with_name(page.name.replace("page-", "key-")).with_suffix(".json")
    print(f"key:     {key}; keep it to yourself")


def _read(options: argparse.Namespace) -> None:
    study = load_study(options.study)
    found = result(estimate(study), read_ballots(study.folder, options.answers))
    folder = study.folder.report
    for name, text in {"votes.csv": as_csv(found), "votes.md": as_markdown(found, study.name)}.items():
        with whole_file(folder / name) as path:
            path.write_text(text, "utf-8", "backslashreplace")
    with whole_file(folder / "votes.png") as path:
        figure(found).savefig(path, dpi=200, metadata={"Software": None})
    for line in sentences(found):
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "))
    print(f"table:   {folder / 'votes.md'}")
    print(f"figure:  {folder / 'votes.png'}")


if __name__ == "__main__":
    raise SystemExit(main())
