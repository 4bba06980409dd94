"""Clips in two folders, found, paired, inspected and read: video files, or folders of numbered images.

In: folders, searched to their depth. Out: uint8 RGB frames (T, H, W, 3), levels 0..255, all of one form.
Nothing is resized, resampled or cut unless `ReadOptions` asks for it: clips that differ are refused, by name, with the
option that would make them alike. UserError: a file cannot be read, a numbered image is missing, a name is not unique.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cinelora.core.cli import UserError
from cinelora.core.config import Resize
from cinelora.data.video import TIME_TOLERANCE_SECONDS, decode_window, probe, read_all, read_image, resize_rgb

Frames = NDArray[np.uint8]
OnProgress = Callable[[str, int, int], None]  # (stage, done, total)

VIDEOS = frozenset({".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
IMAGES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
FPS_TOLERANCE = 0.01  # 23.976 and 24 pass, 24 and 25 do not; containers round the times of short clips
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Clip:
    """A video file, or a folder of `images` in order. `name` is its path below the folder, without ending."""

    name: str
    path: Path
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Size in pixels, number of frames, seconds on screen and frames per second (None: images carry no time)."""

    height: int
    width: int
    frames: int
    seconds: float | None
    fps: float | None


@dataclass(frozen=True)
class ReadOptions:
    """How to read clips; None: as they are. `frames` counts scored frames, without a dropped first one."""

    frames: int | None = None
    size: tuple[int, int] | None = None  # height, width
    resize: Resize = Resize.squash
    fps: float | None = None
    dropped: int = 0  # 1: frame 0 is not scored


@dataclass(frozen=True)
class Form:
    """Shape and rate of every clip once read; `frames` includes `dropped` first ones; `fps` None: unknown."""

    height: int
    width: int
    frames: int
    fps: float | None
    dropped: int


@dataclass(frozen=True)
class Clips:
    """Both folders, inspected. `unpaired` says why they do not match; "" means row i of both belong together."""

    generated: tuple[Clip, ...]
    reference: tuple[Clip, ...]
    form: Form
    unpaired: str
    skipped: tuple[dict[str, str], ...]  # path and reason of each clip that cannot be read
    timeless: int  # folders of images, which carry no time

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.generated), len(self.reference)


def gather(generated: Path, reference: Path, reading: ReadOptions, skip_bad: bool, on_progress: OnProgress) -> Clips:
    """The clips of both folders in one form, row i of both a pair where names match.

    UserError: as `find_clips`, `inspect_clips`, `common_form`; fewer than 2 clips in a folder.
    """
    ours, theirs = find_clips(generated), find_clips(reference)
    theirs, unpaired = pair_up(ours, theirs)
    our_facts, our_bad = inspect_clips(ours, skip_bad, partial(on_progress, "looking at generated:"))
    their_facts, their_bad = inspect_clips(theirs, skip_bad, partial(on_progress, "looking at reference:"))
    if unpaired:
        ours, theirs = tuple(our_facts), tuple(their_facts)
    else:  # a pair is left out whole
        whole = [(a, b) for a, b in zip(ours, theirs, strict=True) if a in our_facts and b in their_facts]
        ours, theirs = tuple(a for a, _ in whole), tuple(b for _, b in whole)
    for folder, clips in ((generated, ours), (reference, theirs)):
        if len(clips) < 2:
            raise UserError(f"{folder}: {len(clips)} clip(s) to score; a set needs 2 or more")
    facts = [*((clip, our_facts[clip]) for clip in ours), *((clip, their_facts[clip]) for clip in theirs)]
    timeless = sum(each.fps is None for _, each in facts)
    return Clips(ours, theirs, common_form(facts, reading), unpaired, (*our_bad, *their_bad), timeless)


