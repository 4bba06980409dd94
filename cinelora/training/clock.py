"""The clock that times the work of a trial: it stands still while torch compiles.

Blocks compile where they first run: within a step, a held-out loss or a sampler step, some backward passes in a thread
of their own. These seconds count as a stage of their own, `compiling`, so that rates are those of the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cinelora.wan.acceleration import BACKEND

COMPILING = "compiling"
_spent = 0.0  # seconds of this process in finished compilations
_since: float | None = None  # when the one that runs now began


def clock() -> float:
    """Seconds, without those spent compiling; only differences mean anything."""
    now = time.perf_counter()
    return now - _spent - (0.0 if _since is None else now - _since)


@contextmanager
def compiling_apart(
    transformer: Any, report: Callable[[str, int, int, float | None], None]
) -> Iterator[dict[str, float]]:
    """Within, compilations of `transformer` stop the clock and are reported; yields {"compiling": seconds so far}.

    Empty if its blocks are not compiled.
    """
    seconds: dict[str, float] = {}
    if getattr(transformer, BACKEND, None) is None:
        yield seconds
        return
    from torch._dynamo.callback import callback_handler  # here, since it loads the compiler

    def start(_: Any) -> None:
        global _since
        _since = time.perf_counter()
        report(COMPILING, 0, 0, None)

    def end(_: Any) -> None:
        global _spent, _since
        if _since is not None:
            took, _since = time.perf_counter() - _since, None
            _spent += took
            seconds[COMPILING] += took

    seconds[COMPILING] = 0.0
    callback_handler.register_start_callback(start)
    callback_handler.register_end_callback(end)
    try:
        yield seconds
    finally:
        callback_handler.remove_start_callback(start)
        callback_handler.remove_end_callback(end)
