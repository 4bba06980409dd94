"""What does a study that goes on until it knows cost, and is it right? And are predicted chances those of simulation?

    OMP_NUM_THREADS=1 python -m benchmarks.rounds [--studies 1000]            (a minute on one core)

In: nothing; gains with the spreads of study `quick` (`analysis/power/spreads.py`) are drawn with crossed effects of
ranks, seeds and clips and judged by the rule of the answer. Out: Markdown tables. Exit status 1 if a target is missed.
A run is one seed of one rank; the runs of a study cost alike, so that shares of runs are shares of GPU-hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from analysis.power.chances import Design, chances, margins
from analysis.power.rounds import look_levels
from analysis.power.spreads import Spreads, of_quick
from analysis.study.files import Array
from cinelora.core.cli import Parser, exit_status
from sweeps.ledger import SHARE
from sweeps.looks import Level, schedule

RANKS, CLIPS, SCORE = (4, 8, 16, 32, 64, 128), 96, "kvd[tnv2]"
KINDS = {
    "flat after 16": (0.5, 0.75, 1.0, 1.0, 1.0, 1.0),
    "peak at 16": (0.6, 0.8, 1.0, 0.8, 0.6, 0.4),
    "rising to 128": (0.3, 0.44, 0.58, 0.72, 0.86, 1.0),
}
FIRST, MOST, FIXED = 3, (8, 12), (3, 5, 6, 7, 8, 9, 10, 12)
DESIGNS = tuple(Design(*each) for each in product((2, 3, 5), (48, 96, 192)))
QUICK, NEAR = of_quick()[SCORE], 0.05


@dataclass(frozen=True)
class Ended:
    """How often, 0..1: the smallest sufficient rank is named; it is the winner, so that all smaller ones are shown to
    be worse; a smaller one is named, or a larger one wins; none is named."""

    found: float
    won: float
    false: float
    undecided: float
    runs: float  # mean of a study


def gains(own: Spreads, shares: Sequence[float], count: int, seeds: int, clips: int) -> Array:
    """(D studies, R, S, N)."""
    ranks, draw = len(shares), np.random.default_rng([seeds, clips, round(1000 * sum(shares))]).standard_normal
    found = own.gain * np.asarray(shares)[:, None, None] + own.clip * draw((count, 1, 1, clips))
    found = found + own.rank_clip * draw((count, ranks, 1, clips)) + own.seed_clip * draw((count, 1, seeds, clips))
    found = found + own.seed * draw((count, 1, seeds, 1)) + own.rank_seed * draw((count, ranks, seeds, 1))
    return np.asarray(found + own.rest * draw((count, ranks, seeds, clips)), dtype=np.float64)


def contrasts(values: Array, level: Level) -> tuple[Array, Array]:
    """Of (D, R, S, N): whether gain i - share * gain j is shown to be above zero, and below, (D, R, R) each. The rule
    of `analysis/statistics/answer.py` for a score that all ranks gain on, for all studies at once."""
    count, ranks, seeds, clips = values.shape
    mean = values.mean((2, 3))
    of_seeds = values.mean(3) - mean[..., None]
    of_clips = values.mean(2) - mean[..., None]
    rest = values - of_seeds[..., None] - of_clips[:, :, None] - mean[..., None, None]
    parts = (
        of_seeds * np.sqrt(clips / (seeds - 1)),
        of_clips * np.sqrt(seeds / (clips - 1)),
        rest.reshape(count, ranks, -1) / np.sqrt((seeds - 1) * (clips - 1)),
    )
    products = [each @ np.swapaxes(each, 1, 2) for each in parts]
    apart = mean[:, :, None] - SHARE * mean[:, None, :]
    above, below = (
        margins((products[0], products[1], products[2]), SHARE, Design(seeds, clips), 1 - one)
        for one in (level.enough, level.worse)
    )
    return apart > above, apart < -below


def ended(kind: str, looks: Sequence[int], levels: Sequence[Level], count: int, clips: int = CLIPS) -> Ended:
    """`count` studies that drop ranks and add seeds look by look; with one look, a fixed design."""
    shares = KINDS[kind]
    truth, ranks = _smallest(shares), np.arange(len(shares))
    values = gains(QUICK, shares, count, looks[-1], clips)
    live, going = np.ones((count, len(shares)), bool), np.ones(count, bool)
    named, won = np.full(count, len(shares)), np.zeros(count, bool)
    runs, before = np.zeros(count), 0
    for seeds, level in zip(looks, levels, strict=True):
        runs += np.where(going, live.sum(1) * (seeds - before), 0)
        before = seeds
        above, below = contrasts(values[:, :, :seeds], level)
        enough = live & np.all(above | ~live[:, None, :], axis=2)
        worse = live & np.any(below & live[:, None, :], axis=2)
        live = np.where(going[:, None], live & ~worse, live)
        first = np.where(np.any(enough & live, axis=1), np.argmax(enough & live, axis=1), len(shares))
        named = np.where(going, first, named)
        won = np.where(going, (first < len(shares)) & ~np.any(live & (ranks < first[:, None]), axis=1), won)
        going &= ~won & np.any(live, axis=1)
    false = (named < truth) | (won & (named > truth))
    parts = (named == truth, won & (named == truth), false, named == len(shares), runs)
    return Ended(*(float(each.mean()) for each in parts))


def _smallest(shares: Sequence[float]) -> int:
    return next(index for index, each in enumerate(shares) if each >= SHARE * max(shares))


def rounds_table(count: int) -> tuple[list[str], bool]:
    """Lines of Markdown; whether the targets are met. The kind is not known beforehand: a fixed design is as good as
    rounds if its least share over the kinds is."""
    single = (Level(0.05, 0.05 / (len(RANKS) - 1)),)
    fixed = {seeds: {kind: ended(kind, (seeds,), single, count) for kind in KINDS} for seeds in FIXED}
    rows = {f"{seeds} seeds": each for seeds, each in fixed.items()}
    last, met = [], True
    for most in MOST:
        counts = schedule(FIRST, most)
        own = {kind: ended(kind, counts, look_levels(counts, len(RANKS)), count) for kind in KINDS}
        rows[f"rounds, {FIRST} to {most} seeds"] = own
        share, runs = min(each.found for each in own.values()), float(np.mean([each.runs for each in own.values()]))
        equal = min(
            (seeds for seeds, each in fixed.items() if min(e.found for e in each.values()) >= share), default=None
        )
        last.append(
            f"Rounds, {FIRST} to {most} seeds: found {share:.0%} or more of each kind with {runs:.1f} runs (mean)"
        )
        last[-1] += "" if equal is None else f", {runs / (len(RANKS) * equal):.2f} of those of the fixed {equal} seeds"
        met = met and share >= 0.9 - 2 * np.sqrt(0.09 / count) and max(each.false for each in own.values()) <= 0.05
        met = met and equal is not None and runs <= 0.7 * len(RANKS) * equal
    lines = ["| planted | design | found | and wins | false | none | runs |", "|:--|:--|--:|--:|--:|--:|--:|"]
    for kind in KINDS:
        for name, by_kind in rows.items():
            one = by_kind[kind]
            lines.append(f"| {kind} | {name} | {one.found:.0%} | {one.won:.0%} | {one.false:.1%} ")
            lines[-1] += f"| {one.undecided:.0%} | {one.runs:.1f} |"
    return [*lines, "", *last], met


def power_table(count: int) -> tuple[list[str], bool]:
    """Predicted and simulated chances of naming the smallest sufficient rank; whether all are near."""
    lines = ["| seeds x clips | " + " | ".join(f"{kind}: predicted, simulated" for kind in KINDS) + " |"]
    lines.append("|:--|" + "--:|" * len(KINDS))
    near, single = True, Level(0.05, 0.05 / (len(RANKS) - 1))
    for design in DESIGNS:
        cells = []
        predicted = chances(QUICK, list(KINDS.values()), SHARE, design)
        for shares, own in zip(KINDS.values(), predicted, strict=True):
            above, _ = contrasts(gains(QUICK, shares, count, design.seeds, design.clips), single)
            enough = np.all(above, axis=2)
            first = np.where(np.any(enough, axis=1), np.argmax(enough, axis=1), len(shares))
            share = float((first == _smallest(shares)).mean())
            near = near and abs(share - own.named) <= NEAR
            cells.append(f"{own.named:.0%}, {share:.0%}")
        lines.append(f"| {design.seeds} x {design.clips} | " + " | ".join(cells) + " |")
    return lines, near


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> int:
        parser = Parser(prog="python -m benchmarks.rounds", description=(__doc__ or "").splitlines()[0])
        parser.add_argument("--studies", type=int, default=1000, help="simulated studies of each kind; default 1000")
        count = parser.parse_args(arguments).studies
        parts = [each(count) for each in (rounds_table, power_table)]
        print("\n\n".join("\n".join(lines) for lines, _ in parts))
        return 0 if all(met for _, met in parts) else 1

    return exit_status(command)


if __name__ == "__main__":
    raise SystemExit(main())
