"""Leaving in order: a file in the study's folder, or in a trial's own, asks to save what there is and end.

A file reaches every node that sees the study, from any shell, also when the driver is gone.
"""

from __future__ import annotations

import time
from pathlib import Path

LOOK_SECONDS = 0.5  # between looks at the disk


class Stopped(RuntimeError):
    """The trial was asked to stop; what it did until then is on disk and can be taken up again."""


class StopSign:
    """Whether any of `paths` exists, looked up at most every LOOK_SECONDS. Once seen it stays."""

    def __init__(self, *paths: Path) -> None:
        self.paths, self.last, self.seen = paths, -LOOK_SECONDS, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self.seen and now - self.last >= LOOK_SECONDS:
            self.last, self.seen = now, any(path.exists() for path in self.paths)
        return self.seen
