"""Set scores that trials recorded stand for those that are computed, and only where their basis is the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.study.load import Study, Trial, load_study
from analysis.study.rows import estimate
from analysis.study.scores import trial_scores
from analysis.tables.csv_files import rank_csv
from cinelora.core.cli import UserError
from cinelora.features.results import write_set_scores
from cinelora.metrics.set_metrics import SetScores
from tests.analysis.paper_study import CLIPS, SHIFTS, Builder

FALSE = {"fvd[tnv2]": -1.0, "kvd[tnv2]": -2.0}  # what no computation gives


@pytest.fixture
def root(builder: Builder) -> Path:
    builder.build()
    for name in SHIFTS:
        write_set_scores(builder.folder.trial(name), builder.reference)
    return builder.folder.root


def falsified(study: Study, change: Callable[[SetScores], SetScores] = lambda kept: kept) -> Study:
    """Every trial recorded FALSE, on a basis that `change` may alter."""

    def of(trial: Trial) -> Trial:
        kept = {net: change(replace(found, scores=FALSE)) for net, found in trial.set_scores.items()}
        return replace(trial, set_scores=kept)

    return replace(study, trials=tuple(of(trial) for trial in study.trials))


def set_scores_of(study: Study) -> set[tuple[float, float]]:
    values = trial_scores(study).values.values()
    return {(found["fvd[tnv2]"], found["kvd[tnv2]"]) for found in values}


def test_a_study_with_and_without_the_files_is_the_same(builder: Builder, root: Path) -> None:
    study = load_study(root)
    kept = trial_scores(study)
    for name in SHIFTS:
        builder.folder.trial(name).set_scores.unlink()
    bare = load_study(root)
    assert all(trial.set_scores for trial in study.trials) and not any(trial.set_scores for trial in bare.trials)
    assert trial_scores(bare) == kept
    assert rank_csv(estimate(study), {}) == rank_csv(estimate(bare), {})


def test_recorded_scores_are_taken_and_no_feature_is_read(root: Path) -> None:
    def unread() -> np.ndarray:
        raise AssertionError("features were read")

    study = falsified(load_study(root))
    silent = tuple(
        replace(trial, features={"tnv2": replace(trial.features["tnv2"], read=unread)}) for trial in study.trials
    )
    assert set_scores_of(replace(study, trials=silent)) == {tuple(FALSE.values())}


@pytest.mark.parametrize("part", ["definition", "made", "real"])
def test_another_basis_is_computed_again(root: Path, part: str) -> None:
    study = load_study(root)
    assert set_scores_of(falsified(study, lambda kept: replace(kept, **{part: "other"}))) == set_scores_of(study)


def test_other_features_on_disk_are_computed_again(builder: Builder, root: Path) -> None:
    path = builder.folder.trial("r4s0").features("tnv2")
    np.savez(path, ids=np.array(CLIPS), features=np.float32([[4.0], [5.0], [6.0]]))  # a shift of 5
    assert trial_scores(load_study(root)).values["r4s0"]["fvd[tnv2]"] == 25.0


def test_fewer_common_clips_are_computed_again(builder: Builder, root: Path) -> None:
    builder.rewrite_scores("base", keep=lambda clip, metric: clip != "c1")  # the others have it
    scores = trial_scores(falsified(load_study(root)))
    assert scores.clips == ("c0", "c2")
    assert all(found["fvd[tnv2]"] >= 0 for found in scores.values.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not JSON"), ('{"tnv2": {"fvd": 1.0}}', "computed from the features"), ("[]", "computed from the features")],
)
def test_a_damaged_file_is_named_with_its_remedy(builder: Builder, root: Path, text: str, words: str) -> None:
    path = builder.folder.trial("r4s0").set_scores
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_study(root)
    assert str(caught.value).startswith(str(path))


def test_a_damaged_feature_file_is_named(builder: Builder, root: Path) -> None:
    path = builder.folder.trial("r4s0").features("tnv2")
    np.savez(path, ids=np.array(["c0", "c0", "c2"]), features=np.zeros((3, 1), np.float32))
    with pytest.raises(UserError, match="1 of 3 ids occur twice"):
        load_study(root)
    path.write_bytes(b"cut short")
    with pytest.raises(UserError, match="not a feature file"):
        load_study(root)
