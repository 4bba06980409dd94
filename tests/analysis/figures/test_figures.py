"""The Pareto front, and figures that are drawn where they can be and are None where not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from analysis.figures.answer import answer_figure
from analysis.figures.draw import FIGURES
from analysis.figures.noise import noise_floor
from analysis.figures.pareto import front
from analysis.figures.quality import quality_vs_rank
from analysis.figures.ranks import kind_style, paired_panels
from analysis.figures.style import COLOURS
from analysis.statistics.differences import Difference
from analysis.statistics.findings import find
from analysis.statistics.intervals import Interval
from analysis.statistics.noise import REAL, Halves, Reseed
from analysis.study.load import CONTROL, load_study
from analysis.study.rows import Estimate, estimate
from analysis.tables.captions import caption
from analysis.tables.rank_table import rank_table
from cinelora.core.config import Method
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


def test_costs_within_the_spread_of_seeds_count_as_equal() -> None:
    points = [(10.0, 1.0), (12.0, 2.0), (9.0, 1.5), (20.0, 1.9)]
    assert front(points) == [2, 1]
    assert front(points, spread=3.0) == [1]
    assert front([(1.0, 1.0), (9.0, 2.0)], spread=3.0) == [0, 1]


def test_figures_of_the_paper_study(study: Path) -> None:
    """Three clips and no votes: costs and clips can be drawn; halves and subsets of them cannot."""
    findings = find(load_study(study))
    drawn = {name: figure for name, plot in FIGURES.items() if (figure := plot.draw(findings))}
    absent = {"spectra", "truncation", "noise_floor", "fvd_vs_n", "consistency_profile", "votes"}
    assert set(drawn) == set(FIGURES) - absent
    pareto, per_clip = drawn["pareto"], drawn["per_clip"]
    assert (
        len(pareto.axes) == 9
        and pareto.axes[-2].get_xlabel() == "worker-seconds a trial: training,\ngenerating and scoring"
    )
    shares = {axes.texts[0].get_text() for axes in per_clip.axes[:2]}
    assert shares == {"100%"}  # of held-out losses below the base's


def test_the_frozen_first_frame_stretches_no_axis(study: Path) -> None:
    findings = find(load_study(study))
    base = next(row for row in findings.estimates.rows if row.is_base)
    limits = {}
    for factor in (1.0, 100.0):
        values = {score: Estimate((0,), (each.mean * factor,)) for score, each in base.estimates.items()}
        key = base.key._replace(kind=CONTROL, label=Method.frozen.title)
        row = replace(base, key=key, estimates=values)
        own = replace(findings.estimates, rows=(*findings.estimates.rows, row))
        figure = quality_vs_rank(replace(findings, estimates=own))
        limits[factor] = {axes.get_title(): axes.get_ylim() for axes in figure.axes}
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert any(text.startswith("frozen") for text in texts) is (factor > 1)
    for title, (low, high) in limits[1.0].items():
        assert np.ptp(limits[100.0][title]) <= 1.5 * (high - low), title


def test_nor_does_its_gain_in_the_first_figure(study: Path) -> None:
    findings = find(load_study(study))
    before = answer_figure(findings)
    base = next(row for row in findings.estimates.rows if row.is_base)
    row = replace(base, key=base.key._replace(kind=CONTROL, label=Method.frozen.title))
    far = Interval(mean=-1e3, low=-2e3, high=-1.0, seeds=1, shots=3)
    gains = tuple(Difference(row.full_name, score, far) for score in {each.score for each in findings.differences})
    own = replace(findings.estimates, rows=(*findings.estimates.rows, row))
    after = answer_figure(replace(findings, estimates=own, differences=(*findings.differences, *gains)))
    assert before is not None and after is not None
    assert [axes.get_ylim() for axes in after.axes] == [axes.get_ylim() for axes in before.axes]
    assert any("1000" in text.get_text() for text in after.axes[0].texts)


def test_the_band_is_the_reach_of_the_noise(study: Path) -> None:
    floor = Reseed("psnr", 0.1, 0.5, True, 1, 3)
    half = Halves("kvd[tnv2]", REAL, "", 0, 1, 0.0, -0.25, 0.75)
    figure = noise_floor(replace(find(load_study(study)), halves=(half,), reseeds=(floor,)))
    assert figure is not None
    bands = [axes.patches[0] for axes in figure.axes]
    assert all(isinstance(band, matplotlib.patches.Rectangle) for band in bands)
    assert [(band.get_y(), band.get_height()) for band in bands] == [(-0.25, 1.0), (-0.5, 1.0)]


def test_caption_says_how_rates_go_with_ranks(builder: Builder) -> None:
    loaded = load_study(builder.build())
    estimates = estimate(loaded)
    assert "one learning rate for all ranks, 0.0001" in caption(estimates)
    for spec in loaded.specs:
        spec.config.train.learning_rate = 0.01 / spec.config.lora.rank
    text = caption(estimates)
    assert "a learning rate for each rank, set before the study (4: 0.0025, 8: 0.00125)" in text


def test_the_shape_of_a_marker_is_the_learning_rate_and_the_table_shows_it(study: Path) -> None:
    findings = find(load_study(study))
    for share, shapes, styles in ((0.0, 1, {"-"}), (1.0, 2, {":"})):
        rows = tuple(
            replace(row, key=row.key._replace(learning_rate=0.01 / row.key.rank**share)) if row.in_grid else row
            for row in findings.estimates.rows
        )
        found = replace(findings, estimates=replace(findings.estimates, rows=rows))
        axes = next(each for each in quality_vs_rank(found).axes if each.get_title().startswith("psnr"))
        assert len({line.get_marker() for line in axes.lines} - {"None"}) == shapes
        assert {line.get_linestyle() for line in axes.lines if line.get_color() == COLOURS[0]} - {"None"} == styles
        columns = {column.name: column.cells for column in rank_table(found).columns}
        assert ("learning rate" in columns) is (shapes > 1)
    assert [cell.text for cell in columns["learning rate"]] == ["-", "0.0025", "0.00125", "-"]


def test_kinds_of_layers_look_different() -> None:
    attention = [f"attn{block}.{name}" for block in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")]
    kinds = [*attention, "attn2.add_k_proj", "attn2.add_v_proj", "ffn.net.0.proj", "ffn.net.2"]
    assert len({tuple(sorted(kind_style(kind).items())) for kind in kinds}) == len(kinds) == 12


def test_pairs_fill_a_column_then_the_page() -> None:
    assert [(len(paired_panels(count)[1]), len(paired_panels(count)[0].axes)) for count in (1, 2, 3, 6)] == [
        (1, 2),
        (2, 4),
        (3, 6),
        (6, 12),
    ]
    assert paired_panels(2)[0].get_figwidth() < 3.5 < paired_panels(3)[0].get_figwidth()
