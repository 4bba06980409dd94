"""One trial's files: exact numbers, order, laziness; set scores as the distances define them; the CSV of all scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.study.files import ClipValues, read_clip_scores, read_curve
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.tables.csv_files import write_scores
from cinelora.core.cli import UserError
from cinelora.metrics.distances import fit_gaussian, frechet_between, kernel_distance, polynomial_mmd, standardise
from cinelora.metrics.set_metrics import scores_of_net
from tests.analysis.paper_study import CLIPS, SHIFTS, Builder, write_rows

HEAD = ["clip_id", "metric", "value"]


def test_numbers_read_back_as_the_same_float64(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    numbers = (random.normal(size=2000) * 10.0 ** random.integers(-30, 30, 2000)).tolist()
    path = tmp_path / "clip_scores.csv"
    write_rows(path, HEAD, [(f"c{row:04d}", "psnr", repr(number)) for row, number in enumerate(numbers)])
    assert read_clip_scores(path)["psnr"].numbers.tolist() == numbers


def test_clip_values_are_a_sorted_mapping(tmp_path: Path) -> None:
    path = tmp_path / "clip_scores.csv"
    write_rows(path, HEAD, [("b", "psnr", 2.0), ("007", "psnr", 1.0), ("NA", "psnr", ""), ("n", "psnr", "nan")])
    found = read_clip_scores(path)["psnr"]
    assert list(found) == ["007", "NA", "b", "n"] and found["b"] == 2.0 and "c" not in found and "" not in found
    assert np.isnan(found["NA"]) and np.isnan(found["n"]) and found.of(("b", "007")).tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "psnr", 1.0), ("a", "psnr", 2.0)], "psnr of a occurs twice"),
        ([("a", "psnr", "high")], "could not convert string to float"),
        ([("a", "psnr", 1.0, 2.0), ("a", "psnr", 1.0, 2.0, 3.0)], "clip_scores.csv: "),
    ],
)
def test_damage_is_told_in_one_line(tmp_path: Path, rows: list[tuple[object, ...]], words: str) -> None:
    path = tmp_path / "clip_scores.csv"
    write_rows(path, HEAD, rows)
    with pytest.raises(UserError, match=words) as caught:
        read_clip_scores(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", ["step", "loss"], [(1, 0.5)])
    with pytest.raises(UserError, match="has no column heldout_loss"):
        read_curve(tmp_path / "train.csv")


def test_features_are_read_when_asked_for(builder: Builder) -> None:
    study = load_study(builder.build())
    features = study.trials[1].features["tnv2"]
    np.savez(builder.folder.trial("r4s0").features("tnv2"), ids=np.array(CLIPS), features=np.full((3, 1), 7.0))
    assert features.values.tolist() == [[7.0]] * 3


@pytest.mark.parametrize("net", ["tnv2", "vjepa"])
def test_set_scores_are_the_distances_to_the_last_bit(net: str) -> None:
    random = np.random.default_rng(1)
    real, made = random.normal(size=(9, 5)), random.normal(1, 2, (9, 5))
    found = scores_of_net(net, made, real)
    x, y = standardise(real, made) if net == "tnv2" else (real, made)
    expected = {f"kvd[{net}]": polynomial_mmd(x, y, matched=True)}
    expected[f"fvd[{net}]"] = frechet_between(fit_gaussian(x), fit_gaussian(y))
    assert {name: found[name] for name in expected} == expected
    assert found.get("jedi[vjepa]") == (kernel_distance(y, x, "jedi") if net == "vjepa" else None)
    assert all(np.isnan(value) for value in scores_of_net(net, np.full((9, 5), np.nan), real).values())


def test_scores_csv_is_the_same_for_a_shuffled_ledger(tmp_path: Path) -> None:
    orderly, shuffled = Builder(tmp_path / "a"), Builder(tmp_path / "b")
    orderly.build()
    shuffled.build(reverse=True)
    random = np.random.default_rng(2)
    plan = json.loads(shuffled.folder.plan.read_text())
    random.shuffle(plan["trials"])
    shuffled.folder.plan.write_text(json.dumps(plan))
    for place in (shuffled.reference, *(shuffled.folder.trial(name) for name in SHIFTS)):
        head, *rows = csv.reader(place.clip_scores.read_text().splitlines())
        random.shuffle(rows)
        write_rows(place.clip_scores, head, [tuple(row) for row in rows])
        with np.load(place.features("tnv2")) as kept:
            order = random.permutation(len(kept["ids"]))
            moved = {name: kept[name][order] for name in ("ids", "features")}
        np.savez(place.features("tnv2"), **moved)
    for builder in (orderly, shuffled):
        write_scores(estimate(load_study(builder.folder.root)), builder.folder.root / "scores.csv")
    written = (orderly.folder.root / "scores.csv").read_bytes()
    assert written == (shuffled.folder.root / "scores.csv").read_bytes()
    assert written.count(b"\n") == 1 + len(SHIFTS) * (7 * len(CLIPS) + 2) + 4  # clips with the gap, kvd, fvd; diversity


def test_clip_values_hold_what_they_are_given() -> None:
    found = ClipValues(("a", "b"), np.array([1.0, 2.0]))
    assert dict(found) == {"a": 1.0, "b": 2.0} and len(found) == 2
