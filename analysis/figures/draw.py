"""Every figure of a report: which are drawn, and written as PNG and PDF.

In: `Study` and `Estimates`. Out: files in the report folder; the same study gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from analysis.figures import clips
from analysis.figures.clips import clips_figure, mosaic
from analysis.figures.cost import pareto_figure
from analysis.figures.noise import floor_figure, sizes_figure
from analysis.figures.quality import learning_curves, paired_differences, quality_vs_rank
from analysis.figures.ranks import spectra_figure, truncation_figure
from analysis.figures.style import STYLE, WIDTH, say_above
from analysis.statistics import reliability, truncation
from analysis.statistics.differences import COMPARED, Difference
from analysis.statistics.rank_tests import RankTests
from analysis.statistics.reliability import Confounds
from analysis.statistics.spectra import Spectrum
from analysis.study.frames import contact_sheet
from analysis.study.load import Study
from analysis.study.rows import Estimates, RowKey, series_of
from analysis.tables.captions import BANNER
from cinelora.core.files import whole_file

# ~ What else than the rank a number may come from: too few clips, mere noise, a training cut short, what it cost.
# ~
# ~ In: `Study`, `Estimates`. Out: `Confounds`; the figures, CSV files and sentence made of them.


def drawings(
    study: Study, estimates: Estimates, found: Sequence[Difference], tests: Sequence[RankTests], seen: Confounds
) -> dict[str, Figure | None]:
    """Name of a file -> its figure, None where it cannot be drawn."""
    return {
        "pareto": pareto_figure(study, estimates, found),
        "per_clip": clips_figure(study, estimates),
        "noise_floor": floor_figure(estimates, seen.halves, seen.reseeds, tests),
        "fvd_vs_n": sizes_figure(seen.sizes),
    }


NO_DATES: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
DOTS_PER_INCH = 200
Spectra = Mapping[RowKey, tuple[Spectrum, ...]]
Cuts = tuple[truncation.Truncated, ...]


def draw(
    study: Study,
    estimates: Estimates,
    found: tuple[Difference, ...],
    tests: tuple[RankTests, ...],
    spectra: Spectra,
    cuts: Cuts,
    seen: reliability.Confounds,
    place: Path,
) -> list[str]:
    """Write what can be drawn, remove what an earlier report drew and this cannot. Returns the names."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a reader's own matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        made: dict[str, Figure | None] = {
            "quality_vs_rank": _quality(study, estimates),
            "differences": _differences(study, found),
            "learning_curves": _curves(study, estimates),
            "spectra": _under_banner(study, spectra_figure(estimates, spectra)),
            "truncation": _under_banner(study, truncation_figure(cuts)),
            "contact_sheet": _sheet(study, estimates),
            **{
                name: _under_banner(study, figure)
                for name, figure in drawings(study, estimates, found, tests, seen).items()
            },
        }
        for name, figure in made.items():
            for suffix in NO_DATES:
                path = place / f"{name}{suffix}"
                if figure is None:
                    path.unlink(missing_ok=True)
                else:
                    _save(figure, path)
    return [name for name, figure in made.items() if figure is not None]


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata=NO_DATES[path.suffix])


def _above(study: Study) -> str:
    done, planned = len(study.trials), len(study.specs)
    parts = [] if study.trained else [BANNER]
    if done < planned:
        parts.append(f"{done} of {planned} trials finished")
    return "   |   ".join(parts)


def _under_banner(study: Study, figure: Figure | None) -> Figure | None:
    if figure is not None:
        say_above(figure, _above(study))
    return figure


def _quality(study: Study, estimates: Estimates) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    handles = quality_vs_rank(list(panels), estimates)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    say_above(figure, _above(study))
    return figure


def _differences(study: Study, found: tuple[Difference, ...]) -> Figure | None:
    told = [each for each in found if each.score in COMPARED]
    if not told:
        return None
    rows = len({each.row for each in told})
    figure = Figure(figsize=(WIDTH, 0.9 + 0.22 * rows), layout="constrained")
    scores = [score for score in COMPARED if any(each.score == score for each in told)]
    paired_differences(list(figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]), told, scores)
    say_above(figure, _above(study))
    return figure


def _curves(study: Study, estimates: Estimates) -> Figure | None:
    if all(trial.curve.empty for trial in study.trials):
        return None
    figure = Figure(layout="constrained")
    handles = learning_curves(list(figure.subplots(1, 2)), study, estimates)
    across = 4 if len(series_of(estimates.rows)) > 1 else 6  # the name of a series takes more room than a rank
    figure.set_size_inches(WIDTH, 2.75 + 0.16 * math.ceil(len(handles) / across))
    figure.legend(handles=handles, loc="outside lower center", ncols=across, frameon=False)
    say_above(figure, _above(study))
    return figure


def _sheet(study: Study, estimates: Estimates) -> Figure | None:
    sheet = contact_sheet(estimates)
    if sheet is None:
        return None
    height, width = mosaic(sheet.frames)[0].shape[:2]
    margins = {"left": 0.8, "right": 0.05, "top": 0.5 if _above(study) else 0.32, "bottom": 0.05}
    inner = WIDTH - margins["left"] - margins["right"]
    tall = inner * height / width + margins["top"] + margins["bottom"]
    figure = Figure(figsize=(WIDTH, tall))
    box = (margins["left"] / WIDTH, margins["bottom"] / tall, inner / WIDTH)
    axes = figure.add_axes((*box, inner * height / width / tall))
    clips.contact_sheet(axes, sheet)
    say_above(figure, _above(study))
    return figure
