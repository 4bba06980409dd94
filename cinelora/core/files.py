"""Files that are whole or absent, and hashes of content. Standard library only."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError


def content_hash(value: Any, digits: int = 64) -> str:
    """SHA-256 of the canonical JSON of `value` (sorted keys, no spaces, no NaN), first `digits` hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def is_disk_full(error: BaseException) -> bool:
    """Also where a library wraps it: safetensors raises its own class that only names the error's number."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return full or "os error 28" in str(error) or "No space left on device" in str(error)


def file_sha256(path: Path) -> str:
    """SHA-256 of a whole file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_writable(name: str, folder: Path) -> None:
    """Raises UserError, naming the option `name`, unless files can be written in `folder`, which need not exist yet."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(f"{name} {folder}: cannot be written ({error.strerror}); name another place") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it into place on success, remove it on failure.

    Two writers of the same content-addressed file are safe: each has its own temporary name, the
    last rename wins, and both wrote the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; rename it into place on success, remove it on failure.

    With `replace`, a folder already at `path` is replaced. Without, it stays: of two writers of the same
    content the first wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        try:
            temporary.replace(path)
        except OSError:
            if replace or not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with one header line, in UTF-8 with \n at line ends, whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_json(path: Path) -> Any:
    """The content of a JSON file. UserError: it is not JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path}: not JSON ({error}); restore it from a copy, or remove it if it lies in the cache"
        ) from error
