"""Which clips a dataset folder holds, with their captions. Standard library only.

In: a folder in one of three layouts, tried in this order:
  metadata.csv    header with a video column (video, file_name, file_path, video_path) and a caption column
                  (prompt, caption, text); an optional column `shot` names the source shot of a row
  metadata.jsonl  the same keys, one JSON object a line
  pairs           clip.mp4 beside clip.txt, in any subfolder
Links to files and folders are followed; what a metadata file names must lie under the folder.
Out: `Clip` records sorted by path, one SHA-256 over their contents, and the videos that are no clip.
Raises UserError for every fault of the folder that the user has to correct.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.files import content_hash

VIDEO_KEYS = ("video", "file_name", "file_path", "video_path")  # the first one present is read
CAPTION_KEYS = ("prompt", "caption", "text")
SHOT_KEY = "shot"
SPLIT_KEY = "split"
SPLITS = ("train", "heldout", "other")
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp")
)
ANIMATIONS = frozenset((".gif", ".apng", ".webp"))
TABLES = ("metadata.csv", "metadata.jsonl")  # the first one present is read


@dataclass(frozen=True)
class Clip:
    """One video file: POSIX path under the dataset folder, caption, source shot and split (None: not named).

    Split "other" is neither trained on nor generated: a second domain whose loss measures forgetting.
    """

    video: str
    caption: str
    shot: str | None
    split: str | None = None
    source: str = field(default="", compare=False)  # of the caption, for messages: its file, or table and line


def read_clips(root: Path) -> tuple[Clip, ...]:
    """The clips under `root`, sorted by path, each checked to exist inside `root` and to have a caption.

    Raises UserError for a missing or empty folder, no known layout, a missing column, a blank caption,
    a missing video, a path that leaves `root`, and a video listed twice.
    """
    if not root.is_dir():
        raise UserError(f"data.path={root}: no such folder; give the folder that holds the clips")
    if not any(root.iterdir()):
        raise UserError(f"data.path={root}: the folder is empty; put clips and metadata.csv into it")
    try:
        listed = list(_layout(root))
    except (csv.Error, ValueError, RecursionError, OSError) as error:
        raise UserError(f"data.path={root}: its metadata cannot be read ({error}); correct the file") from error
    clips: dict[Path, Clip] = {}
    for where, clip in listed:
        resolved = (root / clip.video).resolve()
        if resolved in clips:
            raise UserError(
                f"{where}: video={clip.video} is the same file as {clips[resolved].video}, listed before; "
                "keep one of them"
            )
        clips[resolved] = clip
    if not clips:
        raise UserError(f"data.path={root}: no clips listed; add rows to the metadata file")
    _require_all_or_none(root, clips.values())
    return tuple(sorted(clips.values(), key=lambda clip: clip.video))


def unlisted(root: Path, clips: Iterable[Clip]) -> dict[str, str]:
    """The other videos and metadata files under `root`, each with the reason why it is left out, sorted by path."""
    tables = [name for name in TABLES if (root / name).is_file()]
    listed = {(root / clip.video).resolve() for clip in clips}
    left_out = dict.fromkeys(tables[1:], f"{tables[0]} is read instead" if tables else "")
    for path in files_below(root):
        if path.suffix.lower() in ANIMATIONS:
            left_out[path.relative_to(root).as_posix()] = "an animated image; convert it to .mp4"
        elif path.suffix.lower() in VIDEO_SUFFIXES and path.resolve() not in listed:
            left_out[path.relative_to(root).as_posix()] = f"not in {tables[0]}"
    return dict(sorted(left_out.items()))


def _require_all_or_none(root: Path, clips: Collection[Clip]) -> None:
    """A split is given for every clip or for none, and a shot lies in one split."""
    by_shot: dict[str, str | None] = {}
    splits = Counter(clip.split for clip in clips)
    for clip in clips:
        if clip.shot is not None and by_shot.setdefault(clip.shot, clip.split) != clip.split:
            raise UserError(f"{clip.video}: shot={clip.shot} is in two splits; give one shot one split")
    if None in splits and len(splits) > 1:
        raise UserError(f"data.path={root}: some clips have a split and some have none; give all or none")
    if None not in splits and not {"train", "heldout"} <= splits.keys():
        found = ", ".join(f"{splits[split]} {split}" for split in SPLITS)
        raise UserError(
            f"data.path={root}: the split column must name some clips train and some heldout; it names {found}"
        )


def dataset_fingerprint(clips: Iterable[Clip], hashes: Mapping[str, str]) -> str:
    """SHA-256 over (path, file SHA-256, caption, shot, split) of every clip, in any order; 64 hex digits.

    `hashes`: SHA-256 of every video file, by `Clip.video`.
    """
    return content_hash(sorted([c.video, hashes[c.video], c.caption, c.shot or "", c.split or ""] for c in clips))


def _layout(root: Path) -> Iterator[tuple[str, Clip]]:
    """Pairs (file and line of the clip, for messages; the checked clip)."""
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        return _pairs(root)
    rows = _csv_rows(table) if table.suffix == ".csv" else _jsonl_rows(table)
    return ((where, _clip_of_row(root, where, row)) for where, row in rows)


def files_below(root: Path) -> Iterator[Path]:
    """Every file under `root`, also behind linked folders, each folder once.

    A name that begins with a dot is a half-written or a system file. Raises UserError for a name that is not UTF-8.
    """
    whole = root.resolve()
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        real = here.resolve()
        # A link to a folder in here leads to files that have their own names, or round in circles.
        if real in seen or (here != root and here.is_symlink() and real.is_relative_to(whole)):
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in names:
            if not name.startswith("."):
                _whole_text(name, f"{folder}/{name}", "rename the file")
                yield here / name


def _whole_text(value: str, where: str, remedy: str) -> str:
    """`value`; UserError where it holds bytes or halves of characters that cannot be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        shown, bad = (text.encode("ascii", "backslashreplace").decode() for text in (where, value[error.start]))
        raise UserError(f"{shown}: holds {bad}, which is not UTF-8 text; {remedy}") from error
    return value


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), restkey="", strict=True)
    columns = reader.fieldnames or ()
    _key_of(columns, VIDEO_KEYS, path.name, "video")
    _key_of(columns, CAPTION_KEYS, path.name, "caption")
    first = reader.line_num + 1
    try:
        for row in reader:
            where = f"{path.name} line {reader.line_num}"
            if "" in row:
                raise UserError(f"{where}: has more cells than the header; quote captions that hold a comma")
            _refuse_swallowed_rows(row, f"{path.name} line {first}")
            first = reader.line_num + 1
            yield where, row
    except csv.Error as error:
        raise UserError(f"{path.name} line {first}: {error}; close the quote, or write quotes twice") from error


