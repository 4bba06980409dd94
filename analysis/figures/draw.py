"""Every figure of a report: the registry, and how a figure becomes a PNG and a PDF.

In: `Findings`. Out: files in the report folder; the same study gives the same bytes. To add a figure, write a function
from `Findings` to a matplotlib figure (None where the study has nothing to draw) and give it one entry in FIGURES: the
name of its files, the function, and the caption that the page shows below it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from analysis.figures.answer import answer_figure
from analysis.figures.contact_sheet import contact_sheet
from analysis.figures.noise import fvd_vs_n, noise_floor
from analysis.figures.pareto import pareto
from analysis.figures.per_clip import per_clip
from analysis.figures.profile import consistency_profile
from analysis.figures.quality import differences, learning_curves, quality_vs_rank
from analysis.figures.ranks import spectra, truncation
from analysis.figures.style import STYLE, headline
from analysis.figures.votes import votes
from analysis.statistics.findings import Findings
from cinelora.core.files import whole_file

DOTS_PER_INCH = 200
PNG_WITHOUT_DATE: dict[str, Any] = {"Software": None}
PDF_WITHOUT_DATE: dict[str, Any] = {"CreationDate": None, "Creator": None, "Producer": None}


class Plot(NamedTuple):
    draw: Callable[[Findings], Figure | None]
    caption: str


FIGURES: Mapping[str, Plot] = {  # in the order of the report
    "answer": Plot(
        answer_figure,
        "Top: what each rank gains over the untrained model, with its 95 % interval over training seeds and clips; "
        "rows without a rank at the right. Bottom: each rank minus the smallest, thin lines for single training seeds. "
        "Shaded: within the margin of the best mean. A marker shape is a learning rate: two ranks of different shape "
        "may differ by rate too.",
    ),
    "quality_vs_rank": Plot(
        quality_vs_rank,
        "Scores against the rank: one marker per seed, a line through their means; the base dashed, the real clips "
        "dotted. Where ranks have different learning rates, a marker's shape is the rate; between two rates the line "
        "is dotted.",
    ),
    "votes": Plot(
        votes,
        "Left: what people prefer, the worth of each row with its 95 % interval over raters and clips. Right: how "
        "often each score orders two generated clips as people do; bold: the scores that decide this study; dotted: "
        "chance; dashed: how often two raters agree. Numbers: votes.csv.",
    ),
    "consistency_profile": Plot(
        consistency_profile,
        "How alike frames 1, 2, 4, ... apart are, mean over clips, with the 95 % interval over shots and seeds. The "
        "real clips are the target: a curve above theirs changes too little, and a frozen clip stays at 1; one that "
        "falls away far out only drifts; one below theirs from the start flickers.",
    ),
    "differences": Plot(
        differences, "The same differences with their intervals; grey where the interval includes zero."
    ),
    "learning_curves": Plot(
        learning_curves,
        "Losses during training. A held-out curve that still falls at its end was stopped before it converged.",
    ),
    "spectra": Plot(
        spectra,
        "How much of their rank the updates use. Left: their singular values, median and interquartile range over "
        "layers and seeds, each curve labelled with its rank. Right: the effective rank (exponential of the entropy of "
        "the singular values) of each kind of layer. Numbers: spectra.csv.",
    ),
    "truncation": Plot(
        truncation,
        "Adapters trained at a rank, against those trained at the largest rank and truncated to that rank by SVD, "
        "which needs no further training. Right: the paired difference with its interval, in the colour of the better "
        "one; grey where it includes zero. Numbers: truncation.csv.",
    ),
    "contact_sheet": Plot(
        contact_sheet,
        "Frames of three held-out clips: the reference, the base and each row; of several seeds the first, which is "
        "named. The page plays all seeds.",
    ),
    "pareto": Plot(
        pareto,
        "What a gain costs: gain over the base with its interval, against parameters, the time of a trial (mean over "
        "seeds, smallest to largest as a line; unknown of what was trained elsewhere) and the weights to keep. "
        "Filled and joined: the Pareto front of the means, where nothing else costs less and gains as much. Times that "
        "differ by no more than the widest range over seeds count as equal. Where intervals overlap, other rows may "
        "belong to the front.",
    ),
    "per_clip": Plot(
        per_clip,
        "Each held-out clip under the base (horizontal) and under an adapter (vertical, mean over seeds). Green is "
        "better than the base, orange is worse; the number is the share of clips that improve, ties counted half.",
    ),
    "noise_floor": Plot(
        noise_floor,
        "How large differences by noise alone are. Top: half of the generated clips against the other half of the real "
        "clips; grey: real clips against real clips. Bottom, if the study has the base with other sampling seeds: each "
        "rank against the best one; grey: the 95 % range of differences that another sampling seed makes to the base. "
        "Ranks share their noise, which cancels part of it in their differences, and the base is farther from the real "
        "clips than they are, so the band is wide rather than narrow. Numbers: noise_floor.csv.",
    ),
    "fvd_vs_n": Plot(
        fvd_vs_n,
        "Distances on fewer clips, mean over subsets, one seed per rank; the axis is 1/n. fvd rises as the number of "
        "clips falls (bias), kvd does not. Diamonds: the intercept of the line, which estimates the value for "
        "infinitely many clips, with its 95 % interval; hollow and dotted where there are no more clips than "
        "dimensions, so that no straight line is expected. Numbers: fvd_vs_n.csv.",
    ),
}


def draw(findings: Findings, folder: Path) -> list[str]:
    """Write what can be drawn, remove what an earlier report drew and this one cannot. Returns the names.

    One process a core: a fork has the findings, so that none are sent.
    """
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork"), _receive, (findings, folder)) as pool:
        return [name for name, drawn in zip(FIGURES, pool.map(_draw_one, FIGURES), strict=True) if drawn]


_given: list[Any] = []  # findings and folder, in a process of `draw`


def _receive(findings: Findings, folder: Path) -> None:
    _given[:] = findings, folder


def _draw_one(name: str) -> bool:
    findings, folder = _given
    paths = [folder / f"{name}{suffix}" for suffix in (".png", ".pdf")]
    with styled():
        figure = FIGURES[name].draw(findings)
        if figure is None:
            for path in paths:
                path.unlink(missing_ok=True)
            return False
        if above := headline(findings.study):
            figure.suptitle(above, fontsize=8, color="#A33B00", fontweight="bold", wrap=True)
        write(figure, *paths)
    return True


@contextmanager
def styled() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # no settings of the user's own matplotlibrc
        matplotlib.rcParams.update(STYLE)
        yield


def write(figure: Figure, png: Path, pdf: Path) -> None:
    """Arranged once, and each file drawn once: `savefig` would draw twice and arrange both."""
    figure.set_dpi(DOTS_PER_INCH)
    with whole_file(png) as temporary:
        FigureCanvasAgg(figure).print_png(temporary, metadata=PNG_WITHOUT_DATE)
    figure.set_layout_engine("none")  # it stays as it was arranged
    with whole_file(pdf) as temporary:
        FigureCanvasPdf(figure).print_pdf(temporary, metadata=PDF_WITHOUT_DATE)
