"""The looks of a study that goes on until it knows (`answer.until_decided`): when it looks, and what it saw.

In, out: looks.json. A look is taken when every rank that goes on has the seeds of its place in the schedule. Schedule
and levels are fixed before the first result and read from the file ever after. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cinelora.core.records import TrialSpec
from sweeps.plan import trial_spec

LATER_SEEDS = (3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50)


DECIDED = "decided"


def schedule(first: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds at which to look, from `first` to `most` > `first`."""
    return (first, *(count for count in LATER_SEEDS if first < count < most), most)


def row_id(spec: TrialSpec) -> str:
    """The same for trials that differ in their seed alone: one rank of one adapter series."""
    return trial_spec(replace(spec.config, seed=0), spec.fingerprints).trial_id


@dataclass(frozen=True)
class Level:
    """One-sided levels of one look, of the error that is left: that a rank is enough; that it is worse."""

    enough: float
    worse: float


@dataclass(frozen=True)
class Look:
    """`dropped`, `settled`: row ids, of ranks shown to be worse, and of all ranks of a series that has its winner.

    `verdicts`: series -> score -> rank -> verdict. `hours`: GPU-hours of the trials so far (worker-hours without GPUs);
    `next_hours`: of the next round, at the cost of the finished trials.
    """

    time: float  # seconds since 1970
    seeds: int
    verdicts: Mapping[str, Mapping[str, Mapping[str, str]]]
    dropped: Mapping[str, str]  # row id -> its name
    settled: tuple[str, ...]
    live: Mapping[str, str]  # row id -> its name, of those that go on
    sentences: tuple[str, ...]  # the decisions
    hours: float
    next_hours: float


@dataclass(frozen=True)
class Looks:
    schedule: tuple[int, ...]
    levels: tuple[Level, ...]
    rows: tuple[str, ...]  # row ids of the grid
    taken: tuple[Look, ...] = ()
    budget: float = 0.0  # hours, as in `Look.hours`, of the latest sweep; 0: none

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Looks:
        taken = (Look(**{**each, **{k: tuple(each[k]) for k in ("settled", "sentences")}}) for each in data["taken"])
        levels = tuple(Level(**each) for each in data["levels"])
        return Looks(tuple(data["schedule"]), levels, tuple(data["rows"]), tuple(taken), data["budget"])

    @property
    def dropped(self) -> dict[str, int]:
        """Row id -> index of the look that dropped it."""
        return {row: index for index, look in enumerate(self.taken) for row in look.dropped}

    def last(self, rows: Iterable[str]) -> int:
        """Index of the last look at these rows, of one series; 0 before the first."""
        own = set(rows)
        seen = [index for index, look in enumerate(self.taken) if own & {*look.dropped, *look.settled, *look.live}]
        return seen[-1] if seen else 0

    @property
    def over(self) -> set[str]:
        """The rows that get no more seeds."""
        return {row for look in self.taken for row in (*look.dropped, *look.settled)}

    @property
    def end(self) -> str:
        """Why no round follows the last look, or ""."""
        last = self.taken[-1] if self.taken else None
        if last is None:
            return ""
        if not last.live:
            return DECIDED
        if len(self.taken) == len(self.schedule):
            return f"answer.most_seeds={self.schedule[-1]} is reached"
        if 0 < self.budget < last.hours + last.next_hours:
            need = f"{last.hours:.3g} hours used, and the next round takes {last.next_hours:.3g}"
            return f"answer.budget_gpu_hours={self.budget:g} is reached, {need}"
        return ""

    @property
    def seeds(self) -> int:
        """How many seeds the ranks that go on shall have now."""
        return self.schedule[len(self.taken) - bool(self.end)]

    @property
    def ending(self) -> list[str]:
        """Why it ended, and the last decision of each series; empty while it goes on."""
        if not self.end:
            return []
        found = {each.partition(":")[0]: each for look in self.taken for each in look.sentences}
        number = f"after look {len(self.taken)}, {self.taken[-1].seeds} seeds"
        return [f"decided {number}" if self.end == DECIDED else f"undecided {number}: {self.end}", *found.values()]

    @property
    def state(self) -> list[str]:
        """Where the question stands, in words."""
        if self.ending:
            return self.ending
        last = self.taken[-1] if self.taken else None
        names = ", ".join(last.live.values()) if last else "every rank"
        lines = [f"round {len(self.taken) + 1} of at most {len(self.schedule)}: {self.seeds} seeds of {names}"]
        if last:
            lines += [f"look {len(self.taken)}, {last.seeds} seeds: {each}" for each in last.sentences]
        gone = [f"{name} (look {at})" for at, look in enumerate(self.taken, 1) for name in look.dropped.values()]
        lines += [f"shown to be worse, no more seeds: {', '.join(gone)}"] if gone else []
        stop = f"it stops with a winner, or at {self.schedule[-1]} seeds"
        return [*lines, stop + (f", or before {self.budget:g} hours are exceeded" if self.budget else "")]
