"""Two studies side by side: what differs between them, and the rows that both have, clip by clip.

In: two study folders, which are only read. Out: lines to read; with --out compare.md and compare.csv.
Rows are matched as `analysis/matching.py` says; seeds and clips are compared in pairs (same first frame, caption and
starting noise), second study minus first, with the intervals of `analysis/statistics/intervals.py`. A score that the
two computed
in different ways is listed and left out.
Run:  python -m analysis.compare studies/first studies/second
      python -m analysis.compare studies/first studies/second --out /tmp/compared
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.statistics.differences import COMPARED, DIGITS, Difference, differences_csv
from analysis.statistics.intervals import LEVEL, crossed_interval
from analysis.study.changes import (
    Change,
    changed_scores,
    of_clips,
    of_protocols,
    of_settings,
    of_versions,
    settings,
    told,
)
from analysis.study.clip_values import clip_values
from analysis.study.files import Clips
from analysis.study.load import Study, Trial, load_study
from analysis.study.merge import named
from analysis.study.rows import Estimates, Row, estimate
from analysis.study.scores import DIRECTIONS
from cinelora.core.cli import UserError
from cinelora.core.config import Method
from cinelora.core.files import whole_file

# ~ Which rows of two studies are the same row.
# ~
# ~ In: two studies and their estimates. Out: pairs of rows, and the rows that only one of them has. Pure: no files.
# ~ A row is the same if its rank is, and all else that varies within either study. What is alike in a whole study is
# ~ not
# ~ looked at: that is what the two are compared for. A learning rate tuned rank by rank belongs to the rank; where a
# ~ rank
# ~ has several, it tells the rows apart.

RATE = "train.learning_rate"
ALWAYS = frozenset({"method", "lora.rank"})
Family = tuple[str, bool]  # as in `analysis/study/rows.py`: arm, whether fine-tuned in full
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
    known = [_known(found) for found in estimates]
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


def _known(found: Estimates) -> list[_Known]:
    firsts = [(row, found.trials(row)[0].spec) for row in found.rows if row.done]
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


FEWEST_CLIPS = 3
SAME_CLIP = 1e-3  # of their standard deviation: features of one true clip differ by less between machines


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    changes: tuple[Change, ...]
    clips: int
    found: tuple[Difference, ...]  # of the rows that both have, second minus first
    left_out: tuple[str, ...]  # a sentence for each row or score that could not be compared


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.compare", description="Two studies side by side.")
    parser.add_argument("studies", type=Path, nargs=2, metavar="STUDY", help="two study folders, only read")
    parser.add_argument("--out", type=Path, default=None, help="folder for compare.md and compare.csv; default: none")
    options = parser.parse_args(arguments)
    try:
        found = compare(*named([load_study(root) for root in options.studies]))
    except UserError as error:
        print(f"cinelora: {error}", file=sys.stderr)
        return 2
    text = markdown(found)
    print(text, end="")
    if options.out is not None:
        for name, content in (("compare.md", text), ("compare.csv", differences_csv(found.found))):
            with whole_file(options.out / name) as path:
                path.write_text(content)
    return 0


def compare(first: Study, second: Study) -> Comparison:
    """UserError where the two do not share clips: fewer than FEWEST_CLIPS, or others under the same names."""
    estimates = [estimate(study) for study in (first, second)]
    clips = tuple(sorted(set(estimates[0].scores.clips).intersection(estimates[1].scores.clips)))
    apart = changed_scores(first, second)
    _check_clips(first, second, clips, apart)
    pairs, alone = matched((first, second), (estimates[0], estimates[1]))
    left_out = [
        f"Only {study.name} has: {'; '.join(row.full_name for of, row in alone if of is study)}."
        for study in dict.fromkeys(study for study, _ in alone)
    ]
    found: list[Difference] = []
    for mine, theirs in pairs:
        of_row = _of_row((first, mine), (second, theirs), clips, apart)
        found += of_row
        left_out += [] if of_row else [f"{_name(mine, theirs)}: no training seed and score in common."]
    left_out += [f"{score}: computed in different ways, see above." for score in DIRECTIONS if score in apart]
    changes = (*of_settings(first, second), *of_protocols(first, second), *of_versions(first, second))
    return Comparison(first.name, second.name, changes, len(clips), tuple(found), tuple(left_out))


def markdown(found: Comparison) -> str:
    """What differs, then the rows, then what was left out."""
    parts = [f"# {found.first} and {found.second}"]
    if found.changes:
        lines = [f"| {each.field} | {each.first} | {each.second} |" for each in found.changes]
        parts.append("\n".join([f"| what differs | {found.first} | {found.second} |", "|---|---|---|", *lines]))
    else:
        parts.append("Nothing differs in what was recorded.")
    if found.found:
        parts.append(
            f"{found.second} minus {found.first}, clips and training seeds in pairs: {LEVEL:.0%} intervals over "
            f"{found.clips} clips of {found.found[0].shots} shots and the seeds (from one seed they know nothing of "
            f"the next); better and worse are said of {found.second}."
        )
        parts.append(_table(found.found))
    else:
        parts.append("No row can be compared.")
    if found.left_out:
        parts.append("\n".join(f"- {line}" for line in found.left_out))
    return "\n\n".join(parts) + "\n"


def _table(found: Sequence[Difference]) -> str:
    """The scores of COMPARED; the CSV has all."""
    scores = [score for score in COMPARED if any(each.score == score for each in found)]
    by_place = {(each.row, each.score): each for each in found}
    lines = []
    for row, seeds in {each.row: each.seeds for each in found}.items():
        cells = [_words(by_place[row, score]) if (row, score) in by_place else "-" for score in scores]
        lines.append(f"| {' | '.join((row, str(seeds), *cells))} |")
    return "\n".join([f"| {' | '.join(('row', 'seeds', *scores))} |", "|---" * (2 + len(scores)) + "|", *lines])


def _words(each: Difference) -> str:
    if each.value == each.low == each.high == 0:
        return "equal"
    return f"{each.value:+.{DIGITS}g} [{each.low:+.{DIGITS}g}, {each.high:+.{DIGITS}g}] {each.verdict}"


def _check_clips(first: Study, second: Study, clips: Clips, apart: frozenset[str]) -> None:
    both = f"{first.name} and {second.name} cannot be compared clip by clip"
    remedy = "give studies of the same held-out clips"
    if len(clips) < FEWEST_CLIPS:
        raise UserError(f"{both}: they have {len(clips)} scored clips in common, {FEWEST_CLIPS} are needed; {remedy}")
    if changes := of_clips(first.reference, second.reference, clips):
        raise UserError(f"{both}: {told(changes, first.name, second.name)}; {remedy}")
    for net in sorted(first.reference.features.keys() & second.reference.features.keys()):
        if any(f"[{net}]" in score for score in apart):
            continue  # measured in another way: they tell nothing
        mine, theirs = (study.reference.features[net].of(clips) for study in (first, second))
        if mine.shape != theirs.shape or np.abs(mine - theirs).max() > SAME_CLIP * mine.std():
            raise UserError(f"{both}: true clips of the same names have other {net} features; {remedy}")


def _of_row(
    first: tuple[Study, Row], second: tuple[Study, Row], clips: Clips, apart: frozenset[str]
) -> list[Difference]:
    """On the training seeds that both rows have, every score that both have for all of them."""
    trials = [_by_seed(study, row) for study, row in (first, second)]
    seeds = sorted(trials[0].keys() & trials[1].keys())
    ways = [clip_values(study, clips) for study, _ in (first, second)]
    shots = first[0].shots(clips)
    out = []
    for score in (name for name in DIRECTIONS if seeds and name in ways[0] and name not in apart):
        before, after = (
            [way[score](of_seed[seed]) for seed in seeds] for way, of_seed in zip(ways, trials, strict=True)
        )
        pairs = [b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
        if len(pairs) == len(seeds):
            found = crossed_interval(np.stack(pairs), shots)
            name = _name(first[1], second[1])
            out.append(Difference(name, score, found.mean, found.low, found.high, found.seeds, found.shots))
    return out


def _by_seed(study: Study, row: Row) -> dict[int, Trial]:
    return {(trial := study.by_id[trial_id]).spec.config.seed: trial for trial_id in row.trial_ids}


def _name(mine: Row, theirs: Row) -> str:
    """With what varies beside the rank, in either study."""
    return mine.full_name if mine.series else theirs.full_name


if __name__ == "__main__":
    raise SystemExit(main())
