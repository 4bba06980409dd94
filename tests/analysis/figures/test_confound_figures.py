"""The Pareto front, and figures that are drawn where they can be and are None where not."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from analysis.figures.cost import front
from analysis.figures.draw import drawings
from analysis.figures.noise import floor_figure
from analysis.statistics.differences import differences
from analysis.statistics.noise import REAL, Halves, Reseed
from analysis.statistics.rank_tests import rank_tests
from analysis.statistics.reliability import confounds
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.tables.captions import caption
from tests.analysis.paper_study import Builder


@pytest.mark.parametrize(
    ("points", "kept"),
    [
        ([(1, 1), (2, 3), (3, 2), (4, 3), (0.5, 0.5)], [4, 0, 1]),
        ([(1, 1), (1, 1)], [0, 1]),  # equal points do not beat each other
        ([(1, 1), (1, 2)], [1]),
        ([], []),
    ],
)
def test_front(points: list[tuple[float, float]], kept: list[int]) -> None:
    assert front(points) == kept


def test_figures_of_the_paper_study(study: Path) -> None:
    """Three clips: costs and clips can be drawn; halves and subsets of them cannot."""
    loaded = load_study(study)
    estimates = estimate(loaded)
    found, tests, seen = differences(estimates), rank_tests(estimates), confounds(estimates)
    drawn = drawings(loaded, estimates, found, tests, seen)
    assert {name for name, figure in drawn.items() if figure} == {"pareto", "per_clip"}
    pareto, clips = drawn["pareto"], drawn["per_clip"]
    assert pareto and clips
    assert len(pareto.axes) == 6 and pareto.axes[-2].get_xlabel() == "worker-seconds of training"
    shares = {axes.texts[0].get_text() for axes in clips.axes[:2]}
    assert shares == {"100%"}  # of held-out losses below the base's


def test_the_band_is_the_reach_of_the_noise(study: Path) -> None:
    loaded = load_study(study)
    estimates = estimate(loaded)
    floor = Reseed("psnr", 0.1, 0.5, True, 1, 3)
    half = Halves("kvd[tnv2]", REAL, "", 0, 1, 0.0, -0.25, 0.75)
    figure = floor_figure(estimates, (half,), (floor,), rank_tests(estimates))
    assert figure is not None
    bands = [axes.patches[0] for axes in figure.axes]
    assert all(isinstance(band, matplotlib.patches.Rectangle) for band in bands)
    assert [(band.get_y(), band.get_height()) for band in bands] == [(-0.25, 1.0), (-0.5, 1.0)]


def test_caption_tells_how_rates_go_with_ranks(builder: Builder) -> None:
    loaded = load_study(builder.build())
    estimates = estimate(loaded)
    assert "one learning rate for all ranks, 0.0001" in caption(loaded, estimates)
    for spec in loaded.specs:
        spec.config.train.learning_rate = 0.01 / spec.config.lora.rank
    told = caption(loaded, estimates)
    assert "a learning rate for each rank, set before the study (4: 0.0025, 8: 0.00125)" in told
