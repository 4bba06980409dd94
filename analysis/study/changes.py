"""What differs between two studies: settings, content hashes, package versions, how a score was computed.

In: two `Study`. Out: `Change` records in a fixed order. Pure: no files.
A field that varies within a study is given with all its values, as a/b; one that a study has not is "none".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analysis.study.load import Reference, Study
from analysis.study.rows import flatten
from cinelora.core.config import Method
from cinelora.core.records import TrialSpec
from sweeps.plan import identity

ABSENT = "none"
SHORT = 12  # digits of a content hash that are shown
MOST = 8  # values of one field that are listed


@dataclass(frozen=True)
class Change:
    field: str
    first: str
    second: str


def settings(spec: TrialSpec) -> dict[str, str]:
    """Dotted settings that count for this trial, but its seed, and its content hashes, as text."""
    flat = flatten(identity(spec.config, spec.fingerprints)["config"])
    flat |= {f"content of {name}": digest[:SHORT] for name, digest in spec.fingerprints.items()}
    return {name: text for name, text in flat.items() if name != "seed"}


def of_settings(first: Study, second: Study) -> tuple[Change, ...]:
    return _changes(*(map(settings, study.specs) for study in (first, second)))


def of_bases(first: Study, second: Study) -> tuple[Change, ...]:
    """What the rows without adapter are: model, true clips, sampling and scoring."""
    return _changes(*(map(settings, _bases(study)) for study in (first, second)))


def of_versions(first: Study, second: Study) -> tuple[Change, ...]:
    """Of packages, as the finished trials recorded them."""
    return _changes(*((_versions(trial.result.versions) for trial in study.trials) for study in (first, second)))


def of_protocols(first: Study, second: Study) -> tuple[Change, ...]:
    """Of the scores that both have."""
    found = [_protocols(study) for study in (first, second)]
    return tuple(
        change
        for score in sorted(found[0].keys() & found[1].keys())
        for change in _changes(*([_named(score, each[score])] for each in found))
    )


def changed_scores(first: Study, second: Study) -> frozenset[str]:
    """The scores that both have and computed in different ways."""
    found = [_protocols(study) for study in (first, second)]
    return frozenset(score for score in found[0].keys() & found[1].keys() if found[0][score] != found[1][score])


def of_clips(first: Reference, second: Reference, clips: Iterable[str]) -> tuple[Change, ...]:
    """Of the true clips `clips`: their shots and captions."""
    known = set(clips)
    words = [
        {
            f"shot and caption of {clip}": f"{each.shots[clip]}, {each.captions[clip]!r}"
            for clip in known & each.shots.keys()
        }
        for each in (first, second)
    ]
    return _changes(words[:1], words[1:])


def told(changes: Iterable[Change], first: str, second: str) -> str:
    """`field is 1 in A and 2 in B`, the first three, on one line."""
    listed = [f"{each.field} is {each.first} in {first} and {each.second} in {second}" for each in changes]
    return "; ".join(listed[:3]) + (f"; and {len(listed) - 3} more" if len(listed) > 3 else "")


def _bases(study: Study) -> list[TrialSpec]:
    return [spec for spec in study.specs if spec.config.method is Method.base]


def _versions(recorded: Mapping[str, str]) -> dict[str, str]:
    return {f"version of {name}": text for name, text in recorded.items()}


def _protocols(study: Study) -> dict[str, Mapping[str, object]]:
    """As in `_check_protocols`, all trials of a study that have a score computed it alike."""
    return {score: facts for trial in study.trials for score, facts in trial.result.protocol.items()}


def _named(score: str, facts: Mapping[str, object]) -> dict[str, str]:
    return {f"protocol of {score}: {name}": text for name, text in flatten(facts).items()}


def _changes(first: Iterable[Mapping[str, str]], second: Iterable[Mapping[str, str]]) -> tuple[Change, ...]:
    mine, theirs = _gathered(first), _gathered(second)
    names = sorted(mine.keys() | theirs.keys())
    pairs = [(name, _listed(mine.get(name)), _listed(theirs.get(name))) for name in names]
    return tuple(Change(*pair) for pair in pairs if pair[1] != pair[2])


def _gathered(facts: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """Field -> its different values, in order of appearance."""
    values: dict[str, dict[str, None]] = {}
    for each in facts:
        for name, text in each.items():
            values.setdefault(name, {})[text] = None
    return {name: list(texts) for name, texts in values.items()}


def _listed(texts: list[str] | None) -> str:
    if texts is None:
        return ABSENT
    shown = "/".join(text or "''" for text in texts[:MOST])
    return shown + (f"/... ({len(texts)} values)" if len(texts) > MOST else "")
