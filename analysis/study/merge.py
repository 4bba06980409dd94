"""Several study folders -> one `Study`, for one table of trials that were run in separate studies. Reads only.

In: the folders, in any order. Out: a `Study` that gives for each trial the study it is from (`Study.home`).
A trial with the same id in two studies counts once. `answer.scores` is kept where all studies have the same; else it is
auto, and a remark says so. Merging is refused, in one line that names the difference, if the
studies differ in reference clips, base, the protocol of a score, or versions of packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from analysis.study.changes import Change, listing, of_bases, of_clips, of_protocols, of_versions
from analysis.study.files import ClipScores
from analysis.study.load import WAITING, Missing, Reference, Study, Trial, load_study, sort_key
from cinelora.core.cli import UserError
from cinelora.core.config import AUTO
from cinelora.core.records import reference_key
from cinelora.metrics.primary import LOSS, OTHER_LOSS

REMEDY = "report them separately, or compare them with python -m analysis.compare"
SHORT = 12  # digits of a hash


def load_studies(roots: Sequence[Path]) -> Study:
    """One study unchanged, several merged."""
    if len(roots) == 1:
        return load_study(roots[0])
    if len({root.resolve() for root in roots}) < len(roots):
        raise UserError(f"{', '.join(map(str, roots))}: a study is given twice; name each once")
    return merged(named([load_study(root) for root in roots]))


def named(studies: Sequence[Study]) -> list[Study]:
    """The same studies under different names: their own, those of their folders, or the whole paths."""
    choices = zip(*((study.name, study.folder.root.name, str(study.folder.root)) for study in studies), strict=True)
    names = next(found for found in choices if len(set(found)) == len(found))
    return [replace(study, name=name) for study, name in zip(studies, names, strict=True)]


def merged(studies: Sequence[Study]) -> Study:
    """All trials of `studies`, whose names differ, each trial once; the same whatever their order."""
    parts = sorted(studies, key=lambda study: study.name)
    for first, second in combinations(parts, 2):
        _check_alike(first, second)
    homes: dict[str, Study] = {}
    trials: dict[str, Trial] = {}
    remarks: list[str] = []
    for part in parts:
        for trial in part.trials:
            name = trial.spec.trial_id
            if name in trials:
                remarks += _disagreement(trials[name], trial, homes[name].name, part.name)
            else:
                trials[name], homes[name] = trial, part
    references, of_references = _references(parts)
    chosen = chosen_by_all(parts)
    if len({part.chosen for part in parts}) > 1:
        lists = "; ".join(f"{part.name}: {', '.join(part.chosen) or AUTO}" for part in parts)
        remarks.append(f"answer.scores differs ({lists}), so that the best scores that the trials have decide.")
    if looked := [part.name for part in parts if part.looks]:
        remarks.append(f"{', '.join(looked)}: seeds were added in rounds; levels here are those of a single look.")
    missing = _missing(parts, trials)
    specs = {spec.trial_id: spec for part in parts for spec in part.specs}
    pruned = {each.spec.trial_id: each for part in parts for each in part.pruned if each.spec.trial_id not in specs}
    return Study(
        name=" + ".join(part.name for part in parts),
        folder=parts[0].folder,
        specs=tuple(sorted(specs.values(), key=sort_key)),
        trials=tuple(sorted(trials.values(), key=lambda trial: sort_key(trial.spec))),
        missing=tuple(sorted(missing, key=lambda each: sort_key(each.spec))),
        references=references,
        merged=homes,
        remarks=tuple(dict.fromkeys((*(line for part in parts for line in part.remarks), *remarks, *of_references))),
        share=max(part.share for part in parts),
        chosen=chosen,
        pruned=tuple(sorted(pruned.values(), key=lambda each: sort_key(each.spec))),
        clips=tuple(dict.fromkeys(line for part in parts for line in part.clips)),
    )


def chosen_by_all(studies: Sequence[Study]) -> tuple[str, ...]:
    """`answer.scores` of studies that all have the same, else ()."""
    lists = {study.chosen for study in studies}
    return lists.pop() if len(lists) == 1 else ()


def _check_alike(first: Study, second: Study) -> None:
    """UserError where rows of the two cannot be compared in one table."""
    keys = [reference_key(study.trials[0].spec) for study in (first, second)]
    bases = of_bases(first, second)
    if keys[0] != keys[1]:
        _refuse("the reference clips differ", bases or (Change("reference", *keys),), first, second)
    if bases:
        _refuse("the base or its settings differ", bases, first, second)
    if protocols := of_protocols(first, second):
        changes = [each for of_score in protocols.values() for each in of_score]
        _refuse("a score has different protocols", changes, first, second)
    if versions := of_versions(first, second):
        _refuse("the versions of packages differ", versions, first, second)


def _refuse(what: str, changes: Sequence[Change], first: Study, second: Study) -> None:
    listed = listing(changes, first.name, second.name)
    raise UserError(f"{first.name} and {second.name} cannot be merged: {what}: {listed}; {REMEDY}")


def _missing(parts: Sequence[Study], trials: dict[str, Trial]) -> list[Missing]:
    """Trials that no study has finished, each once; a recorded failure takes precedence over WAITING."""
    found: dict[str, Missing] = {}
    for each in (each for part in parts for each in part.missing if each.spec.trial_id not in trials):
        if found.setdefault(each.spec.trial_id, each).reason == WAITING:
            found[each.spec.trial_id] = each
    return list(found.values())


def _references(parts: Sequence[Study]) -> tuple[dict[str, Reference], list[str]]:
    """By key, those of the first study that has them; a remark where another study has other scores or features."""
    found: dict[str, tuple[Study, Reference]] = {}
    remarks: list[str] = []
    for part in parts:
        for key, reference in part.references.items():
            home, known = found.setdefault(key, (part, reference))
            if changes := of_clips(known, reference, (*known.shots, *reference.shots)):
                _refuse("the reference clips differ", changes, home, part)
            parts_of = _scores_differ(known.scores, reference.scores) + _features_differ(known, reference)
            if parts_of:
                remarks.append(
                    f"Scores or features of the reference clips {key} differ between {home.name} and {part.name}: "
                    f"{'; '.join(parts_of)}; those of {home.name} are used."
                )
    return {key: reference for key, (_, reference) in sorted(found.items())}, remarks


def _disagreement(mine: Trial, other: Trial, first: str, second: str) -> list[str]:
    """A sentence if two runs of one trial have different results."""
    facts = ("adapter_sha256", "train_loss", LOSS, OTHER_LOSS)
    pairs = [(name, getattr(mine.result, name), getattr(other.result, name)) for name in facts]
    found = [f"{name} {_short(a)} and {_short(b)}" for name, a, b in pairs if a != b]
    found += _scores_differ(mine.scores, other.scores) + _features_differ(mine, other)
    if not found:
        return []
    both = f"Trial {mine.spec.trial_id} has different results in {first} and {second}"
    return [f"{both}: {'; '.join(found)}; those of {first} are used."]


def _scores_differ(mine: ClipScores, other: ClipScores) -> list[str]:
    found = []
    for metric in sorted(mine.keys() | other.keys()):
        if metric not in mine or metric not in other:
            found.append(f"{metric} in one only")
        elif mine[metric].ids != other[metric].ids:
            found.append(f"{metric} of {len(mine[metric])} and {len(other[metric])} clips")
        else:
            a, b = mine[metric].numbers, other[metric].numbers
            rows = np.flatnonzero(~((a == b) | (np.isnan(a) & np.isnan(b))))
            if len(rows):
                clip = mine[metric].ids[rows[0]]
                numbers = f"{a[rows[0]]:.9g} and {b[rows[0]]:.9g}"
                found.append(f"{metric} of {len(rows)} of {len(a)} clips (first {clip}: {numbers})")
    return found


def _features_differ(mine: Trial | Reference, other: Trial | Reference) -> list[str]:
    found = []
    for net in sorted(mine.features.keys() | other.features.keys()):
        if net not in mine.features or net not in other.features:
            found.append(f"{net} features in one only")
        elif mine.features[net].ids != other.features[net].ids or not np.array_equal(
            mine.features[net].values, other.features[net].values, equal_nan=True
        ):
            found.append(f"{net} features")
    return found


def _short(value: object) -> str:
    return value[:SHORT] or "none" if isinstance(value, str) else "none" if value is None else f"{value:.9g}"