def pair_up(generated: Sequence[Clip], reference: tuple[Clip, ...]) -> tuple[tuple[Clip, ...], str]:
    """The reference clips in the order of the generated ones of their names, or as they are and why they do not pair.

    Names are paths below the folder without ending; where those differ, file stems, if no stem is there twice.
    """
    reason = ""
    for key in (lambda clip: clip.name, lambda clip: clip.name.rsplit("/", 1)[-1]):
        ours, theirs = {key(clip): clip for clip in generated}, {key(clip): clip for clip in reference}
        if ours.keys() == theirs.keys() and len(ours) == len(generated) and len(theirs) == len(reference):
            return tuple(theirs[name] for name in ours), ""
        odd = sorted(ours.keys() ^ theirs.keys())
        side = "generated" if odd and odd[0] in ours else "reference"
        reason = reason or (f"{side} clip {odd[0]} has none of its name" if odd else "names are not unique")
    return reference, reason


def find_clips(folder: Path) -> tuple[Clip, ...]:
    """Every clip below `folder`, sorted by name; hidden files and files that are neither video nor image are ignored.

    A folder that holds images is one clip. UserError: no such folder, none found, videos and images in one folder, one
    name twice, images without numbers. A gap in the numbers is found by `inspect_clips`, so that it can be skipped.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a folder of videos, or of folders of numbered images")
    clips: dict[str, Clip] = {}
    for place, _, names in os.walk(folder):
        for clip in _clips_in(Path(place), folder, names):
            other = clips.setdefault(clip.name, clip)
            if other is not clip:
                raise UserError(f"{clip.path} and {other.path}: two clips of one name; rename or remove one")
    if not clips:
        endings = " ".join(sorted(VIDEOS))
        raise UserError(f"{folder}: no clips there; give videos ({endings}) or folders of numbered images")
    return tuple(clips[name] for name in sorted(clips))


def inspect_clips(
    clips: Sequence[Clip], skip_bad: bool, on_progress: Callable[[int, int], None]
) -> tuple[dict[Clip, Facts], list[dict[str, str]]]:
    """Facts of every clip, by decoding it whole, so that a damaged file is found now and not after hours of work.

    `on_progress(done, total)` is called after each. UserError: a clip cannot be read; with `skip_bad` it is listed.
    """
    good, bad = {}, []
    for index, clip in enumerate(clips):
        try:
            good[clip] = facts_of(clip)
        except UserError as error:
            if not skip_bad:
                raise UserError(f"{error}; or leave such clips out with --skip-bad") from error
            bad.append({"path": str(clip.path), "reason": str(error)})
        on_progress(index + 1, len(clips))
    return good, bad


def facts_of(clip: Clip) -> Facts:
    """UserError: the file does not decode, or images are missing, damaged or of two sizes."""
    if not clip.images:
        info = probe(clip.path)
        return Facts(info.height, info.width, info.frames, info.seconds, info.fps)
    _check_numbers(clip)
    shapes = [read_image(path).shape[:2] for path in clip.images]
    for path, shape in zip(clip.images, shapes, strict=True):
        if shape != shapes[0]:
            sizes = f"{shape[0]}x{shape[1]} pixels, {clip.images[0].name} has {shapes[0][0]}x{shapes[0][1]}"
            raise UserError(f"{path}: {sizes}; the frames of a clip must be of one size")
    height, width = shapes[0]
    return Facts(height, width, len(shapes), None, None)


def common_form(clips: Sequence[tuple[Clip, Facts]], reading: ReadOptions) -> Form:
    """The form in which all `clips` are read. UserError: they differ where `reading` has no rule, or are too short."""
    _check_alike(clips, reading)
    first = clips[0][1]
    height, width = reading.size or (first.height, first.width)
    counts = [(clip, _available(facts, reading.fps)) for clip, facts in clips]
    wanted = counts[0][1] if reading.frames is None else reading.frames + reading.dropped
    for clip, count in counts:
        if reading.frames is None and count != wanted:
            raise UserError(
                f"{clips[0][0].path} has {wanted} frames, {clip.path} has {count}; "
                f"give --frames N to score the first N of each"
            )
        if count < wanted:
            dropped = " after the dropped first" if reading.dropped else ""
            raise UserError(
                f"{clip.path}: {count} frames, --frames asks for {reading.frames}{dropped}; give a smaller --frames"
            )
    if wanted - reading.dropped < 1:
        raise UserError(f"{clips[0][0].path}: {wanted} frame(s), none left to score; do not drop the first")
    known = next((facts.fps for _, facts in clips if facts.fps is not None), None)
    return Form(height, width, wanted, reading.fps or known, reading.dropped)


def read_clip(clip: Clip, form: Form, reading: ReadOptions) -> Frames:
    """uint8 (T, H, W, 3) in `form`: the first frames of the clip, or those on screen at reading.fps.

    Images carry no time: they are taken as they come. Resizing is Pillow's Lanczos, as in `video.resize_rgb`.
    """
    if reading.fps is not None and not clip.images:
        return decode_window(clip.path, 0.0, reading.fps, form.frames, form.height, form.width, reading.resize)
    if clip.images:
        frames = np.stack([read_image(path) for path in clip.images[: form.frames]])
    else:
        frames = read_all(clip.path, form.frames)
    return np.stack([resize_rgb(frame, form.height, form.width, reading.resize) for frame in frames])


def _clips_in(place: Path, folder: Path, names: Sequence[str]) -> Iterator[Clip]:
    """The clips directly in `place`."""
    shown = sorted(name for name in names if not name.startswith("."))
    videos = [place / name for name in shown if Path(name).suffix.lower() in VIDEOS]
    images = [place / name for name in shown if Path(name).suffix.lower() in IMAGES]
    if videos and images:
        raise UserError(f"{place}: holds videos and images ({videos[0].name}, {images[0].name}); keep one kind")
    for path in videos:
        yield Clip(path.relative_to(folder).with_suffix("").as_posix(), path)
    if images:
        name = place.relative_to(folder).as_posix() if place != folder else folder.name
        yield Clip(name, place, tuple(sorted(images, key=_number)))


def _number(path: Path) -> int:
    found = _NUMBER.search(path.stem)
    if found is None:
        raise UserError(f"{path}: no number at the end of its name; number the frames of a clip, or move it elsewhere")
    return int(found.group(1))


def _check_numbers(clip: Clip) -> None:
    for before, after in zip(clip.images[:-1], clip.images[1:], strict=True):
        step = _number(after) - _number(before)
        if step == 0:
            raise UserError(f"{clip.path}: {before.name} and {after.name} have one number; keep one")
        if step > 1:
            raise UserError(
                f"{clip.path}: frame {_number(before) + 1} is missing between {before.name} and {after.name}; "
                "number the frames without gaps"
            )


def _check_alike(clips: Sequence[tuple[Clip, Facts]], reading: ReadOptions) -> None:
    """UserError naming the first clip and the first that differs from it in size or rate."""
    lead, first = clips[0]
    timed = [(clip, facts.fps) for clip, facts in clips if facts.fps is not None]
    for clip, facts in clips:
        if reading.size is None and (facts.height, facts.width) != (first.height, first.width):
            raise UserError(
                f"{lead.path} is {first.height}x{first.width} pixels, {clip.path} is {facts.height}x{facts.width}; "
                "give --size HxW, and --resize squash or crop"
            )
    for clip, fps in timed:
        if reading.fps is None and abs(fps - timed[0][1]) > FPS_TOLERANCE * timed[0][1]:
            raise UserError(
                f"{timed[0][0].path} has {timed[0][1]:g} frames per second, {clip.path} has {fps:g}; "
                "give --fps F to resample both by time"
            )


def _available(facts: Facts, fps: float | None) -> int:
    """Frames that can be read, at `fps` if given: those whose time lies before the end."""
    if fps is None or facts.seconds is None:
        return facts.frames
    return math.ceil((facts.seconds - TIME_TOLERANCE_SECONDS) * fps)
