"""What `adapters=` and `clips=` name: a table with a line for each LoRA file or folder of clips, or a folder of files.

In: FILE.csv, FILE.yaml or a folder. Out: rows, each with what is said of its file; nothing of the files is read yet.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinelora.adopt.read import PICKLES
from cinelora.adopt.settings import PEFT_CONFIG
from cinelora.core.cli import UserError
from cinelora.data.dataset import files_below

SUFFIX = ".safetensors"
TABLES = (".csv", ".yaml", ".yml")
SEEDS = 2**63  # a number is below it
LISTED = 5  # other files of a folder that a remark names


@dataclass(frozen=True)
class Table:
    """The form of a list. `columns`: the first is the path of `what`."""

    option: str
    columns: tuple[str, ...]
    what: str
    least_rank: int


ADAPTERS = Table("adapters", ("path", "rank", "alpha", "seed", "label", "trainer", "notes"), "the LoRA file", 1)
CLIPS = Table("clips", ("folder", "rank", "seed", "label", "trainer", "notes"), "the folder of the clips", 0)


@dataclass(frozen=True)
class Listed:
    """One line. `place`: where it is named; None and "": not said."""

    place: str
    path: Path
    rank: int | None = None
    alpha: float | None = None
    seed: int | None = None
    label: str = ""
    trainer: str = ""
    notes: str = ""


def listed(source: Path, table: Table = ADAPTERS) -> tuple[list[Listed], list[str]]:
    """(rows, remarks) of a table or a folder of LoRA files. UserError: it is neither, or a cell cannot be read."""
    if source.is_dir() and table is ADAPTERS:
        return _of_folder(source)
    place, columns = f"{table.option}={source}", ", ".join(table.columns)
    if source.suffix.lower() not in TABLES:
        of_files = "is neither a folder of LoRA files nor a .csv or .yaml list of them"
        raise UserError(f"{place}: {of_files if table is ADAPTERS else f'give a .csv or .yaml list of {columns}'}")
    if source.exists() and not source.is_file():
        raise UserError(f"{place}: is no file; give a .csv or .yaml list of {columns}")
    try:
        text = source.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{place}: cannot be read ({error}); give a table in UTF-8") from error
    lines = (_csv if source.suffix.lower() == ".csv" else _yaml)(place, table, text)
    rows = [_row(f"{place} {line}", source.parent, table, cells) for line, cells in lines]
    if not rows:
        raise UserError(f"{place}: lists no {'file' if table is ADAPTERS else 'folder'}; its columns are {columns}")
    return rows, []


def _of_folder(folder: Path) -> tuple[list[Listed], list[str]]:
    """All files below the folder that end in .safetensors, by name; the others are named in a remark."""
    files = sorted(files_below(folder))
    for path in files:
        _printable(str(folder), "file", path.name)
    pickles = [path for path in files if path.suffix.lower() in PICKLES]
    rows = [Listed(str(path), path) for path in files if path.suffix.lower() == SUFFIX]
    rows = rows or [Listed(str(path), path) for path in pickles]  # reading says how to convert them
    if not rows:
        raise UserError(f"adapters={folder}: holds no {SUFFIX} file; give the folder of the LoRA files, or a table")
    other = [path.name for path in files if path.suffix.lower() != SUFFIX and path.name != PEFT_CONFIG]
    more = f" and {len(other) - LISTED} more" if len(other) > LISTED else ""
    remark = f"adapters={folder}: {len(other)} other files are left out: {', '.join(other[:LISTED])}{more}"
    return rows, [remark] * bool(other)


def _csv(place: str, table: Table, text: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        while names and not names[-1]:  # spreadsheets end lines with commas
            names.pop()
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UserError(f"{place}: has two columns {twice[0]}; keep one")
        if names and table.columns[0] not in names:
            remedy = "separate them by commas" if any(mark in name for name in names for mark in ";\t") else "name one"
            raise UserError(f"{place}: line 1 names no column {table.columns[0]}; {remedy}: {', '.join(table.columns)}")
        reader.fieldnames = names
        for cells in reader:
            if any(cell.strip() for cell in cells.pop(None, None) or ()):
                remedy = "quote one that holds a comma"
                raise UserError(f"{place} line {reader.line_num}: has more cells than the head; {remedy}")
            yield f"line {reader.line_num}", cells
    except csv.Error as error:
        raise UserError(f"{place} line {reader.line_num}: {error}; close the quote, or write quotes twice") from error


def _yaml(place: str, table: Table, text: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    import yaml

    try:
        entries = yaml.safe_load(text) or []
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise UserError(f"{place}: is no YAML ({' '.join(str(error).split())}); mend it") from error
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise UserError(f"{place}: must be a list of entries, each with `{table.columns[0]}:`")
    yield from ((f"entry {number}", each) for number, each in enumerate(entries, start=1))


def _row(place: str, folder: Path, table: Table, cells: Mapping[Any, Any]) -> Listed:
    """Paths are relative to the table."""
    if odd := [str(name) for name in cells if name not in table.columns]:
        raise UserError(f"{place}: {odd[0]}: unknown column; there are {', '.join(table.columns)}")
    said: dict[str, Any] = {
        name: str(value).strip() for name, value in cells.items() if value is not None and str(value).strip()
    }
    key = table.columns[0]
    if key not in said:
        raise UserError(f"{place}: {key} is empty; give {table.what}")
    numbers: dict[str, Any] = {}
    for name, kind, least, what in (
        ("rank", int, table.least_rank, f"a whole number, {table.least_rank} or more"),
        ("seed", int, 0, "a whole number, 0 or more and below 2**63"),
        ("alpha", float, 0, "a number above 0"),
    ):
        if (value := said.pop(name, None)) is None:
            continue
        try:
            numbers[name] = kind(value)
        except ValueError:
            numbers[name] = -1
        if not least <= numbers[name] < SEEDS or (name == "alpha" and not numbers[name]):
            raise UserError(f"{place}: {name}={value}: must be {what}, or left empty")
    for name, value in said.items():
        _printable(place, name, value)
    path = Path(os.path.abspath(folder / said.pop(key)))  # a link keeps its own name: its settings are next to it
    return Listed(place, path, **numbers, **said)


def _printable(place: str, name: str, value: str) -> None:
    """UserError for line breaks and control characters, which tables and terminals cannot show."""
    if not value.isprintable():
        raise UserError(f"{place}: {name} {value!r} holds characters that cannot be shown; write it anew")
