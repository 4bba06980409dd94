"""How far a clip is from its own real clip in consistency: scores derived from the clip scores of both.

In: clip scores (N,) of generated and of the same real clips, by name. Out: float64 (N,) by name, 0 for a clip as
consistent as its real clip; lower is better. A frozen clip and a flickering clip both lose. No frames and no net: what
lies on disk is enough. To add one: an entry with `derived` in `FAMILIES`, and its function here. N clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from cinelora.metrics.catalogue import FAMILIES, Metric, metric
from cinelora.metrics.distances import Array


def consistency_gap(generated: Sequence[Array], real: Sequence[Array]) -> Array:
    """|consistency of the generated clip - that of its real clip|, 0..1."""
    return np.abs(generated[0] - real[0])


def profile_gap(generated: Sequence[Array], real: Sequence[Array]) -> Array:
    """Area between two curves of similarity over log2 of the frames apart, per doubling, 0..1.

    Curve k is given at 2^k frames apart and straight in between; where the curves cross, both sides count. Of a single
    point it is the difference there.
    """
    apart = [own - other for own, other in zip(generated, real, strict=True)]
    if len(apart) == 1:
        return np.abs(apart[0])
    return np.asarray(np.mean([_area(start, end) for start, end in pairwise(apart)], axis=0))


def _area(start: Array, end: Array) -> Array:
    """Integral of |a line from `start` to `end`| over a unit."""
    size = np.abs(start) + np.abs(end)
    crossing = (start**2 + end**2) / np.where(size > 0, 2 * size, 1.0)
    return np.where(start * end < 0, crossing, size / 2)


FORMULAS: Mapping[str, Callable[[Sequence[Array], Sequence[Array]], Array]] = {
    "consistency_gap": consistency_gap,
    "profile_gap": profile_gap,
}


def sources(derived: Metric, known: Iterable[str]) -> list[str]:
    """The scores among `known` that `derived` is computed from, in the order of its family; [] of any other metric."""
    there = set(known)
    names = (Metric(family, derived.inside).name for family in derived.entry.derived)
    return [name for name in names if name in there]


def gaps(generated: Mapping[str, Array], real: Mapping[str, Array]) -> dict[str, Array]:
    """Every derived score that both sets of clip scores allow, (N,); row i of both is the same clip."""
    shared = [name for name in generated if name in real]
    found = {}
    for family, formula in FORMULAS.items():
        for inside in FAMILIES[family].of:
            used = sources(metric(f"{family}[{inside}]"), shared)
            if used:
                pairs = [generated[name] for name in used], [real[name] for name in used]
                found[f"{family}[{inside}]"] = formula(*pairs)
    return found
