"""What a study cost: how long its sweeps ran, and the work of its finished trials, phase by phase.

In: `Estimates`; reads events.jsonl. Out: `Costs`, its sentence and its table as text. A worker is a GPU, or a process
where there is none. Work is seconds times workers; except in a search for learning rates, it leaves out failed, pruned
and first-stage trials, which the wall time holds, as it does the time to start, to encode and to score the real clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analysis.study.rows import Estimates
from sweeps.ledger import Ledger, wall_seconds

HOUR, MINUTE = 3600, 60  # seconds
LONG = 10  # hours of work: a larger table is in worker-hours
PHASES = {  # key of result.seconds -> in words, in the order of a trial; other keys keep their name
    "train": "training",
    "evaluate": "held-out loss",
    "generate": "generating",
    "score": "scoring",
    "overhead": "overhead",
}
OF_A_RANK = ("train", "generate", "score")  # what more trials of a rank would cost


@dataclass(frozen=True)
class RowCost:
    """The finished trials of one row of the rank table, by seed."""

    name: str
    trials: tuple[Mapping[str, float], ...]  # seconds by phase, all workers together
    adapter_megabytes: float | None
    in_grid: bool = False  # one of the ranks that the study compares

    @property
    def by_phase(self) -> dict[str, float]:
        return _summed(self.trials)

    def of_a_trial(self, phases: Iterable[str] = OF_A_RANK) -> tuple[float, ...]:
        """Seconds that each trial spent in these phases."""
        return tuple(sum(trial.get(phase, 0.0) for phase in phases) for trial in self.trials)


@dataclass(frozen=True)
class Costs:
    """`wall_seconds`: of all sweeps that ran a trial; None where none was recorded."""

    wall_seconds: float | None
    rows: tuple[RowCost, ...]  # those of the rank table that have a finished trial
    searches: tuple[RowCost, ...] = ()  # for the learning rates, before the study
    search_seconds: float = 0.0  # wall time of these

    @property
    def trials(self) -> int:
        return sum(len(row.trials) for row in self.rows)

    @property
    def by_phase(self) -> dict[str, float]:
        """Worker-seconds of all trials but those of a search."""
        return _summed(trial for row in self.rows for trial in row.trials)


def costs(estimates: Estimates) -> Costs:
    rows = []
    for row in estimates.rows:
        results = [trial.result for trial in estimates.trials(row)]
        seconds = tuple({phase: s * each.world_size for phase, s in each.seconds.items()} for each in results)
        if seconds:
            rows.append(RowCost(row.full_name, seconds, row.adapter_megabytes, row.in_grid))
    homes = {home.folder.root: home for home in (estimates.study.merged.values() or [estimates.study])}
    known = [wall_seconds(Ledger(home.folder).events()) for home in homes.values()]
    records = {home.rates["folder"]: home.rates for home in homes.values() if home.rates}
    searches = tuple(RowCost(f"search in {name}", tuple(r["worker_seconds"]), None) for name, r in records.items())
    wall = sum(record["wall_seconds"] for record in records.values())
    return Costs(sum(known) if all(known) else None, tuple(rows), searches, wall)


def sentence(found: Costs) -> str:
    """16 trials (12 of the ranks): 7.6 min wall, 15 worker-minutes: 17 % training, ...; "" without a recorded time."""
    total = sum(found.by_phase.values())
    if not total:
        return ""
    shares = ", ".join(f"{seconds / total:.0%} {PHASES.get(name, name)}" for name, seconds in found.by_phase.items())
    wall = "" if found.wall_seconds is None else f"{duration(found.wall_seconds)} wall, "
    trials = f"{found.trials} trial{'s' if found.trials > 1 else ''}"
    ranks = sum(len(row.trials) for row in found.rows if row.in_grid)
    trials += f" ({ranks} of the ranks)" if 0 < ranks < found.trials else ""
    text = f"{trials}: {wall}{work(total / HOUR)}: {shares}."
    if found.searches:
        count = sum(len(each.trials) for each in found.searches)
        spent = sum(sum(each.by_phase.values()) for each in found.searches)
        text += (
            f" The search for its learning rates before it: {count} trials, {duration(found.search_seconds)} wall, "
            f"{work(spent / HOUR)}; {work((total + spent) / HOUR)} in all."
        )
    return text


def table(found: Costs) -> tuple[list[str], list[list[str]]]:
    """Heads and lines: the work of each row in each phase, in all and of one trial, and the size of what it trains."""
    rows = (*found.rows, *found.searches)
    every = _summed(trial for row in rows for trial in row.trials)
    phases = list(every)
    unit, size = ("hours", HOUR) if sum(every.values()) > LONG * HOUR else ("minutes", MINUTE)
    names = [PHASES.get(phase, phase) for phase in phases]
    heads = [f"worker-{unit}", "trials", *names, "in all", "a trial", "adapter MB"]

    def line(name: str, trials: int, by_phase: Mapping[str, float], adapter: str) -> list[str]:
        total = sum(by_phase.values())
        spent = [*(by_phase.get(phase, 0.0) for phase in phases), total, total / trials]
        return [name, str(trials), *(f"{seconds / size:.2f}" for seconds in spent), adapter]

    sizes = ["-" if row.adapter_megabytes is None else f"{row.adapter_megabytes:.3g}" for row in rows]
    lines = [line(row.name, len(row.trials), row.by_phase, mb) for row, mb in zip(rows, sizes, strict=True)]
    return heads, [*lines, line("all", sum(len(row.trials) for row in rows), every, "-")]


def work(hours: float) -> str:
    """2.5 worker-hours, 15 worker-minutes."""
    return f"{hours:.3g} worker-hours" if hours >= 1 else f"{60 * hours:.3g} worker-minutes"


def duration(seconds: float) -> str:
    """95 s, 28.8 min, 5.3 h."""
    for unit, size in (("h", HOUR), ("min", MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _summed(trials: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Phase -> seconds, the known phases first."""
    total: Counter[str] = Counter()
    for trial in trials:
        total.update(trial)
    order = [*PHASES, *sorted(total.keys() - PHASES.keys())]
    return {phase: total[phase] for phase in order if total[phase]}
