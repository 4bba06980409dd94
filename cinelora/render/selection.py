"""Which adapters of a study are rendered, and whether their clips can be compared. Loads no torch.

In: a study folder and the trials or ranks to render. Out: a `FinishedAdapter` by name of its clip: the rank, and the
trial too where several have that rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import Method, TrialConfig
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, read_trial, to_dict

SHARED = ("model", "data", "sample")  # settings in which the clips must not differ


@dataclass(frozen=True)
class FinishedAdapter:
    """The adapter of a finished trial. `files` are added to the base in this order, that of its first stage first."""

    spec: TrialSpec
    result: TrialResult
    files: tuple[Path, ...]


def finished_adapters(study: StudyFolder) -> dict[str, FinishedAdapter]:
    """By trial id, in order of rank and seed. Raises UserError where there are none."""
    found = []
    for path in sorted((study.root / "trials").glob("*/result.json")):
        spec, result = read_trial(study.trial(path.parent.name))
        if result is not None and spec.config.method is Method.lora:
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
    first = adapters[0]
    for other in adapters[1:]:
        for name, mine, theirs in _settings(first, other):
            if mine != theirs:
                raise UserError(
                    f"trials {first.spec.trial_id} and {other.spec.trial_id} differ in {name} ({mine}, {theirs}); "
                    "render them one by one with --trials"
                )
    return first.spec.config


def _settings(first: FinishedAdapter, other: FinishedAdapter) -> Iterable[tuple[str, Any, Any]]:
    """(name, value of the first, of the other) of every setting that shows in a clip."""
    yield "the base model", first.spec.fingerprints["model"][:12], other.spec.fingerprints["model"][:12]
    mine, theirs = (to_dict(each.spec.config, identity_only=True) for each in (first, other))
    for part in SHARED:
        for name in sorted({*mine[part], *theirs[part]}):
            yield f"{part}.{name}", mine[part].get(name), theirs[part].get(name)


def by_clip_name(adapters: Sequence[FinishedAdapter]) -> dict[str, FinishedAdapter]:
    count = Counter(each.result.rank for each in adapters)
    return {
        f"rank-{each.result.rank}" + (f"-{each.spec.trial_id}" if count[each.result.rank] > 1 else ""): each
        for each in adapters
    }
