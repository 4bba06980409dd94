"""How a running sweep looks: a table on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from launch.wording import clock, label
from sweeps.ledger import Ledger

if TYPE_CHECKING:
    from launch.engine.loop import Engine


LINE_SECONDS = 10.0  # between lines where there is no terminal
STAGE_SHARE = {"train": (0.0, 0.7), "generate": (0.7, 1.0)}  # of a trial; rough, for the time left only


def fraction(progress: dict[str, Any] | None) -> float:
    """How far a running trial is, 0..1."""
    if progress is None or progress["stage"] not in STAGE_SHARE:
        return 0.0
    low, high = STAGE_SHARE[progress["stage"]]
    return float(low + (high - low) * progress["done"] / max(1, progress["total"]))


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
