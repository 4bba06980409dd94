"""How far a clip is from its own real clip in consistency: scores derived from the clip scores of both.

In: clip scores (N,) of generated and of the same real clips, by name. Out: float64 (N,) by name, 0 for a clip as
consistent as its real clip; lower is better. A frozen clip and a flickering clip both lose. No frames and no net: what
lies on disk is enough. To add one: an entry with `derived` in `FAMILIES`, and its function here. N clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from cinelora.metrics.catalogue import FAMILIES, Metric, metric
from cinelora.metrics.distances import Array


def consistency_gap(generated: Sequence[Array], real: Sequence[Array]) -> Array:
    """|consistency of the generated clip - that of its real clip|, 0..1."""
    return np.abs(generated[0] - real[0])


FORMULAS: Mapping[str, Callable[[Sequence[Array], Sequence[Array]], Array]] = {"consistency_gap": consistency_gap}

SOURCES = frozenset(source for each in FAMILIES.values() for source in each.derived)  # families


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
