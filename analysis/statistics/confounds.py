"""What else than the rank a number may come from: too few clips, mere noise, a training cut short, what it cost.

In: `Study`, `Estimates`. Out: `Confounds`; the figures, CSV files and sentence made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.figures.clips import clips_figure
from analysis.figures.cost import pareto_figure
from analysis.figures.figure_sizes import sizes_figure
from analysis.figures.noise import floor_figure
from analysis.statistics import noise
from analysis.statistics import reliability as setsizes
from analysis.statistics.differences import Difference
from analysis.statistics.rank_tests import RankTests
from analysis.study.load import Study
from analysis.study.rows import Estimates


@dataclass(frozen=True)
class Confounds:
    sizes: tuple[setsizes.SizeCurve, ...]
    halves: tuple[noise.Halves, ...]
    redraws: tuple[noise.Redraw, ...]


def confounds(study: Study, estimates: Estimates) -> Confounds:
    return Confounds(
        setsizes.set_sizes(study, estimates), noise.halves(study, estimates), noise.redraws(study, estimates)
    )


def drawings(
    study: Study, estimates: Estimates, found: Sequence[Difference], tests: Sequence[RankTests], seen: Confounds
) -> dict[str, Figure | None]:
    """Name of a file -> its figure, None where it cannot be drawn."""
    return {
        "pareto": pareto_figure(study, estimates, found),
        "per_clip": clips_figure(study, estimates),
        "noise_floor": floor_figure(estimates, seen.halves, seen.redraws, tests),
        "fvd_vs_n": sizes_figure(seen.sizes),
    }


def tables(seen: Confounds) -> dict[str, str]:
    """Name of a file -> CSV."""
    return {
        "noise_floor.csv": noise.as_csv(seen.halves, seen.redraws),
        "fvd_vs_n.csv": setsizes.as_csv(seen.sizes),
    }


def sentence(seen: Confounds, tests: Sequence[RankTests]) -> tuple[str, ...]:
    """What the noise alone does, for the notes; () where nothing was computed."""
    told = noise.sentence(seen.halves, seen.redraws, tests)
    return (told,) if told else ()
