"""Keyed randomness: every draw has a key that names its purpose, and no draw depends on another.

In: a key such as (seed, "noise", step, slot). Out: a 63-bit integer or a CPU generator seeded with it.
Drawing on the CPU by key makes noise independent of device, gang size, process and order of trials.
"""

from __future__ import annotations

import hashlib

import torch

Key = int | str


def counter_seed(*key: Key) -> int:
    """A seed in 0 .. 2^63-1 from SHA-256 of the key."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def share_of(*key: Key) -> float:
    """A number in [0, 1) for this key, uniform over keys."""
    return counter_seed(*key) / 2**63


def generator(*key: Key) -> torch.Generator:
    """A fresh CPU generator for this key."""
    return torch.Generator("cpu").manual_seed(counter_seed(*key))


def window_indices(seed: int, step: int, batch_size: int, count: int) -> list[int]:
    """Which of `count` training windows make up optimiser step `step` (0-based), in slot order.

    Windows are dealt epoch by epoch from a fresh permutation; a batch may span two epochs.
    Depends on (seed, step, batch_size, count) alone.
    """
    first = step * batch_size
    orders: dict[int, list[int]] = {}
    picks = []
    for position in range(first, first + batch_size):
        epoch, place = divmod(position, count)
        if epoch not in orders:
            drawn = [counter_seed(seed, "order", epoch, index) for index in range(count)]
            orders[epoch] = sorted(range(count), key=drawn.__getitem__)
        picks.append(orders[epoch][place])
    return picks


def draw_noise(shape: tuple[int, ...], *key: Key) -> torch.Tensor:
    """Standard normal float32 on the CPU for this key."""
    return torch.randn(shape, generator=generator(*key), dtype=torch.float32)
