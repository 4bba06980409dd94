"""Do the next piece of work while the present one is in use, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of `jobs`; one thread is at most one job ahead. What a job raises is raised where it is due."""
    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting = None
        for job in jobs:
            coming = thread.submit(job)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