def _refuse_swallowed_rows(row: Mapping[str, Any], where: str) -> None:
    """Raises UserError where a quote that is not closed has made the next rows part of a cell."""
    for cell in filter(None, row.values()):
        for line in cell.splitlines()[1:]:
            name, comma, _ = line.partition(",")
            if comma and Path(name.strip('" ')).suffix.lower() in VIDEO_SUFFIXES:
                raise UserError(f"{where}: a cell goes on over the row {line[:60]!r}; close its quote")


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON ({error}); write one object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: not a JSON object; write e.g. {{...}} with video and prompt")
        yield where, row


def _pairs(root: Path) -> Iterator[tuple[str, Clip]]:
    videos = sorted(path for path in files_below(root) if path.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise UserError(f"data.path={root}: no metadata.csv, no metadata.jsonl, no videos; provide one of them")
    for path in videos:
        name = path.relative_to(root).as_posix()
        text = _spelled(path.with_suffix(".txt"))
        if not text.is_file():
            raise UserError(f"{name}: has no caption; write it into {text.name} or list it in metadata.csv")
        yield (
            name,
            Clip(
                _inside(root, name, name),
                _caption(_read_text(text), text.name),
                None,
                source=text.relative_to(root).as_posix(),
            ),
        )


def _clip_of_row(root: Path, where: str, row: dict[str, Any]) -> Clip:
    video = row[_key_of(row, VIDEO_KEYS, where, "video")]
    caption = row[_key_of(row, CAPTION_KEYS, where, "caption")]
    shot = row.get(SHOT_KEY)
    if not isinstance(video, str) or not video.strip():
        raise UserError(f"{where}: video={video!r} is not a path; name a file under the dataset folder")
    if shot is not None and not isinstance(shot, str):
        raise UserError(f"{where}: shot={shot!r} is not text; write the name of the shot in quotes")
    split = row.get(SPLIT_KEY) or None
    if split is not None and split not in SPLITS:
        raise UserError(
            f"{where}: split={split!r} is unknown; write one of {', '.join(SPLITS)}, or leave the column out"
        )
    path = _inside(root, video.strip(), where)
    return Clip(path, _caption(caption, where), (shot or "").strip() or None, split, where)


def _key_of(present: Collection[str], wanted: tuple[str, ...], where: str, what: str) -> str:
    for key in wanted:
        if key in present:
            return key
    remedy = "separate them by commas and name one" if any(";" in key or "\t" in key for key in present) else "name one"
    raise UserError(f"{where}: no {what} among the columns {sorted(set(present))}; {remedy} {' or '.join(wanted)}")


def _caption(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: caption={value!r} is blank or not text; write what the clip shows")
    return _whole_text(value.strip(), f"{where}: caption", "write it anew")


def _inside(root: Path, video: str, where: str) -> str:
    """`video` as a normal POSIX path under `root`; UserError where it leaves `root` or names no file.

    A file under `root` may be a link: it was put there by whoever made the folder.
    """
    _whole_text(video, f"{where}: video", "name the file anew")
    homes = [home for home in (root.absolute(), root.resolve()) if Path(os.path.normpath(video)).is_relative_to(home)]
    name = os.path.relpath(video, homes[0]) if homes else os.path.normpath(video)
    if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
        raise UserError(f"{where}: video={video} leaves the dataset folder {root}; copy or link the file into it")
    path = _spelled(root / name)
    if not path.is_file():
        raise UserError(f"{where}: video={video} is no file under {root}; correct or remove the row")
    return path.relative_to(root).as_posix()


def _spelled(path: Path) -> Path:
    """`path`, or the file of that name whose accents are stored in the other of Unicode's two forms."""
    forms = (path, *(path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD")))
    return next((form for form in forms if form.is_file()), path)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
