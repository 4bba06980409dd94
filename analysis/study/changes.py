"""The differences between two studies: settings, content hashes, package versions, protocols of scores.

In: two `Study`. Out: `Change` records in a fixed order. Pure: no files.
A field with several values within a study is given with all of them, as a/b; one that a study lacks is "none".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analysis.study.load import Reference, Study
from analysis.study.rows import distinct, flatten, settings
from cinelora.core.config import Method

ABSENT = "none"
MOST_VALUES = 8  # of one field that are listed
MOST_CHANGES = 3  # that `listing` names


@dataclass(frozen=True)
class Change:
    field: str
    first: str
    second: str


def of_settings(first: Study, second: Study) -> tuple[Change, ...]:
    """Settings and content hashes of the trials."""
    return _changes(*(map(settings, study.specs) for study in (first, second)))


def of_bases(first: Study, second: Study) -> tuple[Change, ...]:
    """Settings of the rows without adapter: model, reference clips, sampling, scoring."""
    return _changes(
        *((settings(spec) for spec in study.specs if spec.config.method is Method.base) for study in (first, second))
    )


def of_versions(first: Study, second: Study) -> tuple[Change, ...]:
    """Versions of packages, as the finished trials recorded them."""
    return _changes(
        *(
            ({f"version of {name}": text for name, text in trial.result.versions.items()} for trial in study.trials)
            for study in (first, second)
        )
    )


def of_protocols(first: Study, second: Study) -> dict[str, tuple[Change, ...]]:
    """Score -> how its protocols differ, for the scores that both studies have and compute differently."""
    mine, theirs = (_protocols(study) for study in (first, second))
    found = {score: _changes([mine[score]], [theirs[score]]) for score in sorted(mine.keys() & theirs.keys())}
    return {score: changes for score, changes in found.items() if changes}


def of_clips(first: Reference, second: Reference, clips: Iterable[str]) -> tuple[Change, ...]:
    """Shots and captions of the reference clips `clips`."""
    known = set(clips)
    mine, theirs = (
        {
            f"shot and caption of {clip}": f"{each.shots[clip]}, {each.captions[clip]!r}"
            for clip in known & each.shots.keys()
        }
        for each in (first, second)
    )
    return _changes([mine], [theirs])


def listing(changes: Iterable[Change], first: str, second: str) -> str:
    """`field is 1 in A and 2 in B`, the first MOST_CHANGES, on one line."""
    texts = [f"{each.field} is {each.first} in {first} and {each.second} in {second}" for each in changes]
    rest = len(texts) - MOST_CHANGES
    return "; ".join(texts[:MOST_CHANGES]) + (f"; and {rest} more" if rest > 0 else "")


def _protocols(study: Study) -> dict[str, dict[str, str]]:
    """Score -> its protocol, the same in all trials of a study (`load_study` checks it)."""
    found = {score: facts for trial in study.trials for score, facts in trial.result.protocol.items()}
    return {score: flatten(facts, f"protocol of {score}: ") for score, facts in found.items()}


def _changes(first: Iterable[Mapping[str, str]], second: Iterable[Mapping[str, str]]) -> tuple[Change, ...]:
    mine, theirs = distinct(first), distinct(second)
    names = sorted(mine.keys() | theirs.keys())
    changes = [Change(name, _values(mine.get(name)), _values(theirs.get(name))) for name in names]
    return tuple(each for each in changes if each.first != each.second)


def _values(texts: list[str] | None) -> str:
    if texts is None:
        return ABSENT
    shown = "/".join(text or "''" for text in texts[:MOST_VALUES])
    return shown + (f"/... ({len(texts)} values)" if len(texts) > MOST_VALUES else "")
