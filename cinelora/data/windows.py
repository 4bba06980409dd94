"""Cuts the clips of a dataset into windows and splits them into training and held-out windows.

In: a dataset folder, the data settings, the cache folder. Out: a `WindowPlan`, the same on every machine.
A shot is a take without a cut: named by the dataset's `shot` column, else found by PySceneDetect. A window
lies inside one shot, and shots, never windows, are split, so no held-out scene is seen in training.
Duration, corrections (`VideoInfo`) and cuts of a video are kept in `<cache>/shots/<SHA-256 of the video>.json`:
a second plan decodes nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import TEMPORAL_FACTOR, DataConfig
from cinelora.core.files import content_hash, file_sha256, read_json, write_json
from cinelora.core.records import to_dict
from cinelora.data.dataset import SPLITS, TABLES, Clip, dataset_fingerprint, read_clips, unlisted

# PySceneDetect's defaults except the shortest scene, which is 15 frames there: a cut missed is a cut inside
# a window, a shot too short is only skipped.
DETECTOR = {"threshold": 27.0, "min_scene_len": 8}
SET_ASIDE = 4  # with data.selection, one in so many training shots, rounded up, is held out
NAMED = 5  # files of one reason that an account names
END_MARGIN_SECONDS = 1e-3  # a window stops this much before the video's end, above the decoder's tolerance


@dataclass(frozen=True)
class Window:
    """`data.frames` frames from `start_seconds` on. `window_id` is unique, stable and safe as a file name."""

    window_id: str  # e.g. bikes_s02_w001
    video: str  # POSIX path under the dataset folder
    caption: str
    shot_id: str  # e.g. bikes.mp4#02, or the dataset's own name
    start_seconds: float  # after the first frame of the video
    split: str  # "train", "heldout" or "other"


@dataclass(frozen=True)
class WindowPlan:
    """The splits, each sorted by video and start. `fingerprint` is the SHA-256 of everything that determines them.

    `other` is empty unless the dataset names a second domain, on which forgetting is measured. `left_out`: each file
    that gives no window, with the reason; it determines nothing.
    """

    train: tuple[Window, ...]
    heldout: tuple[Window, ...]
    fingerprint: str
    other: tuple[Window, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Window, ...]:
        return (*self.train, *self.heldout, *self.other)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> WindowPlan:
        train, heldout, other = (tuple(Window(**row) for row in data[split]) for split in SPLITS)
        return WindowPlan(train, heldout, data["fingerprint"], other, data.get("left_out", {}))

    def account(self, full_list: Path | None = None) -> str:
        """What became of every file, in one line, with all names, or with few and the file that holds them all."""
        used = len({window.video for window in self.all})
        most = NAMED if full_list else len(self.left_out)
        text = f"{used} of {used + len(self.left_out.keys() - TABLES)} used"
        for why, count in Counter(self.left_out.values()).most_common():
            names = [name for name, reason in self.left_out.items() if reason == why]
            more = f" and {count - most} more, all in {full_list}" if count > most else ""
            text += f"; left out: {', '.join(names[:most])}{more} ({why})"
        other = f", {len(self.other)} other" if self.other else ""
        return f"{text}; {len(self.train)} training, {len(self.heldout)} held-out{other} windows"


@dataclass(frozen=True)
class _Shot:
    """A take; windows show frames from `first_seconds` to `last_seconds`, both inside the take."""

    clip: Clip
    shot_id: str
    number: int  # within its video
    first_seconds: float
    last_seconds: float

    def fits(self, data: DataConfig) -> int:
        """How many frames at `data.fps` it holds."""
        return max(1, int((self.last_seconds - self.first_seconds) * data.fps + 1e-6) + 1)

    def starts(self, data: DataConfig) -> list[float]:
        """Where its windows start, in seconds; empty when it is shorter than one window."""
        count = (self.fits(data) - data.frames) // data.stride + 1
        return [round(self.first_seconds + i * data.stride / data.fps, 6) for i in range(count)]


def plan_windows(root: Path, data: DataConfig, cache_dir: Path) -> WindowPlan:
    """Cut the clips under `root` into windows and split them by shot.

    Raises UserError for bad datasets (`read_clips`), a video listed under two names, no shot long enough,
    and a split that leaves no window for training or none held out.
    """
    clips = read_clips(root)
    hashes = {clip.video: file_sha256(root / clip.video) for clip in clips}
    _refuse_copies(hashes)
    caches = {video: cache_dir / "shots" / f"{digest}.json" for video, digest in hashes.items()}
    shots = [shot for clip in clips for shot in _shots(root, clip, caches[clip.video])]
    corrected = {video: how for video, cache in caches.items() if (how := read_json(cache)["corrected"])}
    usable: dict[str, list[_Shot]] = {}  # several rows may name one source shot: they are split together
    for shot in shots:
        if shot.starts(data):
            usable.setdefault(shot.shot_id, []).append(shot)
    _require_enough(shots, usable, data, named=clips[0].split is not None)
    names = _slugs(clips)
    most = {"train": data.max_train_windows, "heldout": data.max_heldout_windows, "other": data.max_heldout_windows}
    splits = {
        split: _capped([_windows(usable[i], names, data, split) for i in shot_ids], most[split])
        for split, shot_ids in _split(usable, data).items()
    }
    for split in ("train", "heldout"):
        if not splits[split]:
            named = sum(clip.split == split for clip in clips)
            raise UserError(
                f"data.path={root}: of the {named} clips that the split column names {split}, none holds a window of "
                f"{data.frames} frames at {data.fps} fps; lower data.frames or name longer clips {split}"
            )
    identity = {
        "dataset": dataset_fingerprint(clips, hashes),
        "data": to_dict(data, identity_only=True),
        "shots": [[shot.shot_id, shot.first_seconds, shot.last_seconds] for shot in shots],
    }
    if corrected:  # plans of clips shown as stored keep the fingerprint that they had before corrections
        identity["corrected"] = corrected
    left_out = _without_window(clips, shots, splits, data) | unlisted(root, clips)
    return WindowPlan(**splits, fingerprint=content_hash(identity), left_out=left_out)


def _without_window(
    clips: Iterable[Clip], shots: Iterable[_Shot], splits: Mapping[str, Sequence[Window]], data: DataConfig
) -> dict[str, str]:
    """The clips that no window shows, each with the reason."""
    shown = {window.video for windows in splits.values() for window in windows}
    longest: dict[str, int] = {}
    for shot in shots:
        longest[shot.clip.video] = max(longest.get(shot.clip.video, 0), shot.fits(data))
    return {
        video: f"shorter than a window, {data.frames} frames at {data.fps:g} fps"
        if longest[video] < data.frames
        else "held out by the study, or past data.max_train_windows and data.max_heldout_windows"
        if data.selection
        else "past data.max_train_windows and data.max_heldout_windows"
        for video in (clip.video for clip in clips if clip.video not in shown)
    }


def _split(usable: Mapping[str, Sequence[_Shot]], data: DataConfig) -> dict[str, list[str]]:
    """Shot ids of each split: as the dataset names them, else by the order that `data.split_seed` gives."""
    # Sorted by hash, so that a shot added later does not reshuffle the others.
    order = sorted(usable, key=lambda shot_id: hashlib.sha256(f"{data.split_seed}:{shot_id}".encode()).digest())
    named = {shot_id: usable[shot_id][0].clip.split for shot_id in order}
    if any(named.values()):
        found = {split: [i for i in order if named[i] == split] for split in SPLITS}
    else:
        found = {"heldout": order[: data.heldout_shots], "train": order[data.heldout_shots :], "other": []}
    if not data.selection:
        return found
    train = found["train"]
    if len(train) < 2:
        raise UserError(
            f"data.selection=true: the study trains on {len(train)} shot, too few to set some aside for the search of "
            "learning rates; add clips, or set rates.data to a folder of clips that the study does not report"
        )
    aside = -(-len(train) // SET_ASIDE)
    return {"heldout": train[:aside], "train": train[aside:], "other": []}


def _shots(root: Path, clip: Clip, cache: Path) -> list[_Shot]:
    """The takes of one clip, in order of time."""
    seconds, fps, cuts = _timing(root / clip.video, cache, detect=clip.shot is None)
    guard = 0.5 / fps  # half a frame away from a cut no rounding of time stamps can cross it
    bounds = [0.0, *cuts, seconds]
    shots = []
    for number, (begin, end) in enumerate(pairwise(bounds)):
        first = begin + guard if number else begin
        last = end - (guard if number < len(cuts) else END_MARGIN_SECONDS)
        shots.append(_Shot(clip, clip.shot or f"{clip.video}#{number:02d}", number, first, last))
    return shots


def _timing(video: Path, cache: Path, detect: bool) -> tuple[float, float, list[float]]:
    """Seconds, mean frames per second and the times of the cuts (none without `detect`)."""
    known = read_json(cache) if cache.is_file() else {}
    if "corrected" not in known or (detect and known.get("settings") != DETECTOR):
        from cinelora.data.video import probe

        info = probe(video)
        kept = known if known.get("settings") == DETECTOR and not info.corrected else {}  # from before corrections
        known = kept | {"seconds": info.seconds, "fps": info.fps, "frames": info.frames, "corrected": info.corrected}
        if detect and not kept:
            known |= {"settings": DETECTOR, "cuts": _detect_cuts(video)}
        write_json(cache, known)
    return known["seconds"], known["fps"], known["cuts"] if detect else []


def _detect_cuts(video: Path) -> list[float]:
    """Time stamps of the first frame of every shot but the first, in seconds after the first frame."""
    from scenedetect import ContentDetector, SceneManager
    from scenedetect.backends.pyav import VideoStreamAv

    from cinelora.data.video import film_stream

    class Film(VideoStreamAv):  # type: ignore[misc]  # PySceneDetect alone would take a cover picture
        @property
        def _video_stream(self) -> Any:
            return film_stream(self._container, video)

    manager = SceneManager()
    manager.add_detector(ContentDetector(**DETECTOR))
    film = Film(str(video), suppress_output=True)
    film._decoder = film._container.decode(film._video_stream)
    manager.detect_scenes(film)
    scenes = manager.get_scene_list(start_in_scene=True)
    return [round(begin.seconds, 6) for begin, _ in scenes[1:]]


def _refuse_copies(hashes: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for video, digest in hashes.items():
        if digest in first:
            raise UserError(
                f"{video}: same content as {first[digest]}, so one may be trained on and the other held out; "
                "keep one of them"
            )
        first[digest] = video


def _require_enough(shots: Sequence[_Shot], usable: Mapping[str, object], data: DataConfig, named: bool) -> None:
    if not usable:
        longest = max(shots, key=lambda shot: shot.fits(data))
        there = longest.fits(data)
        nearest = max(1, (there - 1) // TEMPORAL_FACTOR) * TEMPORAL_FACTOR + 1
        raise UserError(
            f"{longest.shot_id}: the longest shot has fewer frames than one window: {data.frames} needed, "
            f"{there} there at {data.fps} fps; set data.frames={nearest} or give longer clips"
        )
    if len(usable) <= data.heldout_shots and not named:
        remedy = f"set data.heldout_shots={len(usable) - 1}" if len(usable) > 1 else "lower data.frames"
        raise UserError(
            f"data.heldout_shots={data.heldout_shots}: leaves none for training, {len(usable)} "
            f"of {len(shots)} shots hold a window of {data.frames} frames; {remedy} or add clips"
        )


def _windows(shots: Iterable[_Shot], names: Mapping[str, str], data: DataConfig, split: str) -> list[Window]:
    return [
        Window(
            f"{names[shot.clip.video]}_s{shot.number:02d}_w{index:03d}",
            shot.clip.video, shot.clip.caption, shot.shot_id, start, split,
        )
        for shot in shots
        for index, start in enumerate(shot.starts(data))
    ]  # fmt: skip


def _capped(by_shot: Iterable[Sequence[Window]], most: int) -> tuple[Window, ...]:
    """At most `most` windows (0: all), one of every shot in turn, so that each stays represented."""
    turns = [window for turn in zip_longest(*by_shot) for window in turn if window is not None]
    return tuple(sorted(turns[: most or None], key=lambda window: (window.video, window.start_seconds)))


def _slugs(clips: Iterable[Clip]) -> dict[str, str]:
    """A file-safe name of each video; names that clash, ignoring case, get six digits of the path's hash."""
    videos = [clip.video for clip in clips]
    plain = {video: re.sub(r"[^A-Za-z0-9]+", "-", str(Path(video).with_suffix("")))[:60] for video in videos}
    uses = Counter(name.casefold() for name in plain.values())
    return {
        video: name if uses[name.casefold()] == 1 else f"{name}-{content_hash(video, digits=6)}"
        for video, name in plain.items()
    }
