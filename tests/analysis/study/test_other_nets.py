"""Scores of nets whose weights a user brings: columns where they are there, and the features as the net gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.study.clip_values import clip_scorers
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.study.scores import shown_further, shown_optional, trial_scores
from analysis.tables.captions import caption, further_caption
from analysis.tables.csv_files import rank_csv
from analysis.tables.rank_table import table_scores
from cinelora.metrics.distances import kernel_distance, polynomial_mmd
from tests.analysis.paper_study import CLIPS, SHIFTS, Builder, write_rows

PERCEPTUAL = ("stlpips[alex]", "neighbours[stlpips]")
LPIPS = {name: 0.125 * index for index, name in enumerate(SHIFTS)}
REAL = np.array([[-1.0, 2.0], [0.0, 5.0], [4.0, 1.0]])


@pytest.fixture
def root(builder: Builder) -> Path:
    """The study on paper, with V-JEPA features (spread far from 1) and lpips in every trial."""
    folder = builder.build()
    np.savez(builder.reference.features("vjepa"), ids=np.array(CLIPS), features=REAL)
    for name, shift in SHIFTS.items():
        place = builder.folder.trial(name)
        np.savez(place.features("vjepa"), ids=np.array(CLIPS), features=REAL + [shift, 0])
        head, *rows = (tuple(line.split(",")) for line in place.clip_scores.read_text().splitlines())
        write_rows(place.clip_scores, list(head), [*rows, *((clip, "lpips", LPIPS[name]) for clip in CLIPS)])
    return folder


def test_distances_of_the_published_nets_are_of_the_features_as_given(root: Path) -> None:
    found = trial_scores(load_study(root)).values
    for name, shift in SHIFTS.items():
        made = REAL + [shift, 0]
        assert found[name]["fvd[vjepa]"] == pytest.approx(shift**2, abs=1e-12)  # standardised it would be less
        assert found[name]["kvd[vjepa]"] == pytest.approx(polynomial_mmd(REAL, made, matched=True))
        assert found[name]["jedi[vjepa]"] == pytest.approx(kernel_distance(made, REAL, "jedi"), abs=1e-9)
        assert found[name]["lpips"] == LPIPS[name]


def test_columns_come_with_the_nets_and_only_with_them(root: Path, builder: Builder) -> None:
    scores = trial_scores(load_study(root))
    brought = ("fvd[vjepa]", "kvd[vjepa]", "jedi[vjepa]", "lpips")
    assert shown_optional(scores) == brought
    assert table_scores(scores)[-5:] == (*brought, "fvd[i3d]")  # the last is n/a, with its reason
    assert set(scores.unavailable) == {"fvd[i3d]", "profile_gap[mnv2]"}
    for name in SHIFTS:
        builder.folder.trial(name).features("vjepa").unlink()
        builder.rewrite_scores(name, lambda clip, metric: metric != "lpips")
    plain = trial_scores(load_study(root))
    assert shown_optional(plain) == () and table_scores(plain)[-2:] == ("fvd[i3d]", "lpips")


def test_the_perceptual_score_is_in_the_second_table_alone(root: Path, builder: Builder) -> None:
    for name in SHIFTS:
        place = builder.folder.trial(name)
        head, *rows = (tuple(line.split(",")) for line in place.clip_scores.read_text().splitlines())
        more = [(clip, each, LPIPS[name]) for each in PERCEPTUAL for clip in CLIPS]
        write_rows(place.clip_scores, list(head), [*rows, *more])
    found = estimate(load_study(root))
    assert [each for each in shown_further(found.scores) if "lpips" in each] == list(PERCEPTUAL)
    assert not set(PERCEPTUAL) & set(table_scores(found.scores))
    assert all(found.scores.values[name][PERCEPTUAL[0]] == LPIPS[name] for name in SHIFTS)
    assert "stlpips: shift-tolerant LPIPS of each frame" in further_caption(found)


def test_csv_and_caption_tell_of_them(root: Path) -> None:
    found = estimate(load_study(root))
    head = rank_csv(found, {}).splitlines()[0].split(",")
    start, end = head.index("fvd[vjepa]"), head.index("lpips")
    assert head[start : start + 4] == ["fvd[vjepa]", "fvd[vjepa]_min", "fvd[vjepa]_max", "fvd[vjepa]_seeds"]
    assert head[end : end + 4] == ["lpips", "lpips_min", "lpips_max", "lpips_seeds"] and head[-1] == "fvd[i3d]"
    text = caption(found)
    assert "both on 2 V-JEPA features as the net gives them, against the 3 real clips" in text
    assert "jedi[vjepa]: polynomial MMD of degree 2, biased, times 100." in text and "jedi[tnv2]" not in text
    assert "fvd[vjepa] has no values per clip, so no intervals: 3 clips for features that vary in about 2" in text
    assert "both on 1 TransNetV2 features standardised by the 3 real clips of the reference." in text


def test_their_kernel_distance_can_be_compared_clip_by_clip(root: Path) -> None:
    study = load_study(root)
    trial = next(each for each in study.trials if each.spec.trial_id == "r4s1")
    values = clip_scorers(study, CLIPS)["kvd[vjepa]"](trial)
    assert values is not None
    made = trial.features["vjepa"].of(CLIPS)
    whole = polynomial_mmd(REAL, made, matched=True)
    keep = [np.delete(np.arange(3), i) for i in range(3)]
    parts = [polynomial_mmd(REAL[rows], made[rows], matched=True) for rows in keep]
    assert values == pytest.approx([3 * whole - 2 * part for part in parts])


def test_the_other_distances_have_values_too_but_stand_in_no_comparison_by_default(root: Path) -> None:
    study = load_study(root)
    trial = next(each for each in study.trials if each.spec.trial_id == "r4s1")
    scorers, made = clip_scorers(study, CLIPS), trial.features["vjepa"].of(CLIPS)
    values = scorers["jedi[vjepa]"](trial)
    assert values is not None and values.mean() == pytest.approx(
        100 * polynomial_mmd(REAL, made, 2, coef0=0.0, matched=True), abs=1e-9
    )
    assert scorers["fvd[vjepa]"](trial) is None  # three clips are too few
    compared = estimate(study).clip_scores
    assert "kvd[vjepa]" in compared and not {"fvd[vjepa]", "jedi[vjepa]", "fvd[tnv2]"} & set(compared)
