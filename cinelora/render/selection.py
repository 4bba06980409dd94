"""Which adapters of a study are rendered, and whether they can be side by side. Loads no torch.

In: a study folder, the wish for trials or ranks. Out: `Entry` by name of its clip: the rank, and the trial too where
several have that rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import Method, TrialConfig
from cinelora.core.files import read_json
from cinelora.core.paths import ADAPTER_FILE, StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, to_dict

SHARED = ("model", "data", "sample")  # settings in which the clips must not differ


@dataclass(frozen=True)
class Entry:
    """A finished adapter: `files` lie on one another, its own last."""

    spec: TrialSpec
    result: TrialResult
    files: tuple[Path, ...]


def finished(study: StudyFolder) -> dict[str, Entry]:
    """The finished adapters by trial, ranks first. Raises UserError where there are none."""
    found = []
    for path in sorted((study.root / "trials").glob("*/result.json")):
        folder = study.trial(path.parent.name)
        try:
            spec, result = TrialSpec.from_json(read_json(folder.spec)), TrialResult.from_json(read_json(folder.result))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder.root}: its records are not whole or of another version ({error})") from error
        if spec.config.method is Method.lora:
            found.append(Entry(spec, result, adapter_files(study, spec.trial_id, spec.config)))
    if not found:
        raise UserError(f"{study.root}: holds no finished adapter; give the folder of a study, e.g. studies/quick")
    return {each.spec.trial_id: each for each in sorted(found, key=lambda each: (each.result.rank, each.result.seed))}


def adapter_files(study: StudyFolder, trial_id: str, config: TrialConfig) -> tuple[Path, ...]:
    """Of a trial, after that of the trial it started from, if any."""
    return tuple(study.trial(each).adapter / ADAPTER_FILE for each in (config.first, trial_id) if each)


def chosen(found: dict[str, Entry], trials: Sequence[str], ranks: Sequence[int]) -> list[Entry]:
    """The entries of `trials`; else, of each rank (of `ranks` if any), those of the smallest seed that are no controls.

    Raises UserError for what is not there.
    """
    if missing := [each for each in trials if each not in found]:
        raise UserError(f"--trials {missing[0]}: not among the finished adapters {', '.join(found)}")
    if trials:
        return [found[each] for each in dict.fromkeys(trials)]
    plain = [each for each in found.values() if not each.spec.config.arm]
    known = sorted({each.result.rank for each in plain})
    if missing_ranks := sorted(set(ranks) - set(known)):
        there = ", ".join(map(str, known)) or "none"
        raise UserError(f"--ranks {missing_ranks[0]}: no finished adapter of that rank; there are {there}")
    if not known:
        raise UserError(f"all finished adapters are controls; name what to render, --trials {next(iter(found))}")
    seeds = {rank: min(each.result.seed for each in plain if each.result.rank == rank) for rank in known}
    return [
        each for each in plain if each.result.rank in (ranks or known) and each.result.seed == seeds[each.result.rank]
    ]


def check_alike(entries: Sequence[Entry]) -> TrialConfig:
    """The settings they share. Raises UserError at one that would make their clips differ."""
    first = entries[0]
    for other in entries[1:]:
        for name, mine, theirs in _settings(first, other):
            if mine != theirs:
                raise UserError(
                    f"trials {first.spec.trial_id} and {other.spec.trial_id} differ in {name} ({mine}, {theirs}); "
                    "render them one by one with --trials"
                )
    return first.spec.config


def _settings(first: Entry, other: Entry) -> Iterable[tuple[str, Any, Any]]:
    yield "the base model", first.spec.fingerprints["model"][:12], other.spec.fingerprints["model"][:12]
    mine, theirs = (to_dict(each.spec.config, identity_only=True) for each in (first, other))
    for part in SHARED:
        for name in sorted({*mine[part], *theirs[part]}):
            yield f"{part}.{name}", mine[part].get(name), theirs[part].get(name)


def named(entries: Sequence[Entry]) -> dict[str, Entry]:
    count = Counter(each.result.rank for each in entries)
    return {
        f"rank-{each.result.rank}" + (f"-{each.spec.trial_id}" if count[each.result.rank] > 1 else ""): each
        for each in entries
    }
