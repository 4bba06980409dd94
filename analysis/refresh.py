"""The report of a study, drawn only if the study, this code or the report itself changed since it was last drawn here.

In: a study folder. Out: its folder `report`, and what `analysis.report` prints, which is the same either way.
Run:  python -m analysis.refresh studies/quick            (`make sweep` ends with it; `make figures` always draws)
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.files import content_hash, read_json, write_json
from cinelora.core.paths import StudyFolder

RECORD = ".drawn.json"  # in the report folder
CODE = ("analysis", "cinelora", "sweeps")
LIBRARIES = ("av", "jinja2", "matplotlib", "numpy", "pandas", "pillow", "scipy")
NOT_READ = {
    "report",
    "wandb",
    "events.jsonl",
    ".lock",
}  # a sweep writes there though it has nothing to do, and then costs nothing


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = Parser(prog="python -m analysis.refresh", description="The report of a study, drawn if need be.")
        parser.add_argument("study", type=Path, metavar="STUDY", help="folder")
        refresh(parser.parse_args(arguments).study)

    return exit_status(command)


def refresh(root: Path) -> bool:
    """Draw the report unless nothing changed; returns whether it was drawn."""
    folder = StudyFolder(root).report
    before = inputs(root)
    try:
        record = read_json(folder / RECORD)
        current = record["inputs"] == before and record["outputs"] == outputs(folder)
    except (OSError, UserError, KeyError, TypeError):
        current = False
    if current:
        print(record["printed"], end="")
        return False
    from analysis.report import report  # seconds to import

    printed = Copied(sys.stdout)
    with redirect_stdout(printed):
        report([root])
    write_json(folder / RECORD, {"inputs": before, "outputs": outputs(folder), "printed": printed.getvalue()})
    return True


class Copied(io.StringIO):
    """Keeps what it passes on."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.stream.flush()


def inputs(root: Path) -> str:
    """Hash of what the report is made from: sizes and times of the files, since clips may be many gigabytes."""
    packages = Path(__file__).parents[1]
    code = [state for name in CODE for state in states(packages / name) if "__pycache__" not in state[0]]
    study = [
        state
        for path in (sorted(root.iterdir()) if root.is_dir() else ())
        if path.name not in NOT_READ and path.is_dir()
        for state in states(path)
    ]
    # Few and small; a sweep writes its plan again each time.
    texts = {path.name: path.read_bytes().hex() for path in sorted(root.glob("*.json"))}
    return content_hash([str(root), code, study, texts, [version(name) for name in LIBRARIES]])


def outputs(folder: Path) -> str:
    """Hash of the report's files as they lie there."""
    return content_hash([state for state in states(folder) if Path(state[0]).name != RECORD])


def states(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of change of every file."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found = path.stat()
            yield str(path), found.st_size, found.st_mtime_ns


if __name__ == "__main__":
    raise SystemExit(main())
