"""What is rendered: which adapters of a study, whether their clips can be compared, from which picture. Loads no torch.

In: a study folder and the trials or ranks to render. Out: a `FinishedAdapter` by name of its clip: the rank, and the
trial too where several have that rank. The picture is an image file, or a frame of a video as FILE@SECONDS.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinelora.core.cli import UserError
from cinelora.core.config import DataConfig, TrialConfig
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, read_trial, to_dict
from cinelora.data.video import decode_window, read_image, resize_rgb

SHARED = ("model", "data", "sample")  # settings in which the clips must not differ


@dataclass(frozen=True)
class FinishedAdapter:
    """The adapter of a finished trial. `files` are added to the base in this order, that of its first stage first."""

    spec: TrialSpec
    result: TrialResult
    files: tuple[Path, ...]


def finished_adapters(study: StudyFolder) -> dict[str, FinishedAdapter]:
    """By trial id, in order of rank and seed. UserError: there are none."""
    found = []
    for path in sorted((study.root / "trials").glob("*/result.json")):
        spec, result = read_trial(study.trial(path.parent.name))
        if result is not None and spec.config.method.adapts:
            stages = [trial_id for trial_id in (spec.config.first, spec.trial_id) if trial_id]
            files = tuple(study.trial(trial_id).adapter_file for trial_id in stages)
            found.append(FinishedAdapter(spec, result, files))
    if not found:
        raise UserError(f"{study.root}: holds no finished adapter; give the folder of a study, e.g. studies/quick")
    return {each.spec.trial_id: each for each in sorted(found, key=lambda each: (each.result.rank, each.result.seed))}


def select(found: dict[str, FinishedAdapter], trials: Sequence[str], ranks: Sequence[int]) -> list[FinishedAdapter]:
    """Those of `trials`, else of each rank (or of `ranks`) those of the smallest seed, controls left out.

    Raises UserError for a trial or rank that has not finished.
    """
    if missing := [each for each in trials if each not in found]:
        raise UserError(f"--trials {missing[0]}: not among the finished adapters {', '.join(found)}")
    if trials:
        return [found[each] for each in dict.fromkeys(trials)]
    plain = [each for each in found.values() if not each.spec.config.arm]
    seeds: dict[int, int] = {}  # of each rank the smallest, which comes first
    for each in plain:
        seeds.setdefault(each.result.rank, each.result.seed)
    if missing_ranks := sorted(set(ranks) - set(seeds)):
        there = ", ".join(map(str, seeds)) or "none"
        raise UserError(f"--ranks {missing_ranks[0]}: no finished adapter of that rank; there are {there}")
    if not seeds:
        raise UserError(f"all finished adapters are controls; name what to render, --trials {next(iter(found))}")
    wanted = {(rank, seed) for rank, seed in seeds.items() if not ranks or rank in ranks}
    return [each for each in plain if (each.result.rank, each.result.seed) in wanted]


def shared_config(adapters: Sequence[FinishedAdapter]) -> TrialConfig:
    """The settings they share. Raises UserError at one that would make their clips incomparable."""
    first, mine = adapters[0].spec, _settings(adapters[0].spec)
    for other in (each.spec for each in adapters[1:]):
        theirs = _settings(other)
        for name in mine | theirs:
            if mine.get(name) != theirs.get(name):
                raise UserError(
                    f"trials {first.trial_id} and {other.trial_id} differ in {name} ({mine.get(name)}, "
                    f"{theirs.get(name)}); render them one by one with --trials"
                )
    return first.config


def _settings(spec: TrialSpec) -> dict[str, Any]:
    """Every setting that shows in a clip, by name."""
    config = to_dict(spec.config, identity_only=True)
    shown = {f"{part}.{name}": value for part in SHARED for name, value in config[part].items()}
    return {"the base model": spec.fingerprints["model"][:12]} | shown


def by_clip_name(adapters: Sequence[FinishedAdapter]) -> dict[str, FinishedAdapter]:
    count = Counter(each.result.rank for each in adapters)
    return {
        f"rank-{each.result.rank}" + (f"-{each.spec.trial_id}" if count[each.result.rank] > 1 else ""): each
        for each in adapters
    }


def read_keyframe(text: str, data: DataConfig) -> NDArray[np.uint8]:
    """The picture (H, W, 3) of --image, resized to the size of the clips as the training clips were. UserError."""
    if Path(text).is_file():
        try:
            picture = read_image(Path(text))
        except UserError as error:
            raise UserError(f"--image {error}; for a frame of a video give {text}@SECONDS") from error
        return resize_rgb(picture, data.height, data.width, data.resize).copy()  # Pillow's is read-only
    video, at, seconds = text.rpartition("@")
    if not at or not Path(video).is_file():
        raise UserError(f"--image {text}: no such file; give an image, or FILE@SECONDS of a video")
    if not re.fullmatch(r"\d+\.?\d*|\.\d+", seconds, re.ASCII):
        raise UserError(f"--image {text}: {seconds!r} is not a time in seconds; give FILE@SECONDS, e.g. clip.mp4@1.5")
    return decode_window(Path(video), float(seconds), data.fps, 1, data.height, data.width, data.resize)[0]
