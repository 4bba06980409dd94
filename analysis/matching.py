"""Which rows of two studies are the same row.

In: two studies and their estimates. Out: pairs of rows, and the rows that only one of them has. Pure: no files.
A row is the same if its rank is, and all else that varies within either study. What is alike in a whole study is not
looked at: that is what the two are compared for. A learning rate tuned rank by rank belongs to the rank; where a rank
has several, it tells the rows apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.study.changes import settings
from analysis.study.load import Study
from analysis.study.rows import Estimates, Row
from cinelora.core.config import Method

RATE = "train.learning_rate"
ALWAYS = frozenset({"method", "lora.rank"})
Family = tuple[str, bool]  # as in `analysis/estimates.py`: arm, whether fine-tuned in full
Key = tuple[Family, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, eq=False)
class _Known:
    """A finished row and the settings that its trials share."""

    row: Row
    family: Family
    settings: dict[str, str]


def matched(
    studies: tuple[Study, Study], estimates: tuple[Estimates, Estimates]
) -> tuple[list[tuple[Row, Row]], list[tuple[Study, Row]]]:
    """The finished rows that both have, in the order of the first; those that one has, with their study."""
    known = [_known(study, found) for study, found in zip(studies, estimates, strict=True)]
    varying = _varying(known)
    mine, theirs = (_by_key(rows, varying) for rows in known)
    pairs = [pair for key, rows in mine.items() for pair in _pairs(rows, theirs.get(key, []))]
    paired = [{rows[index].key for rows in pairs} for index in (0, 1)]
    alone = [
        (study, each.row)
        for study, rows, found in zip(studies, known, paired, strict=True)
        for each in rows
        if each.row.key not in found
    ]
    return pairs, alone


def _known(study: Study, found: Estimates) -> list[_Known]:
    specs = {trial.spec.trial_id: trial.spec for trial in study.trials}
    firsts = [(row, specs[row.trial_ids[0]]) for row in found.rows if row.done]
    return [_Known(row, (spec.config.arm, spec.config.method is Method.full), settings(spec)) for row, spec in firsts]


def _varying(known: Iterable[Sequence[_Known]]) -> dict[Family, frozenset[str]]:
    """Family -> the settings that vary among its rows, in either study."""
    found: dict[Family, frozenset[str]] = {}
    for rows in known:
        for family in {each.family for each in rows}:
            seen: dict[str, set[str]] = {}
            for each in (each for each in rows if each.family == family):
                for name, text in each.settings.items():
                    seen.setdefault(name, set()).add(text)
            names = {name for name, texts in seen.items() if len(texts) > 1 and name != RATE}
            found[family] = found.get(family, ALWAYS) | names
    return found


def _by_key(rows: Iterable[_Known], varying: dict[Family, frozenset[str]]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for each in rows:
        facts = tuple((name, text) for name, text in sorted(each.settings.items()) if name in varying[each.family])
        found.setdefault((each.family, facts), []).append(each.row)
    return found


def _pairs(mine: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    if len(mine) == len(theirs) == 1:
        return [(mine[0], theirs[0])]
    rates = {row.key.learning_rate: row for row in theirs}
    return [(row, rates[row.key.learning_rate]) for row in mine if row.key.learning_rate in rates]
