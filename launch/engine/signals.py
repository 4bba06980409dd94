"""Ctrl-C: once, running trials save and leave; twice, the sweep ends now."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launch.engine.loop import Engine


@contextmanager
def stopped_by_signal(engine: Engine) -> Iterator[None]:
    """While open, the first SIGINT or SIGTERM stops the engine in order, the second raises KeyboardInterrupt."""

    def handle(number: int, frame: Any) -> None:
        if engine.asked_to_stop:
            raise KeyboardInterrupt
        engine.asked_to_stop = True  # the loop acts on it: a handler may come in the middle of anything

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
