"""Finished clips as a trial: the clips of a folder, paired with the held-out windows by name.

In: a folder of videos, or of folders of numbered images, and the windows. Out: `Clip` by window id, their content hash,
and frames (T, H, W, 3) in the study's form. Nothing is resized, resampled or cut. UserError names the clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.config import DataConfig
from cinelora.core.files import content_hash, file_sha256
from cinelora.data.windows import Window
from cinelora.score.clips import FPS_TOLERANCE, Clip, Facts, Form, Frames, ReadOptions, facts_of, find_clips, read_clip

NAMED = 3  # clips that a message names


def paired(folder: Path, windows: Sequence[Window]) -> tuple[dict[str, Clip], list[str]]:
    """(clip by window id, names of clips that belong to no window). A clip bears the id of its window, or the file name
    of the window's video where that has one held-out window. UserError: a window has none, or two."""
    stems = Counter(Path(window.video).stem for window in windows)
    ids = {stem: window.window_id for window in windows if stems[stem := Path(window.video).stem] == 1}
    ids |= {window.window_id: window.window_id for window in windows}
    found: dict[str, Clip] = {}
    extra = []
    for clip in find_clips(folder):
        if (window_id := ids.get(clip.name.rsplit("/", 1)[-1])) is None:
            extra.append(clip.name)
        elif other := found.get(window_id):
            raise UserError(f"{folder}: {other.name} and {clip.name} are both of {window_id}; remove one")
        else:
            found[window_id] = clip
    if missing := [window.window_id for window in windows if window.window_id not in found]:
        others = f", has {some(extra)} of no held-out clip" if extra else ""
        raise UserError(f"{folder}: lacks {some(missing)}{others}; name each clip as its held-out clip, or add it")
    return found, extra


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def check_form(clip: Clip, data: DataConfig) -> None:
    """UserError: the clip does not decode, or its size, frames or rate are not those of the study."""
    facts: Facts = facts_of(clip)
    found, wanted = (facts.width, facts.height, facts.frames), (data.width, data.height, data.frames)
    if found != wanted:
        form, own = (f"{width}x{height} pixels and {frames} frames" for width, height, frames in (found, wanted))
        raise UserError(f"{clip.path}: has {form}, the study {own}; set data.width, data.height and data.frames to it")
    if facts.fps is not None and abs(facts.fps - data.fps) > FPS_TOLERANCE * data.fps:
        raise UserError(
            f"{clip.path}: has {facts.fps:g} frames per second, data.fps={data.fps:g}; set one to the other"
        )


def content(clips: Mapping[str, Clip]) -> str:
    """Hash of the files, by window id."""
    marks = {name: [file_sha256(path) for path in clip.images or (clip.path,)] for name, clip in clips.items()}
    return content_hash(marks)


def frames_of(clip: Clip, data: DataConfig) -> Frames:
    return read_clip(clip, Form(data.height, data.width, data.frames, data.fps, 0), ReadOptions())
