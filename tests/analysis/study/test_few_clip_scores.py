"""Further scores on paper: colours taken on, seeds apart, what a trial recorded; a table of their own."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from analysis.report import main
from analysis.statistics.findings import find
from analysis.study.load import load_study
from analysis.study.rows import Estimates, estimate
from analysis.study.scores import FURTHER, shown_further, trial_scores
from analysis.tables.csv_files import rank_csv
from analysis.tables.rank_table import further_table, rank_table, table_scores
from cinelora.metrics.catalogue import COLOURS
from tests.analysis.paper_study import CLIPS, SHIFTS, Builder, write_rows

FLICKER = {name: 0.5 + 0.0625 * index for index, name in enumerate(SHIFTS)}
LEVEL = {"base": 100, "r4s0": 104, "r4s1": 106, "r8s0": 110, "r8s1": 110}
TARGET = 110  # of luma; chroma is 128 everywhere


def _grey(*levels: int) -> np.ndarray:
    """Histograms (N, 3 x 256) of clips that are one grey each."""
    out = np.zeros((len(levels), 3, 256), np.float32)
    out[np.arange(len(levels)), 0, list(levels)] = 1.0
    out[:, 1:, 128] = 1.0
    return out.reshape(len(levels), -1)


@pytest.fixture
def root(builder: Builder) -> Path:
    """The study on paper; clips of plain greys, four training clips at 110, real clips at 100, 110 and 120."""
    folder = builder.build()
    train = builder.reference.train
    for path, ids, rows in (
        (train.features(COLOURS), ["t0", "t1", "t2", "t3"], _grey(*[TARGET] * 4)),
        (builder.reference.features(COLOURS), CLIPS, _grey(100, 110, 120)),
        *((builder.folder.trial(name).features(COLOURS), CLIPS, _grey(*[LEVEL[name]] * 3)) for name in SHIFTS),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, ids=np.array(ids), features=rows)
    for name in SHIFTS:
        place = builder.folder.trial(name)
        head, *rows = (tuple(line.split(",")) for line in place.clip_scores.read_text().splitlines())
        made = [(clip, "temporal_flickering", FLICKER[name]) for clip in CLIPS]
        made += [(clip, "memorisation_share[tnv2]", float(index == 0)) for index, clip in enumerate(CLIPS)]
        write_rows(place.clip_scores, list(head), [*rows, *made])
    return folder


def _estimates(root: Path) -> Estimates:
    study = load_study(root)
    return estimate(study)


def test_style_is_how_far_the_mean_clip_is_off_the_training_clips(root: Path) -> None:
    scores = trial_scores(load_study(root))
    assert {name: found["style_distance[y]"] for name, found in scores.values.items()} == {
        name: pytest.approx(abs(level - TARGET)) for name, level in LEVEL.items()
    }
    assert all(found["style_distance[cb]"] == 0 for found in scores.values.values())
    assert scores.real["style_distance[y]"] == pytest.approx(20 / 3)  # a third each at 10 below, at and 10 above


def test_diversity_is_the_mean_distance_of_the_seeds_of_a_row(root: Path) -> None:
    found = {row.name: row.estimates.get("diversity[tnv2]") for row in _estimates(root).rows}
    apart = abs(SHIFTS["r4s0"] - SHIFTS["r4s1"])  # the reference's deviation is 1
    assert found["base"] is None and found["rank 4"] is not None
    assert found["rank 4"].values == (pytest.approx(apart), pytest.approx(apart))


def test_clip_scores_become_columns_and_pairs(root: Path) -> None:
    values = _estimates(root).scores.values
    assert {name: values[name]["temporal_flickering"] for name in SHIFTS} == FLICKER
    assert values["base"]["memorisation_share[tnv2]"] == pytest.approx(1 / 3)


def test_they_have_a_table_of_their_own(root: Path) -> None:
    findings = find(load_study(root))
    estimates = findings.estimates
    names = ("temporal_flickering", "memorisation_share[tnv2]")
    style = tuple(f"style_distance[{channel}]" for channel in ("y", "cb", "cr"))
    assert shown_further(estimates.scores) == (*names, *style, "diversity[tnv2]")
    table = rank_table(findings)
    assert not set(table_scores(estimates.scores)) & set(FURTHER)
    further = table.further
    assert further is not None and further == further_table(findings)
    assert [column.name for column in further.columns] == ["rank", *names, *style, "diversity[tnv2]"]
    assert "4 training clips" in further.caption and "of 2 other held-out clips" in further.caption
    assert "0.67 by chance" in further.caption and "warp_error" not in further.caption
    assert [cell.text for cell in further.columns[-1].cells][0] == "n/a"  # one base has nothing to differ from
    rows = list(csv.DictReader(io.StringIO(rank_csv(estimates, {}))))
    assert [float(row["style_distance[y]"]) for row in rows[:3]] == [10, 5, 0]


def test_the_report_writes_them(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    assert main([str(root), "--out", str(place)]) == 0
    scores = (place / "scores.csv").read_text()
    assert all(f",(set),{name}," in scores for name in ("style_distance[y]", "diversity[tnv2]"))
    assert (place / "further_scores.md").read_text().startswith("# Further scores: paper numbers")
    assert "Further scores" in (place / "index.html").read_text()
    assert "style_distance" not in (place / "rank_table.md").read_text()


def test_a_study_without_them_is_as_before(builder: Builder) -> None:
    study = load_study(builder.build())
    table = rank_table(find(study))
    assert study.reference.train == {}
    assert table.further is not None
    assert [column.name for column in table.further.columns] == ["rank", "diversity[tnv2]"]
    gaps = trial_scores(study).gaps
    assert not any(name in gap for gap in gaps for name in FURTHER)
