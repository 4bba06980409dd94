"""A set distance as one value a clip: the distance in the mean, the spread that of other clips and of their scale."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cinelora.metrics.distances import (
    Array,
    Gaussian,
    fit_gaussian,
    frechet_between,
    frechet_distance,
    kernel_distance,
    polynomial_mmd,
    standardise,
)
from cinelora.metrics.influence import _pseudo_values, _scale_effects, frechet_values, kernel_values, too_few_clips


def sets(clips: int = 200, dimensions: int = 6) -> tuple[Array, Array]:
    """True and made clips, correlated row by row, the made ones shifted and narrower."""
    random = np.random.default_rng(3)
    true = random.normal(size=(clips, dimensions)) @ random.normal(size=(dimensions, dimensions)) + 4
    return true, 0.6 * true + 0.5 * random.normal(size=(clips, dimensions)) + 2.5


def distance(true: Array, made: Array) -> float:
    return polynomial_mmd(*standardise(true, made), degree=3, matched=True)


def test_values_average_to_the_distance_and_the_scale_adds_none() -> None:
    x, y = standardise(*sets())
    assert np.isclose(_pseudo_values(x, y, "kid").mean(), polynomial_mmd(x, y, degree=3, matched=True), rtol=1e-12)
    assert abs(_scale_effects(x, y, "kid").sum()) < 1e-9


def test_values_are_those_of_leaving_a_clip_out_of_everything() -> None:
    true, made = sets()
    x, y = standardise(true, made)
    without = [distance(np.delete(true, clip, 0), np.delete(made, clip, 0)) for clip in range(len(true))]
    exact = len(true) * distance(true, made) - (len(true) - 1) * np.array(without)
    fixed, found = _pseudo_values(x, y, "kid"), kernel_values(x, y, True)
    assert np.corrcoef(found, exact)[0, 1] > 0.99
    assert abs(found.std() / exact.std() - 1) < 0.05
    assert np.corrcoef(fixed, exact)[0, 1] < 0.5  # the scale held fixed


def test_a_dimension_that_never_varies_adds_nothing() -> None:
    true, made = sets()
    flat = [np.column_stack([rows, np.zeros(len(rows))]) for rows in (true, made)]
    x, y = standardise(*flat)
    assert np.isfinite(_scale_effects(x, y, "kid")).all()
    assert frechet_values(x, y, True) == pytest.approx(frechet_values(x[:, :-1], y[:, :-1], True), rel=1e-9)


@pytest.mark.parametrize(("clips", "dimensions"), [(20, 6), (9, 30)])
def test_jedi_leaves_each_clip_out_of_its_own_kernel_and_diagonal(clips: int, dimensions: int) -> None:
    x, y = sets(clips, dimensions)
    whole = kernel_distance(x, y, "jedi")
    parts = [kernel_distance(np.delete(x, i, 0), np.delete(y, i, 0), "jedi") for i in range(clips)]
    found = kernel_values(x, y, False, "jedi")
    assert found == pytest.approx(clips * whole - (clips - 1) * np.array(parts), rel=1e-6)
    unbiased = 100 * polynomial_mmd(x, y, 2, coef0=0.0, matched=True)
    assert found.mean() == pytest.approx(unbiased, rel=1e-9)


def test_the_scale_counts_for_jedi_too() -> None:
    true, made = sets()
    x, y = standardise(true, made)
    without = [kernel_distance(*standardise(np.delete(true, i, 0), np.delete(made, i, 0)), "jedi") for i in range(200)]
    exact = 200 * kernel_distance(x, y, "jedi") - 199 * np.array(without)
    found = kernel_values(x, y, True, "jedi")
    assert np.corrcoef(found, exact)[0, 1] > 0.99 and abs(found.std() / exact.std() - 1) < 0.05
    assert kernel_values(x, y, False, "jedi").std() > 2 * exact.std()  # the scale held fixed


def weighted_frechet(true: Array, made: Array, weights: Array, standardised: bool) -> float:
    """Of clips of unequal weight, straight from the definition; the covariance divides as that of all clips does."""
    scale = len(true) / (len(true) - 1)

    def fit(rows: Array) -> Gaussian:
        mean = weights @ rows
        return Gaussian(len(rows), mean, np.sqrt(scale * weights)[:, None] * (rows - mean))

    deviation = np.sqrt(np.square(fit(true).factor).sum(0)) if standardised else 1.0
    return frechet_between(fit(true / deviation), fit(made / deviation))


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize(("clips", "dimensions"), [(30, 6), (12, 12), (12, 40)])
def test_frechet_influence_is_the_derivative_by_the_weight_of_a_clip(
    clips: int, dimensions: int, standardised: bool
) -> None:
    true, made = sets(clips, dimensions)
    x, y = standardise(true, made) if standardised else (true, made)
    step, even, brute = 1e-5, np.full(clips, 1 / clips), []
    for one in np.eye(clips):
        up, down = (weighted_frechet(true, made, (1 - h) * even + h * one, standardised) for h in (step, -step))
        brute.append((up - down) / (2 * step))
    found = frechet_values(x, y, standardised)
    influence = found - found.mean()
    assert influence == pytest.approx(np.array(brute), abs=1e-6 * np.abs(brute).max())
    assert abs(sum(brute)) < 1e-6 * np.abs(brute).max()


@pytest.mark.parametrize("dimensions", [6, 40])
def test_frechet_values_depend_on_no_rotation_and_no_origin(dimensions: int) -> None:
    x, y = sets(20, dimensions)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dimensions, dimensions)))[0]
    assert frechet_values(x @ turn - 3, y @ turn - 3, False) == pytest.approx(frechet_values(x, y, False), rel=1e-8)


def test_frechet_values_average_to_the_distance_without_its_bias() -> None:
    true, made = sets(400, 3)
    for standardised in (False, True):
        x, y = standardise(true, made) if standardised else (true, made)
        without = []
        for i in range(400):
            rows = np.delete(true, i, 0), np.delete(made, i, 0)
            without.append(frechet_distance(*(standardise(*rows) if standardised else rows)))
        exact = 400 * frechet_distance(x, y) - 399 * np.array(without)
        found = frechet_values(x, y, standardised)
        assert np.corrcoef(found, exact)[0, 1] > 0.999
        if not standardised:  # the bias that comes from the scale is left in
            bias = [frechet_distance(x, y) - each.mean() for each in (found, exact)]
            assert bias[0] == pytest.approx(bias[1], rel=0.03)


def test_too_few_clips_are_those_below_four_a_direction() -> None:
    rows = np.random.default_rng(0).normal(size=(96, 30))
    assert too_few_clips(rows).startswith("96 clips for features that vary in about 2")
    falling = 0.6 ** np.arange(30)
    assert too_few_clips(rows * falling) == "" and too_few_clips(rows[:12] * falling)
    assert too_few_clips(np.ones((4, 3))) == ""


def test_intervals_of_a_paired_difference_hold_the_truth() -> None:
    """40 clips in 60 dimensions that fall fast; the whole simulation is in the docstring of `too_few_clips`."""
    axes = 0.6 ** np.arange(60)
    random, hits, count = np.random.default_rng(0), 0, 200
    shift = 0.5 * (np.arange(60) == 1)
    truth = sum(
        sign * frechet_between(Gaussian(9, np.zeros(60), np.diag(axes)), Gaussian(9, mean, narrow * np.diag(axes)))
        for sign, narrow, mean in ((1, 0.7, shift), (-1, 0.8, shift / 2))
    )
    for _ in range(count):
        x, shared, a, b = random.normal(size=(4, 40, 60)) * axes
        made = [narrow * (0.4 * x + 0.75 * shared + 0.53 * own) for narrow, own in ((0.7, a), (0.8, b))]
        found = frechet_values(x, made[0] + shift, False) - frechet_values(x, made[1] + shift / 2, False)
        half = stats.t.ppf(0.975, 39) * found.std(ddof=1) / np.sqrt(40)
        hits += abs(found.mean() - truth) <= half
    assert too_few_clips(x) == "" and 0.92 <= hits / count <= 0.98


def test_equal_sets_have_no_spread() -> None:
    x, _ = sets(30)
    assert np.abs(frechet_values(x, x, False)).max() < 1e-9 * np.square(fit_gaussian(x).factor).sum()
