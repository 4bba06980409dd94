"""What does a study that goes on until it knows cost, and is it right? And are predicted chances those of simulation?

    OMP_NUM_THREADS=1 python -m benchmarks.rounds [--studies 1000]            (10 seconds on one core)

In: nothing; studies with the gains and spreads of the shipped pilot (`analysis/power/spreads.py`) are simulated
(`analysis/power/simulated.py`). Out: Markdown tables. Exit status 1 if a target is missed.
A run is one seed of one rank; the runs of a study cost alike, so that shares of runs are shares of GPU-hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from analysis.power.chances import Design, chances
from analysis.power.rounds import look_levels
from analysis.power.simulated import Ended, ended
from analysis.power.spreads import of_pilot
from cinelora.core.cli import Parser, exit_status
from sweeps.ledger import SHARE
from sweeps.looks import Level, schedule

RANKS, CLIPS, SCORE = (4, 8, 16, 32, 64, 128), 96, "kvd[tnv2]"
KINDS = {
    "flat after 16": (0.5, 0.75, 1.0, 1.0, 1.0, 1.0),
    "peak at 16": (0.6, 0.8, 1.0, 0.8, 0.6, 0.4),
    "rising to 128": (0.3, 0.44, 0.58, 0.72, 0.86, 1.0),
}
FIRST, MOST, FIXED = 3, (8, 12), (2, 3, 4, 5, 6, 7, 8, 9, 10, 12)
DESIGNS = tuple(Design(*each) for each in product((2, 3, 5), (48, 96, 192)))
PILOT, NEAR = of_pilot()[SCORE], 0.05
SINGLE = (Level(0.05, 0.05 / (len(RANKS) - 1)),)  # of a fixed design


def simulated(counts: Sequence[int], levels: Sequence[Level], count: int) -> dict[str, Ended]:
    """By kind."""
    found = ended([PILOT], list(KINDS.values()), counts, levels, SHARE, CLIPS, count)
    return dict(zip(KINDS, found, strict=True))


def rounds_table(count: int) -> tuple[list[str], bool]:
    """Lines of Markdown; whether the targets are met. The kind is not known beforehand: a fixed design is as good as
    rounds if its least share over the kinds is."""
    fixed = {seeds: simulated((seeds,), SINGLE, count) for seeds in FIXED}
    schedules = {f"rounds, {FIRST} to {most} seeds": schedule(FIRST, most) for most in MOST}
    rounds = {name: simulated(each, look_levels(each, len(RANKS)), count) for name, each in schedules.items()}
    lines = ["| planted | design | found | and wins | false | none | runs |", "|:--|:--|--:|--:|--:|--:|--:|"]
    for kind in KINDS:
        for name, by_kind in ({f"{seeds} seeds": each for seeds, each in fixed.items()} | rounds).items():
            one = by_kind[kind]
            lines.append(f"| {kind} | {name} | {one.found:.0%} | {one.won:.0%} | {one.false:.1%} ")
            lines[-1] += f"| {one.undecided:.0%} | {one.runs:.1f} |"
    lines += [
        "",
        "| design | planted | found | false | none | runs | fixed design that finds as often | share of its cost |",
    ]
    lines.append("|:--|:--|--:|--:|--:|--:|:--|--:|")
    met = True
    for name, own in rounds.items():
        for kind, one in own.items():
            seeds = _as_often({each: found[kind].found for each, found in fixed.items()}, one.found)
            lines.append(
                f"| {name} | {kind} | {one.found:.0%} | {one.false:.1%} | {one.undecided:.0%} | {one.runs:.1f} | "
            )
            lines[-1] += _beside(one.runs, seeds)
        share, runs = min(each.found for each in own.values()), float(np.mean([each.runs for each in own.values()]))
        worst, none = max(each.false for each in own.values()), max(each.undecided for each in own.values())
        seeds = _as_often({each: min(e.found for e in found.values()) for each, found in fixed.items()}, share)
        lines.append(f"| {name} | all: worst, mean runs | {share:.0%} | {worst:.1%} | {none:.0%} | {runs:.1f} | ")
        lines[-1] += _beside(runs, seeds)
        met = met and share >= 0.9 - 2 * np.sqrt(0.09 / count) and worst <= 0.05
        met = met and seeds is not None and runs <= 0.7 * len(RANKS) * seeds
    return lines, met


def _as_often(found: Mapping[int, float], share: float) -> int | None:
    """The fewest seeds of a fixed design that finds as often, to a percent."""
    return min((seeds for seeds, each in found.items() if round(each, 2) >= round(share, 2)), default=None)


def _beside(runs: float, seeds: int | None) -> str:
    if seeds is None:
        return f"none up to {FIXED[-1]} seeds | |"
    return f"{seeds} seeds, {len(RANKS) * seeds} runs | {runs / (len(RANKS) * seeds):.2f} |"


def power_table(count: int) -> tuple[list[str], bool]:
    """Predicted and simulated chances of naming the smallest sufficient rank; whether all are near."""
    lines = ["| seeds x clips | " + " | ".join(f"{kind}: predicted, simulated" for kind in KINDS) + " |"]
    lines.append("|:--|" + "--:|" * len(KINDS))
    near = True
    for design in DESIGNS:
        cells = []
        predicted = chances(PILOT, list(KINDS.values()), SHARE, design)
        drawn = ended([PILOT], list(KINDS.values()), (design.seeds,), SINGLE, SHARE, design.clips, count)
        for own, one in zip(predicted, drawn, strict=True):
            near = near and abs(one.found - own.named) <= NEAR
            cells.append(f"{own.named:.0%}, {one.found:.0%}")
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
