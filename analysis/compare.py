"""Two studies compared: what differs between them, and the rows that both have, clip by clip.

In: two study folders, which are only read. Out: lines to read; with --out compare.md and compare.csv.
Run:  python -m analysis.compare studies/first studies/second
      python -m analysis.compare studies/first studies/second --out /tmp/compared

Two rows match if they agree in rank and in every setting that varies within either study. Settings that are constant
in each study are not compared: their effect is what the comparison shows. A learning rate tuned for each rank belongs
to the rank; where a rank has several rates, rows must agree in the rate too.
Values are paired by seed and clip (same first frame, caption and starting noise), second study minus first, with the
intervals of `analysis/statistics/intervals.py`. A score with different protocols is listed and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.statistics.differences import Difference, differences_csv
from analysis.statistics.intervals import LEVEL, ONE_SEED, crossed_interval
from analysis.study.changes import Change, listing, of_clips, of_protocols, of_settings, of_versions
from analysis.study.files import Clips
from analysis.study.load import Study, load_study, standalone
from analysis.study.merge import chosen_by_all, named
from analysis.study.rows import Estimates, Row, estimate, settings, varying
from analysis.study.scores import DIRECTIONS
from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.files import check_writable, whole_file
from cinelora.metrics.primary import primary_scores

RATE = "train.learning_rate"
ALWAYS = frozenset({"method", "lora.rank"})  # settings that always identify a row
FEWEST_CLIPS = 3
SAME_CLIP = 1e-3  # standard deviations: between machines, features of one reference clip differ by less
Family = tuple[str, str]  # as in `analysis/study/rows.py`: arm, `standalone`


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    changes: tuple[Change, ...]
    clips: int
    chosen: tuple[str, ...]  # the scores that decide in both studies, where both list the same
    found: tuple[Difference, ...]  # of the rows that both have, second minus first
    left_out: tuple[str, ...]  # a sentence for each row or score that could not be compared


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: _command(arguments))


def _command(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m analysis.compare", description="Compare two studies.")
    parser.add_argument("studies", type=Path, nargs=2, metavar="STUDY", help="two study folders, only read")
    parser.add_argument("--out", type=Path, default=None, help="folder for compare.md and compare.csv; default: none")
    options = parser.parse_args(arguments)
    if options.out is not None:
        check_writable("--out", options.out)
    if options.studies[0].resolve() == options.studies[1].resolve():
        raise UserError(f"{options.studies[0]}: twice the same study; name two studies")
    found = compare(*named([load_study(root) for root in options.studies]))
    text = markdown(found)
    print(text, end="")
    if options.out is not None:
        for name, content in (("compare.md", text), ("compare.csv", differences_csv(found.found))):
            with whole_file(options.out / name) as path:
                path.write_text(content, "utf-8", "backslashreplace")


def compare(first: Study, second: Study) -> Comparison:
    """UserError where fewer than FEWEST_CLIPS clips are shared, or clips of the same name differ."""
    whole = [estimate(study) for study in (first, second)]
    clips = tuple(sorted(set(whole[0].scores.clips).intersection(whole[1].scores.clips)))
    protocols = of_protocols(first, second)
    _check_clips(first, second, clips, protocols.keys())
    mine, theirs = (replace(each, scores=replace(each.scores, clips=clips)) for each in whole)
    pairs, alone = matched(mine, theirs)
    left_out = [
        f"Only {each.study.name} has: {'; '.join(row.full_name for row in rows)}."
        for each, rows in zip((mine, theirs), alone, strict=True)
        if rows
    ]
    found: list[Difference] = []
    for one, other in pairs:
        name = one.full_name if one.series else other.full_name
        of_row = _of_row(name, (mine, one), (theirs, other), protocols.keys())
        found += of_row
        left_out += [] if of_row else [f"{name}: no training seed and score in common."]
    left_out += [f"{score}: different protocols, see above." for score in DIRECTIONS if score in protocols]
    of_scores = [each for changes in protocols.values() for each in changes]
    changes = (*of_settings(first, second), *of_scores, *of_versions(first, second))
    chosen = chosen_by_all((first, second))
    return Comparison(first.name, second.name, changes, len(clips), chosen, tuple(found), tuple(left_out))


def matched(first: Estimates, second: Estimates) -> tuple[list[tuple[Row, Row]], tuple[list[Row], list[Row]]]:
    """The finished rows that both have, in the order of the first; those that only the first or the second has.

    Rows of a family are identified by the settings that vary among them in either study, but the rate, and ALWAYS.
    """
    families: list[dict[Family, list[tuple[Row, dict[str, str]]]]] = [{}, {}]
    for found, by_family in zip((first, second), families, strict=True):
        for row in (row for row in found.rows if row.done):
            spec = found.trials(row)[0].spec
            family = (spec.config.arm, standalone(spec.config))
            by_family.setdefault(family, []).append((row, settings(spec)))
    pairs: list[tuple[Row, Row]] = []
    for family, rows in families[0].items():
        others = families[1].get(family, [])
        names = ALWAYS.union(*(varying(texts for _, texts in each) for each in (rows, others))) - {RATE}
        groups: list[dict[object, list[Row]]] = [{}, {}]
        for each, by_key in zip((rows, others), groups, strict=True):
            for row, texts in each:
                by_key.setdefault(frozenset((name, texts.get(name)) for name in names), []).append(row)
        pairs += [pair for key, own in groups[0].items() for pair in _pairs(own, groups[1].get(key, []))]
    paired = [{pair[index].key for pair in pairs} for index in (0, 1)]
    mine, theirs = (
        [row for row in found.rows if row.done and row.key not in keys]
        for found, keys in zip((first, second), paired, strict=True)
    )
    return pairs, (mine, theirs)


def _pairs(mine: Sequence[Row], theirs: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows that agree but for the rate: of several, those of the same rate."""
    if len(mine) == len(theirs) == 1:
        return [(mine[0], theirs[0])]
    rates = {row.key.learning_rate: row for row in theirs}
    return [(row, rates[row.key.learning_rate]) for row in mine if row.key.learning_rate in rates]


