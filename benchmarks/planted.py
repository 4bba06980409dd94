"""Do the answer, the differences and the tests over ranks find what is planted, and nothing else?

    OMP_NUM_THREADS=1 python -m benchmarks.planted [--studies 200]            (10 minutes on one core)

In: nothing; simulated studies (`benchmarks/ledgers.py`) are analysed as real ones are. Out: Markdown tables: the
planted spreads and those of the shipped pilot; how often the smallest rank that is enough is found; false alarms; the
decision; words for trends; coverage of intervals. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial

import numpy as np

from analysis.power.spreads import Spreads, of_pilot, variances
from analysis.statistics.answer import ENOUGH, WORSE, Answer, answers
from analysis.statistics.decision import WINNER, Decision, decisions
from analysis.statistics.differences import Difference, differences
from analysis.statistics.intervals import crossed_interval
from analysis.statistics.rank_tests import RankTests, rank_tests
from analysis.statistics.trend import FALLS, NOT_SHOWN, PEAKS, RISES
from analysis.study.clip_values import clip_scorers
from analysis.study.load import Study
from analysis.study.rows import estimate
from benchmarks.ledgers import (
    CLIPS,
    FVD,
    GAP,
    JEDI,
    KVD,
    KVD_VJEPA,
    LOSS,
    RANKS,
    Kind,
    gap_values,
    ledger,
    of_vjepa,
)
from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.metrics.distances import Array
from sweeps.ledger import SHARE

SCORES = (LOSS, KVD)
NONE = Kind("no effect", (0.0,) * 6)
EQUAL = Kind("all ranks alike", (1.0,) * 6)
FLAT = Kind("flat after 16", (0.5, 0.75, 1.0, 1.0, 1.0, 1.0))
FLAT_SHOTS = Kind("flat after 16, 4 clips a shot", FLAT.shares, clips_per_shot=4)
FLAT_SEEDS = Kind("flat after 16, 8 seeds", FLAT.shares, seeds=8)
PEAK = Kind("peak at 16", (0.6, 0.8, 1.0, 0.8, 0.6, 0.4))
RISING = Kind("rising to 128", (0.3, 0.44, 0.58, 0.72, 0.86, 1.0))
KINDS = (NONE, EQUAL, FLAT, FLAT_SHOTS, FLAT_SEEDS, PEAK, RISING)
MOSTLY, COVERED = (0.9, 1.0), (0.93, 0.97)
RARELY, NOMINAL, NO_MORE = (0.0, 0.05), (0.03, 0.07), (0.0, 0.07)  # 5 % +- 2; a corrected test may be below


@dataclass(frozen=True)
class Found:
    """What the analysis finds for one score of one study."""

    answer: Answer
    decision: Decision  # of both scores
    differences: tuple[Difference, ...]  # by rank, as RANKS
    tests: RankTests


@dataclass(frozen=True)
class Line:
    """`share` of the studies, or of the claims, with this conclusion; it should lie within `target`, if any."""

    kind: str
    conclusion: str
    share: float
    target: tuple[float, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        return self.target is None or self.target[0] <= self.share <= self.target[1]


Part = Callable[[Kind, Sequence[Found]], list[Line]]
Values = Callable[[Kind, np.random.Generator], Array]


def look(study: Study, scores: Sequence[str] = SCORES) -> dict[str, Found]:
    """Score -> what the report of that study concludes."""
    estimates = estimate(study)
    answered = answers(estimates)
    found, (decision,) = {each.score: each for each in answered}, decisions(estimates, answered)
    tests = {each.score: each for each in rank_tests(estimates)}
    against = differences(estimates)
    return {
        score: Found(found[score], decision, tuple(each for each in against if each.score == score), tests[score])
        for score in scores
    }


def looks(kind: Kind, count: int) -> dict[str, list[Found]]:
    """Score -> the findings of each of `count` studies; study i of a kind is always the same."""
    found = [look(ledger(kind, np.random.default_rng([index, *kind.name.encode()]))) for index in range(count)]
    return {score: [each[score] for each in found] for score in SCORES}


def smallest(kind: Kind, found: Sequence[Found]) -> list[Line]:
    """The rank that is called the smallest rank that is enough one, against the planted one."""
    truth = RANKS[_sufficient(kind).index(True)]
    named = [each.answer.smallest.rank if each.answer.smallest else 0 for each in found]
    return [
        Line(kind.name, f"rank {truth} is enough", _share(rank == truth for rank in named), MOSTLY),
        Line(kind.name, f"a larger one is; {truth} is open", _share(rank > truth for rank in named)),
        Line(kind.name, "all open", _share(rank == 0 for rank in named)),
        Line(kind.name, "a smaller one is enough: false", _share(0 < rank < truth for rank in named), RARELY),
    ]


def decided(kind: Kind, found: Sequence[Found]) -> list[Line]:
    """The decision over both scores, against what is planted."""
    right = [rank for rank, ok in zip(RANKS, _sufficient(kind), strict=True) if ok and max(kind.shares) > 0]
    named = [(each.decision.rank, each.decision.word == WINNER) for each in found]
    first = [(rank, True) for rank in right[:1]]
    wrong = [rank is not None and rank not in right for rank, _ in named]
    return [
        Line(kind.name, "the smallest that is enough wins", _share(each in first for each in named)),
        Line(kind.name, "a rank that is enough is named", _share(rank in right for rank, _ in named)),
        Line(kind.name, "one that is not: false", _share(wrong), RARELY),
        Line(kind.name, "another winner: false", _share(won and rank not in right[:1] for rank, won in named), RARELY),
    ]


def against_base(kind: Kind, found: Sequence[Found]) -> list[Line]:
    """Where no rank differs from the base: differences that are claimed."""
    wrong = [[each.verdict != "undecided" for each in one.differences] for one in found]
    gains = _share(any(rank.verdict == ENOUGH for rank in each.answer.ranks) for each in found)
    return [
        *_each_and_any(kind, "better or worse than the base", wrong, NOMINAL),
        Line(kind.name, "some rank is enough", gains, RARELY),
    ]


def insufficient(kind: Kind, found: Sequence[Found]) -> list[Line]:
    """Sufficient ranks that are called insufficient."""
    wrong = [
        [rank.verdict == WORSE for rank, ok in zip(each.answer.ranks, _sufficient(kind), strict=True) if ok]
        for each in found
    ]
    return _each_and_any(kind, "worse, though enough", wrong, NO_MORE)


def distinguished(kind: Kind, found: Sequence[Found]) -> list[Line]:
    """Where all ranks are equal: ranks that are distinguished from the best."""
    wrong = [[each.distinct for each in one.tests.pairs.others] for one in found if one.tests.pairs]
    return _each_and_any(kind, "different from the best rank", wrong, NO_MORE)


def words(right: str, *wrong: str) -> Part:
    """The words for the trend over the ranks: `right` should be nearly always used, each of `wrong` hardly ever."""

    def part(kind: Kind, found: Sequence[Found]) -> list[Line]:
        trends = [one.tests.trend.word if one.tests.trend else NOT_SHOWN for one in found]
        peaks = f"{PEAKS} 16"
        named = [word if word in (RISES, FALLS, NOT_SHOWN, peaks) else f"{PEAKS} other than 16" for word in trends]
        targets = {right: MOSTLY} | dict.fromkeys(wrong, RARELY)
        order = (RISES, FALLS, peaks, f"{PEAKS} other than 16", NOT_SHOWN)
        return [Line(kind.name, word, named.count(word) / len(named), targets.get(word)) for word in order]

    return part


def coverage(kind: Kind, found: Sequence[Found], target: tuple[float, float] | None = None) -> list[Line]:
    """95 % intervals of rank minus base: how often they cover the true difference, their half width and bias."""
    return _covered(kind, [each for one in found for each in one.differences], target)


def distance_values(score: str, kind: Kind, random: np.random.Generator, first: int | None = None) -> Array:
    """Of a distance, by trial: base, rank by rank, seed by seed (1 + R S, N), or the `first` of these."""
    study = of_vjepa(ledger(kind, random)) if score.endswith("[vjepa]") else ledger(kind, random)
    scorer = clip_scorers(study, CLIPS)[score]
    return np.stack([found for trial in study.trials[:first] if (found := scorer(trial)) is not None])


def coverage_of(score: str, values: Values, count: int) -> list[Line]:
    """Coverage of a score that `look` does not analyse, and the false words where no rank differs from the base."""
    out, false = [], []
    for kind in KINDS:
        seen = []
        shots = [str(index // kind.clips_per_shot) for index in range(len(CLIPS))]
        for index in range(count):
            found = values(kind, np.random.default_rng([index, *kind.name.encode()]))
            gains = (found[1:] - found[0]).reshape(len(RANKS), kind.seeds, len(CLIPS))
            own = zip(RANKS, gains, strict=True)
            seen += [Difference(f"rank {rank}", score, crossed_interval(gain, shots)) for rank, gain in own]
        out += _covered(kind, seen)
        false += [each.verdict != "undecided" for each in seen if kind is NONE]
    mean = float(np.mean([line.share for line in out]))
    return [
        *out,
        Line("all of these", out[0].conclusion, mean, COVERED),
        Line(NONE.name, "better or worse than the base, a rank", _share(false), NO_MORE),
    ]


def _covered(kind: Kind, seen: Sequence[Difference], target: tuple[float, float] | None = None) -> list[Line]:
    """`seen`: by study and rank."""
    truths = [kind.difference(seen[0].score, rank) for rank in RANKS] * (len(seen) // len(RANKS))
    held = _share(each.interval.low <= true <= each.interval.high for each, true in zip(seen, truths, strict=True))
    bias = np.mean([each.interval.mean - true for each, true in zip(seen, truths, strict=True)])
    half = np.mean([(each.interval.high - each.interval.low) / 2 for each in seen])
    return [Line(kind.name, "covers the true difference", held, target, f" (±{half:.2g}, bias {bias:+.1g})")]


def tables(found: dict[Kind, dict[str, list[Found]]]) -> dict[str, dict[str, list[Line]]]:
    """Title -> score -> lines, for the kinds in `found`."""
    same = (NOT_SHOWN, RISES, FALLS)
    plan: dict[str, list[tuple[Part, tuple[Kind, ...]]]] = {
        "Smallest rank that is enough": [(smallest, (FLAT, FLAT_SHOTS, FLAT_SEEDS, PEAK, RISING))],
        "False alarms": [(against_base, (NONE,)), (distinguished, (NONE, EQUAL)), (insufficient, (NONE, EQUAL, FLAT))],
        "Words for the order of the ranks": [
            (words(*same), (NONE, EQUAL)),
            (words(RISES, FALLS), (FLAT, RISING)),
            (words(f"{PEAKS} 16", RISES, FALLS), (PEAK,)),
        ],
        "95 % intervals of rank minus base": [(coverage, KINDS)],
    }
    out = {
        title: {
            score: [
                line
                for part, kinds in parts
                for kind in kinds
                if kind in found
                for line in part(kind, found[kind][score])
            ]
            for score in SCORES
        }
        for title, parts in plan.items()
    }
    out["Decision"] = {"both scores": [line for kind in found for line in decided(kind, found[kind][LOSS])]}
    for lines in out["95 % intervals of rank minus base"].values():
        lines.append(Line("all of these", lines[0].conclusion, float(np.mean([line.share for line in lines])), COVERED))
    return out


def sizes(count: int) -> str:
    """Planted gains and spreads (standard deviations) as the analysis estimates them, and those of the pilot."""
    names = [each.name for each in fields(Spreads)]
    lines = ["| gains | " + " | ".join(names).replace("_", " x ") + " |", "|:--|" + "--:|" * len(names)]
    for score in SCORES:
        seen = np.mean([variances(gains(EQUAL, score, index)) for index in range(count)], axis=0)
        planted = (-EQUAL.difference(score, RANKS[0]), *np.sqrt(np.maximum(seen, 0)))
        for name, numbers in (("planted", planted), ("pilot", astuple(of_pilot()[score]))):
            lines.append(f"| {score}, {name} | " + " | ".join(f"{each:.2g}" for each in numbers) + " |")
    return "\n".join(lines)


def gains(kind: Kind, score: str, seed: int) -> Array:
    """Over the base, of a study of that kind, (R, S, N)."""
    study = ledger(kind, np.random.default_rng(seed))
    values = np.stack(
        [found for each in study.trials if (found := clip_scorers(study, CLIPS)[score](each)) is not None]
    )
    return np.asarray((values[0] - values[1:]).reshape(len(RANKS), -1, len(CLIPS)), dtype=np.float64)


def markdown(lines: dict[str, list[Line]]) -> str:
    """One row per conclusion and kind, the scores side by side; a missed target in bold.

    A conclusion that is never drawn and has no target is left out.
    """
    out = ["| planted | conclusion | " + " | ".join(lines) + " | target |", "|:--|:--|" + "--:|" * len(lines) + ":--|"]
    for row in zip(*lines.values(), strict=True):
        if row[0].target is None and not any(each.share for each in row):
            continue
        shares = [f"{each.share:.1%}{each.note}" for each in row]
        marked = [text if each.met else f"**{text}**" for text, each in zip(shares, row, strict=True)]
        out.append(f"| {row[0].kind} | {row[0].conclusion} | " + " | ".join(marked) + f" | {_wanted(row[0].target)} |")
    return "\n".join(out)


def _sufficient(kind: Kind) -> list[bool]:
    """Whether each rank keeps SHARE of the best gain by construction."""
    return [share >= SHARE * max(kind.shares) for share in kind.shares]


def _share(hits: Iterable[bool]) -> float:
    return float(np.mean(list(hits)))


def _each_and_any(
    kind: Kind, conclusion: str, wrong: list[list[bool]], target: tuple[float, float] | None = None
) -> list[Line]:
    """The share of all claims, and of studies with at least one."""
    return [
        Line(kind.name, f"{conclusion}, a rank", _share(hit for one in wrong for hit in one), target),
        Line(kind.name, f"{conclusion}, any of {len(wrong[0])}", _share(any(one) for one in wrong)),
    ]


def _wanted(target: tuple[float, float] | None) -> str:
    if target is None:
        return ""
    low, high = target
    return f"at least {low:.0%}" if high == 1 else f"at most {high:.0%}" if low == 0 else f"{low:.0%} to {high:.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> int:
        parser = Parser(prog="python -m benchmarks.planted", description=(__doc__ or "").splitlines()[0])
        parser.add_argument("--studies", type=int, default=200, help="simulated studies of each kind; default 200")
        count = parser.parse_args(arguments).studies
        if count < 4:
            raise UserError(f"--studies {count}: give at least 4")
        return measure(count)

    return exit_status(command)


def measure(count: int) -> int:
    """Print all tables; 1 if a target is missed."""
    start = time.perf_counter()
    print(f"{count} studies of each kind: ranks {RANKS}, {len(CLIPS)} clips, 3 seeds. Standard deviations:\n")
    print(sizes(count // 4), flush=True)
    seen: dict[Kind, dict[str, list[Found]]] = {}
    for kind in KINDS:
        seen[kind] = looks(kind, count)
        print(f"{kind.name}: {count} studies, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    found = tables(seen)
    more: dict[str, Values] = {score: partial(distance_values, score) for score in (FVD, JEDI, KVD_VJEPA)}
    for score, values in (more | {GAP: gap_values}).items():
        found[f"95 % intervals of rank minus base, {score}"] = {score: coverage_of(score, values, count)}
        print(f"{score}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    for title, lines in found.items():
        print(f"\n{title}\n\n{markdown(lines)}")
    print(f"\n{time.perf_counter() - start:.0f} s; a missed target is bold")
    return 0 if all(line.met for lines in found.values() for each in lines.values() for line in each) else 1


if __name__ == "__main__":
    raise SystemExit(main())
