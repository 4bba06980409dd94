"""Distances against the number of clips: at all clips they are those of the table; fvd is biased, kvd is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.statistics.reliability import as_csv, set_sizes
from analysis.study.files import Features
from analysis.study.load import load_study
from analysis.study.rows import Estimates, estimate
from cinelora.metrics.distances import frechet_distance, polynomial_mmd, standardise
from cinelora.metrics.feature_nets import WEIGHTS

CLIPS, DIMENSIONS = 48, 6
IDS = tuple(f"clip{index:02d}" for index in range(CLIPS))


def with_features(root: Path) -> tuple[Estimates, np.ndarray, np.ndarray]:
    """The paper study with 48 clips of 6 normal features, the true ones and those that every trial has made."""
    random = np.random.default_rng(0)
    real, made = random.normal(size=(CLIPS, DIMENSIONS)), random.normal(0.3, 1.0, size=(CLIPS, DIMENSIONS))
    study = load_study(root)
    estimates = estimate(study)
    references = {
        key: replace(each, features={"tnv2": Features(IDS, lambda: real)}) for key, each in study.references.items()
    }
    trials = tuple(replace(each, features={"tnv2": Features(IDS, lambda: made)}) for each in study.trials)
    scores = replace(estimates.scores, clips=IDS)
    study = replace(study, references=references, trials=trials)
    return replace(estimates, study=study, scores=scores), real, made


def test_all_clips_are_the_distance_of_the_table(study: Path) -> None:
    estimates, real, made = with_features(study)
    assert WEIGHTS["tnv2"].standardised
    x, y = standardise(real, made)
    whole, few, kernel = (each for each in set_sizes(estimates) if each.row.is_base)
    assert (whole.dimensions, few.dimensions, kernel.dimensions) == (DIMENSIONS, 4, DIMENSIONS)  # 48 / 4 / 3 axes
    assert whole.found.scores[-1] == pytest.approx(frechet_distance(y, x), rel=1e-8)
    assert kernel.found.scores[-1] == pytest.approx(polynomial_mmd(x, y, degree=3, matched=True), rel=1e-8)
    assert [each.straight for each in (whole, few, kernel)] == [True, True, True]  # 12 clips for 6 dimensions


def test_fvd_grows_as_clips_grow_fewer_and_kvd_does_not(study: Path) -> None:
    """From 48 to 12 clips: fvd doubles and more; kvd moves by less than half its standard error."""
    estimates, _, _ = with_features(study)
    whole, _, kernel = (each.found for each in set_sizes(estimates) if each.row.is_base)
    assert whole.scores[0] > 2 * whole.scores[-1] > 2 * whole.value
    assert abs(kernel.scores[0] - kernel.scores[-1]) < kernel.standard_error / 2


def test_the_same_again_and_a_line_a_size(study: Path) -> None:
    estimates, _, _ = with_features(study)
    lines = as_csv(set_sizes(estimates)).splitlines()
    assert lines == as_csv(set_sizes(estimates)).splitlines()
    assert [line.split(",")[3] for line in lines[1:7]] == ["12", "21", "30", "39", "48", "inf"]
    assert len(lines) == 1 + 3 * 3 * 6  # base and two ranks, three curves, five sizes and infinity


def test_three_clips_make_no_curve(study: Path) -> None:
    assert set_sizes(estimate(load_study(study))) == ()