def _check_clips(first: Study, second: Study, clips: Clips, differing: Iterable[str]) -> None:
    both = f"{first.name} and {second.name} cannot be compared clip by clip"
    remedy = "give studies of the same held-out clips"
    if len(clips) < FEWEST_CLIPS:
        raise UserError(f"{both}: they have {len(clips)} scored clips in common, {FEWEST_CLIPS} are needed; {remedy}")
    if changes := of_clips(first.reference, second.reference, clips):
        raise UserError(f"{both}: {listing(changes, first.name, second.name)}; {remedy}")
    for net in sorted(first.reference.features.keys() & second.reference.features.keys()):
        if any(f"[{net}]" in score for score in differing):
            continue  # computed by another protocol, so the features may differ
        mine, theirs = (study.reference.features[net].of(clips) for study in (first, second))
        if mine.shape != theirs.shape or np.abs(mine - theirs).max() > SAME_CLIP * mine.std():
            raise UserError(f"{both}: reference clips of the same names have other {net} features; {remedy}")


def _of_row(
    name: str, first: tuple[Estimates, Row], second: tuple[Estimates, Row], differing: Iterable[str]
) -> list[Difference]:
    """On the training seeds that both rows have, every score that both have for all of them."""
    (mine, theirs), trials = (first[0], second[0]), [each.by_seed(row) for each, row in (first, second)]
    seeds = sorted(trials[0].keys() & trials[1].keys())
    out = []
    for score in (each for each in mine.clip_scores if seeds and each not in differing):
        before = [mine.scorers[score](trials[0][seed]) for seed in seeds]
        after = [theirs.scorers[score](trials[1][seed]) for seed in seeds]
        pairs = [b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
        if len(pairs) == len(seeds):
            out.append(Difference(name, score, crossed_interval(np.stack(pairs), mine.shots)))
    return out


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
            f"{found.second} minus {found.first}, paired by clip and training seed: {LEVEL:.0%} intervals over "
            f"{found.clips} clips of {found.found[0].interval.shots} shots and the seeds ({ONE_SEED}); better and "
            f"worse refer to {found.second}."
        )
        parts.append(_table(found.found, found.chosen))
    else:
        parts.append("No row can be compared.")
    if found.left_out:
        parts.append("\n".join(f"- {line}" for line in found.left_out))
    return "\n\n".join(parts) + "\n"


def _table(found: Sequence[Difference], chosen: Sequence[str]) -> str:
    """The best scores that both have; the CSV has all."""
    known = {each.score for each in found}
    scores = [score for score in primary_scores([known], chosen).compared if score in known]
    by_place = {(each.row, each.score): each for each in found}
    lines = []
    for row, seeds in {each.row: each.interval.seeds for each in found}.items():
        cells = [_words(by_place[row, score]) if (row, score) in by_place else "-" for score in scores]
        lines.append(f"| {' | '.join((row, str(seeds), *cells))} |")
    return "\n".join([f"| {' | '.join(('row', 'seeds', *scores))} |", "|---" * (2 + len(scores)) + "|", *lines])


def _words(each: Difference) -> str:
    interval = each.interval
    return "equal" if interval.mean == interval.low == interval.high == 0 else str(each)


if __name__ == "__main__":
    raise SystemExit(main())
