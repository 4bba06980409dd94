"""Flat shapes as signed distances: from each point to the edge of a shape of radius 1, negative inside.

In: coordinates u (right) and v (down) in the shape's own frame. Out: distances of the same form, float.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
DIAGONAL = 0.70710678


def _polygon(sides: int, apothem: float, turned: float = 0.0) -> Callable[[Array, Array], Array]:
    angles = [np.pi / 2 + turned + 2 * np.pi * k / sides for k in range(sides)]

    def distance(u: Array, v: Array) -> Array:
        out = np.float32(np.cos(angles[0])) * u + np.float32(np.sin(angles[0])) * v
        for a in angles[1:]:
            out = np.maximum(out, np.float32(np.cos(a)) * u + np.float32(np.sin(a)) * v)
        return np.asarray(out - np.float32(apothem), dtype=np.float32)

    return distance


def _cross(u: Array, v: Array) -> Array:
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - 1, v - 0.36), np.maximum(u - 0.36, v - 1))


def _star(u: Array, v: Array) -> Array:
    return (np.hypot(u, v) - (0.72 + 0.3 * np.cos(5 * np.arctan2(u, -v)))) * np.float32(0.7)


DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": lambda u, v: np.hypot(u, v) - 1,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - np.float32(0.72)) - np.float32(0.3),
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - np.float32(0.86),
    "triangle": _polygon(3, 0.6),
    "hexagon": _polygon(6, 0.9),
    "diamond": lambda u, v: (np.abs(u) * np.float32(1.3) + np.abs(v) - 1) * np.float32(DIAGONAL),
    "cross": _cross,
    "star": _star,
}  # signed distance to the edge of the shape of radius 1, negative inside
