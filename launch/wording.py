"""What a person sees while a sweep runs: trials done, running, queued; step, loss, time left.

In: the schedule and the ledger. Out: a live table on a terminal, a line every few seconds elsewhere.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cinelora.core.config import Method
from cinelora.core.records import TrialSpec
from sweeps.ledger import Ledger
from sweeps.plan import Plan

if TYPE_CHECKING:
    from launch.engine.loop import Engine

LINE_SECONDS = 10.0  # between lines where there is no terminal
STAGE_SHARE = {"train": (0.0, 0.7), "generate": (0.7, 1.0)}  # of a trial; rough, for the time left only


def label(spec: TrialSpec) -> str:
    """e.g. `rank 8 seed 1` or `base`."""
    config = spec.config
    if config.method is Method.base:
        return "base"
    what = "full" if config.method is Method.full else f"rank {config.lora.rank}"
    return f"{what} seed {config.seed} {config.arm}".rstrip()


def axes(spec: TrialSpec) -> str:
    """The settings of a trial that a sweep usually varies."""
    config = spec.config
    if config.method is Method.base:
        return f"base model, no adapter {config.arm}".rstrip()
    if config.method is Method.full:
        return f"full fine-tune, lr {config.train.learning_rate:g}, seed {config.seed} {config.arm}".rstrip()
    lora = config.lora
    return (
        f"rank {lora.rank:<4} alpha {lora.effective_alpha:<6g} {lora.scaling.value:<18} {lora.targets.value:<10} "
        f"lr {config.train.learning_rate:<8g} seed {config.seed} {config.arm}"
    ).rstrip()


def print_plan(plan: Plan, ledger: Ledger, keep_pruned: bool = False) -> None:
    """One line per trial with its state on disk, then the counts."""
    for spec in plan.trials:
        print(f"  {spec.trial_id}  {axes(spec):<78} {_state(ledger, spec.trial_id, keep_pruned)}")
    done, waiting = sum(ledger.is_done(spec.trial_id) for spec in plan.trials), len(ledger.pending(plan, keep_pruned))
    pruned = len(plan.trials) - done - waiting
    print(f"{len(plan.trials)} trials: {done} done, {f'{pruned} pruned, ' if pruned else ''}{waiting} to run")


def _state(ledger: Ledger, trial_id: str, keep_pruned: bool) -> str:
    if ledger.is_done(trial_id):
        return "done"
    if (record := ledger.pruned(trial_id)) is not None:
        return f"pruned ({record['why']})" if keep_pruned else "pruned, to run again"
    return "failed, to run again" if ledger.folder.trial(trial_id).failed.exists() else "to run"


def fraction(progress: dict[str, Any] | None) -> float:
    """How far a running trial is, 0..1."""
    if progress is None or progress["stage"] not in STAGE_SHARE:
        return 0.0
    low, high = STAGE_SHARE[progress["stage"]]
    return float(low + (high - low) * progress["done"] / max(1, progress["total"]))


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Display:
    """Call `tick` often; it draws when there is something to draw."""

    def __init__(self, ledger: Ledger, total: int, done_before: int) -> None:
        self.ledger, self.total, self.done_before = ledger, total, done_before
        self.started, self.last_line = time.monotonic(), 0.0
        self.live = Live(console=Console(), refresh_per_second=4, transient=True) if sys.stdout.isatty() else None

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def _left(self, engine: Engine, done: int, parts: list[float]) -> str:
        """Time left, from the trials' worth of work finished since the start."""
        worth = done + sum(parts)
        if worth < 0.05:
            return "time left unknown yet"
        rate = worth / (time.monotonic() - self.started)
        return f"about {clock((len(engine.jobs) - sum(parts)) / rate)} left"

    def tick(self, engine: Engine) -> None:
        failed, pruned = len(engine.errors), engine.pruned
        done = self.total - self.done_before - len(engine.jobs) - failed - pruned
        notes = [self.ledger.progress(run.job.spec.trial_id) for run in engine.running]
        left = self._left(engine, done, [fraction(note) for note in notes])
        head = (
            f"{self.done_before + done} done, {len(engine.running)} running, {engine.waiting} queued"
            + (f", {failed} failed" if failed else "")
            + (f", {pruned} pruned" if pruned else "")
            + f"; {clock(time.monotonic() - self.started)} elapsed, {left}"
        )
        rows: list[tuple[str, ...]] = [
            (label(run.job.spec), _stage(note), _loss(note), f"restart {run.job.restarts}" if run.job.restarts else "")
            for run, note in zip(engine.running, notes, strict=True)
        ]
        if self.live:
            self.live.update(_table(head, rows))
        elif time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            print(head + "".join(f" | {' '.join(part for part in row if part)}" for row in rows), flush=True)


def _stage(note: dict[str, Any] | None) -> str:
    return "starting" if note is None else f"{note['stage']} {note['done']}/{note['total']}"


def _loss(note: dict[str, Any] | None) -> str:
    return "" if note is None or note["loss"] is None else f"loss {note['loss']:.4f}"


def _table(head: str, rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=head, title_justify="left", show_header=False, box=None)
    for row in rows:
        table.add_row(*row)
    return table
