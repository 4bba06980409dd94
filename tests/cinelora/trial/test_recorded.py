"""The set scores that a trial records: distances checked by hand, of these features, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from cinelora.core.files import read_json
from cinelora.core.paths import SampleFolder, TrialFolder
from cinelora.features.nets import NETS, Net
from cinelora.features.results import read_features, write_features, write_set_scores
from cinelora.metrics import set_metrics
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.set_metrics import definition, features_fingerprint, scores_of_net
from cinelora.trial.resident import load_resident_model
from cinelora.trial.scoring import write_reference
from tests import tiny_study

IDS, REAL = ("a", "b", "c"), np.float32([[-1.0], [0.0], [1.0]])  # mean 0, standard deviation 1


@pytest.fixture
def places(tmp_path: Path) -> tuple[TrialFolder, SampleFolder]:
    """A trial whose clips are the reference clips plus 1."""
    made, real = TrialFolder(tmp_path / "made"), SampleFolder(tmp_path / "real")
    write_features(made.features("tnv2"), IDS, REAL + 1)
    write_features(real.features("tnv2"), IDS, REAL)
    return made, real


def recorded(made: TrialFolder, real: SampleFolder) -> Any:
    write_set_scores(made, real)
    return read_json(made.set_scores)


def test_the_scores_on_paper_and_their_basis(places: tuple[TrialFolder, SampleFolder]) -> None:
    """fvd is the squared shift; kvd 7 from (ab + 1)^3 without the diagonals."""
    found = recorded(*places)
    assert list(found) == ["tnv2"] and found["tnv2"]["definition"] == definition("tnv2")
    assert found["tnv2"]["scores"] == pytest.approx({"fvd[tnv2]": 1.0, "kvd[tnv2]": 7.0})
    assert found["tnv2"]["made"] != found["tnv2"]["real"]
    write_features(places[1].features("tnv2"), [*IDS, "d"], np.vstack([REAL, REAL[:1]]))
    more = recorded(*places)["tnv2"]  # a reference clip that the trial lacks does not count
    assert more["scores"] == found["tnv2"]["scores"] and more["real"] != found["tnv2"]["real"]


def test_the_order_of_a_file_moves_no_bit(places: tuple[TrialFolder, SampleFolder]) -> None:
    random = np.random.default_rng(0)
    real, made = (random.normal(size=(3, 50)).astype(np.float32) for _ in range(2))
    write_features(places[1].features("tnv2"), IDS, real)
    write_features(places[0].features("tnv2"), IDS, made)
    first = recorded(*places)["tnv2"]
    write_features(places[0].features("tnv2"), IDS[::-1], made[::-1])
    second = recorded(*places)["tnv2"]
    assert second["scores"] == first["scores"] and second["made"] != first["made"]
    assert second["scores"] == scores_of_net("tnv2", made.astype(np.float64), real.astype(np.float64))


def test_the_fingerprint_is_of_contents_and_not_of_the_time_of_writing(tmp_path: Path) -> None:
    def fingerprint(ids: tuple[str, ...], rows: np.ndarray) -> str:
        write_features(tmp_path / "f.npz", ids, rows)
        with ZipFile(tmp_path / "f.npz") as archive:
            return features_fingerprint(archive)

    assert fingerprint(IDS, REAL) == fingerprint(IDS, REAL.copy())
    assert len({fingerprint(IDS, REAL), fingerprint(IDS[::-1], REAL), fingerprint(IDS, REAL[::-1])}) == 3


def test_another_formula_is_another_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    before = definition("tnv2"), definition("i3d")
    assert before[0] != before[1]  # i3d is not standardised
    set_metrics.definition.cache_clear()
    monkeypatch.setattr(set_metrics, "STD_FLOOR", 0.1)
    assert definition("tnv2") != before[0] and definition("i3d") == before[1]
    set_metrics.definition.cache_clear()


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (IDS, np.full((3, 1), np.nan)),
        (("a",), REAL[:1]),
        (("a", "b", "z"), REAL),
    ],
    ids=["no number", "one clip", "a clip without a reference"],
)
def test_nothing_is_recorded_where_there_is_no_distance(
    places: tuple[TrialFolder, SampleFolder], ids: tuple[str, ...], rows: np.ndarray
) -> None:
    write_features(places[0].features("tnv2"), ids, rows)
    assert recorded(*places) == {}


def test_a_trial_records_what_its_features_give(study_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def levels(net: Any, frames: np.ndarray) -> np.ndarray:
        return frames[:, [0, -1]].mean(axis=(2, 3, 4)).astype(np.float32)

    monkeypatch.setitem(NETS, "tnv2", Net(WEIGHTS["tnv2"], NETS["tnv2"].build, levels))
    config = tiny_study.tiny_config(study_root / "clips", method="base", data__heldout_shots=2)
    job = tiny_study.make_job(study_root, config)
    base = load_resident_model(job)
    base.nets["tnv2"] = None
    write_reference(job, base)
    tiny_study.run(job, base)
    folder = job.study.trial(job.spec.trial_id)
    made, real = (
        [row for _, row in sorted(zip(*read_features(place.features("tnv2")), strict=True))]
        for place in (folder, job.reference)
    )
    expected = scores_of_net("tnv2", np.array(made, np.float64), np.array(real, np.float64))
    assert read_json(folder.set_scores)["tnv2"]["scores"] == expected
