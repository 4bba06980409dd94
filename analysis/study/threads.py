"""Work on many trials at once, a thread a core.

Products, powers and sums of NumPy let other threads run meanwhile, its singular values do not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def threaded(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """work(item) of every item, in their order, a thread a core."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))
