"""A set distance as one value a clip: its mean is the distance, its spread that of other clips and their scale."""

from __future__ import annotations

import numpy as np

from analysis.study.clip_values import _pseudo_values, _scale_effects
from analysis.study.files import Array
from cinelora.metrics.distances import polynomial_mmd, standardise


def sets(clips: int = 200) -> tuple[Array, Array]:
    """True and made clips of 6 dimensions, correlated row by row, the made ones shifted and narrower."""
    random = np.random.default_rng(3)
    true = random.normal(size=(clips, 6)) @ random.normal(size=(6, 6)) + 4
    return true, 0.6 * true + 0.5 * random.normal(size=(clips, 6)) + 2.5


def distance(true: Array, made: Array) -> float:
    return polynomial_mmd(*standardise(true, made), degree=3, matched=True)


def test_values_average_to_the_distance_and_the_scale_adds_none() -> None:
    x, y = standardise(*sets())
    assert np.isclose(_pseudo_values(x, y).mean(), polynomial_mmd(x, y, degree=3, matched=True), rtol=1e-12)
    assert abs(_scale_effects(x, y).sum()) < 1e-9


def test_values_are_those_of_leaving_a_clip_out_of_everything() -> None:
    true, made = sets()
    x, y = standardise(true, made)
    without = [distance(np.delete(true, clip, 0), np.delete(made, clip, 0)) for clip in range(len(true))]
    exact = len(true) * distance(true, made) - (len(true) - 1) * np.array(without)
    fixed, found = _pseudo_values(x, y), _pseudo_values(x, y) + _scale_effects(x, y)
    assert np.corrcoef(found, exact)[0, 1] > 0.99
    assert abs(found.std() / exact.std() - 1) < 0.05
    assert np.corrcoef(fixed, exact)[0, 1] < 0.5  # the scale held fixed


def test_a_dimension_that_never_varies_adds_nothing() -> None:
    true, made = sets()
    flat = [np.column_stack([rows, np.zeros(len(rows))]) for rows in (true, made)]
    x, y = standardise(*flat)
    assert np.isfinite(_scale_effects(x, y)).all()
