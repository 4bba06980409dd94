"""Leaving in order: a file in the study folder asks running trials to save what they have and end.

A file reaches every node that sees the study, from any shell, also when the driver is gone.
"""

from __future__ import annotations

import time
from pathlib import Path

LOOK_SECONDS = 0.5  # between looks at the disk


class Stopped(RuntimeError):
    """The sweep was asked to stop; what this trial did until then is on disk and is taken up again."""


class StopSign:
    """Whether `path` exists, looked up at most every LOOK_SECONDS. Once seen it stays."""

    def __init__(self, path: Path) -> None:
        self.path, self.last, self.seen = path, -LOOK_SECONDS, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.seen and now - self.last >= LOOK_SECONDS:
            self.last, self.seen = now, self.path.exists()
        return self.seen
