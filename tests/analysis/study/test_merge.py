"""Several studies in one report: trials counted once, what is refused, where a line is from. In: paper studies."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.report import main
from analysis.statistics.findings import find
from analysis.study.load import Study
from analysis.study.merge import load_studies
from analysis.study.rows import estimate
from analysis.tables.csv_files import rank_csv
from analysis.tables.rank_table import rank_table
from cinelora.core.cli import UserError
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec, reference_key
from tests.analysis.paper_study import Builder, spec

FOURS, EIGHTS = ("base", "r4s0", "r4s1"), ("base", "r8s0", "r8s1")


@pytest.fixture
def fours(tmp_path: Path) -> Builder:
    """Has run rank 4."""
    builder = Builder(tmp_path / "fours")
    builder.build(only=FOURS)
    return builder


@pytest.fixture
def eights(tmp_path: Path) -> Builder:
    """Has run rank 8, on another machine."""
    builder = Builder(tmp_path / "eights")
    builder.build(only=EIGHTS)
    return builder


def merged(*builders: Builder) -> Study:
    return load_studies([builder.folder.root for builder in builders])


def test_scores_that_decide_in_all_studies_decide_in_the_merged_one(fours: Builder, eights: Builder) -> None:
    for builder in (fours, eights):
        builder.edit_json(builder.folder.study, name=builder.folder.root.name, scores=["psnr", "heldout_loss"])
    study = merged(fours, eights)
    assert study.chosen == estimate(study).primary.answered == ("psnr", "heldout_loss") and not study.remarks
    eights.edit_json(eights.folder.study, scores="auto")
    study = merged(fours, eights)
    assert estimate(study).primary.answered == ("consistency_gap[mnv2]", "kvd[tnv2]", "heldout_loss")
    why = "answer.scores differs (eights: auto; fours: psnr, heldout_loss), so that the best scores"
    assert [remark for remark in study.remarks if remark.startswith(why)]


def refusal(*builders: Builder) -> str:
    with pytest.raises(UserError) as caught:
        merged(*builders)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_plan(folder: StudyFolder, part: str, **values: Any) -> None:
    """Change what every trial was planned with, and move the true clips to where that says they are."""
    plan = json.loads(folder.plan.read_text())
    for trial in plan["trials"]:
        (trial["config"][part] if part in trial["config"] else trial[part]).update(values)
    folder.plan.write_text(json.dumps(plan))
    key = reference_key(TrialSpec.from_json(plan["trials"][0]))
    folder.reference(reference_key(spec("base"))).root.rename(folder.reference(key).root)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def table_of(study: Study) -> str:
    return rank_csv(estimate(study), {})


def test_two_halves_give_the_table_of_the_whole(fours: Builder, eights: Builder, tmp_path: Path) -> None:
    whole = load_studies([Builder(tmp_path / "whole").build()])
    study = merged(fours, eights)
    assert table_of(study) == table_of(whole)
    assert study.name == "eights + fours" and not study.missing and not study.remarks
    assert [trial.spec.trial_id for trial in study.trials] == ["base", "r4s0", "r4s1", "r8s0", "r8s1"]
    assert study.home("r4s0").name == "fours" and study.home("base").name == "eights"
    assert study.trial_folder("r4s0").root == fours.folder.root / "trials" / "r4s0"


def test_the_report_is_the_same_in_either_order_and_only_reads(fours: Builder, eights: Builder, tmp_path: Path) -> None:
    roots = [str(builder.folder.root) for builder in (fours, eights)]
    before = [files(builder.folder.root) for builder in (fours, eights)]
    assert main([*roots, "--out", str(tmp_path / "one")]) == main([*roots[::-1], "--out", str(tmp_path / "two")]) == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert before == [files(builder.folder.root) for builder in (fours, eights)]
    with open(tmp_path / "one" / "scores.csv") as stream:
        homes = {(line["trial_id"], line["study"]) for line in csv.DictReader(stream)}
    assert homes == {
        ("base", "eights"),
        *((f"r4s{n}", "fours") for n in (0, 1)),
        *((f"r8s{n}", "eights") for n in (0, 1)),
    }
    page = (tmp_path / "one" / "index.html").read_text()
    assert "<td>fours</td>" in page and "studies/eights studies/fours --out DIR" in page


def test_their_report_needs_a_place(fours: Builder, eights: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fours.folder.root), str(eights.folder.root)]) == 2
    assert "--out" in capsys.readouterr().err


def test_what_neither_has_finished_is_missing_once(tmp_path: Path, fours: Builder) -> None:
    other = Builder(tmp_path / "other")
    other.build(only=("base", "r8s0"))
    other.fail("r8s1", "RuntimeError: no memory")
    found = merged(fours, other).missing
    assert [(each.spec.trial_id, each.reason) for each in found] == [
        ("r8s1", "failed (out_of_memory): RuntimeError: no memory")
    ]


def test_a_trial_of_both_that_differs_is_told_and_counts_once(tmp_path: Path, fours: Builder) -> None:
    other = Builder(tmp_path / "zz")
    other.build(only=FOURS)
    other.edit_json(other.folder.trial("r4s0").result, adapter_sha256="b" * 64)
    path = other.folder.trial("r4s0").clip_scores
    path.write_text(path.read_text().replace("c1,psnr,11.0", "c1,psnr,12.5"))
    for study in (merged(fours, other), merged(other, fours)):
        assert study.remarks == (
            "Trial r4s0 has different results in fours and zz: adapter_sha256 none and bbbbbbbbbbbb; "
            "psnr of 1 of 3 clips (first c1: 11 and 12.5); those of fours are used.",
        )
        table = rank_table(find(study))
        assert study.remarks[0] in table.notes
        assert table_of(study) == table_of(load_studies([fours.folder.root]))


def test_refuses_other_versions(fours: Builder, eights: Builder) -> None:
    for name in EIGHTS:
        eights.edit_json(eights.folder.trial(name).result, versions={"torch": "2.13.0"})
    assert "the versions of packages differ: version of torch is 2.13.0 in eights and none in fours; report" in refusal(
        fours, eights
    )


def test_refuses_scores_computed_in_different_ways(fours: Builder, eights: Builder) -> None:
    for name in EIGHTS:
        path = eights.folder.trial(name).result
        protocol = json.loads(path.read_text())["protocol"]
        protocol["kvd[tnv2]"] |= {"fps": 8.0, "frames": 3}
        eights.edit_json(path, protocol=protocol)
    message = refusal(fours, eights)
    assert "protocol of kvd[tnv2]: fps is 8.0 in eights and 16.0 in fours" in message
    assert "protocol of kvd[tnv2]: frames is 3 in eights and 4 in fours" in message and "analysis.compare" in message


def test_refuses_other_true_clips(fours: Builder, eights: Builder) -> None:
    edit_plan(eights.folder, "fingerprints", data="cc")
    assert "the reference clips differ: data content is cc in eights and bb in fours" in refusal(fours, eights)


def test_refuses_another_base(fours: Builder, eights: Builder) -> None:
    edit_plan(eights.folder, "fingerprints", model="cc")
    edit_plan(fours.folder, "sample", steps=7)
    message = refusal(fours, eights)
    assert "the base or its settings differ: model content is cc in eights and aa in fours" in message
    assert "sample.steps is 8 in eights and 7 in fours" in message


def test_refuses_other_captions_and_a_study_given_twice(fours: Builder, eights: Builder) -> None:
    path = eights.reference.clips
    path.write_text(path.read_text().replace("c1,c1,a clip", "c1,c1,a dog"))
    assert "shot and caption of c1 is c1, 'a dog' in eights and c1, 'a clip' in fours" in refusal(fours, eights)
    assert "given twice" in refusal(fours, fours)
