"""What a person sees while a sweep runs: a live table on a terminal, a line every few seconds elsewhere.

In: the study folder, as `launch/status.py` reads it. Out: counts, time left, what each running trial does.
"""

from __future__ import annotations

import sys
import time

from rich.console import Group
from rich.live import Live

from cinelora.core.cli import clock
from launch.status import WATCH_SECONDS, activity, headline, label, table
from sweeps.ledger import Ledger
from sweeps.status import RUNNING, study_status

LINE_SECONDS = 10.0  # between lines where there is no terminal


class Display:
    """Call `tick` often; it reads the study and draws when it is time."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.started, self.drawn = ledger, time.monotonic(), -LINE_SECONDS
        self.live = Live(refresh_per_second=4, transient=True) if sys.stdout.isatty() else None

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self.drawn < (WATCH_SECONDS if self.live else LINE_SECONDS):
            return
        self.drawn, status = now, study_status(self.ledger)
        head = f"{headline(status)}; {clock(now - self.started)} elapsed"
        if self.live:
            self.live.update(Group(head, table(status, [RUNNING])))
        else:
            running = [trial for trial in status.trials if trial.state == RUNNING]
            rows = [" ".join([label(each.spec), *activity(each.progress, each.restarts)]) for each in running]
            print(" | ".join([head, *rows]), flush=True)
