"""What a person sees while a sweep runs: a live table on a terminal, a line every few seconds elsewhere.

In: the engine's state and the progress files of the running trials. Out: counts, time left, what each trial does.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cinelora.core.cli import clock
from launch.wording import activity, counts, label

if TYPE_CHECKING:
    from launch.engine.loop import Engine


LINE_SECONDS = 10.0  # between lines where there is no terminal
STAGE_SHARE = {"train": (0.0, 0.7), "generate": (0.7, 1.0)}  # of a trial; rough, for the time left only


class Display:
    """Call `tick` often; it draws when there is something to draw. `total`: trials that are done or to be run."""

    def __init__(self, total: int, done_before: int) -> None:
        self.total, self.done_before = total, done_before
        self.started, self.last_line = time.monotonic(), 0.0
        self.live = Live(console=Console(), refresh_per_second=4, transient=True) if sys.stdout.isatty() else None

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def tick(self, engine: Engine) -> None:
        progress = [engine.ledger.progress(run.job.spec.trial_id) for run in engine.running]
        head = self._head(engine, sum(map(fraction, progress)))
        rows = [
            (label(run.job.spec), *activity(each, run.job.restarts))
            for run, each in zip(engine.running, progress, strict=True)
        ]
        if self.live:
            table = Table(title=head, title_justify="left", show_header=False, box=None)
            for row in rows:
                table.add_row(*row)
            self.live.update(table)
        elif time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            print(" | ".join([head, *(" ".join(row) for row in rows)]), flush=True)

    def _head(self, engine: Engine, running_share: float) -> str:
        """Counts, time elapsed and time left, by the work finished since the start; `running_share`: in trials."""
        failed = len(engine.errors)
        done = self.total - self.done_before - len(engine.jobs) - failed - engine.pruned
        states = {"done": self.done_before + done, "running": len(engine.running), "queued": engine.waiting}
        elapsed, finished = time.monotonic() - self.started, done + running_share
        left = "time left unknown yet"
        if finished >= 0.05:
            left = f"about {clock((len(engine.jobs) - running_share) * elapsed / finished)} left"
        return f"{counts(failed, engine.pruned, **states)}; {clock(elapsed)} elapsed, {left}"


def fraction(progress: dict[str, Any] | None) -> float:
    """How far a running trial is, 0..1."""
    if progress is None or progress["stage"] not in STAGE_SHARE:
        return 0.0
    low, high = STAGE_SHARE[progress["stage"]]
    return float(low + (high - low) * progress["done"] / max(1, progress["total"]))
