"""Two studies side by side: what differs, which rows are the same, paired differences. In: paper studies."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import Comparison, compare, main, markdown
from analysis.study.load import load_study
from analysis.study.merge import named
from cinelora.core.cli import UserError
from tests.analysis.paper_study import Builder, write_rows


@pytest.fixture
def first(tmp_path: Path) -> Builder:
    builder = Builder(tmp_path / "first")
    builder.build()
    return builder


@pytest.fixture
def second(tmp_path: Path) -> Builder:
    builder = Builder(tmp_path / "second")
    builder.build()
    return builder


def compared(first: Builder, second: Builder) -> Comparison:
    return compare(*named([load_study(builder.folder.root) for builder in (first, second)]))


def edit_plan(builder: Builder, change: Callable[[str, dict[str, Any]], None]) -> None:
    """Call change(trial id, config) on every planned trial."""
    plan = json.loads(builder.folder.plan.read_text())
    for trial in plan["trials"]:
        change(trial["trial_id"], trial["config"])
    builder.folder.plan.write_text(json.dumps(plan))


def add_to_psnr(builder: Builder, name: str, *values: float) -> None:
    path = builder.folder.trial(name).clip_scores
    head, *rows = csv.reader(path.read_text().splitlines())
    gains = iter(values)
    write_rows(path, head, [(c, m, float(v) + next(gains) if m == "psnr" else v) for c, m, v in rows])


def test_the_same_study_twice(first: Builder, second: Builder) -> None:
    found = compared(first, second)
    assert not found.changes and not found.left_out and found.clips == 3
    assert {each.row for each in found.found} == {"base", "rank 4", "rank 8"}
    assert all(each.interval.mean == each.interval.low == each.interval.high == 0 for each in found.found)
    text = markdown(found)
    assert "Nothing differs in what was recorded." in text and "| rank 4 | 2 | equal | equal | equal |" in text


def test_longer_training_is_listed_and_its_rows_are_compared(first: Builder, second: Builder) -> None:
    edit_plan(second, lambda name, config: config["train"].update(steps=80))
    for name in ("r4s0", "r4s1"):
        add_to_psnr(second, name, 1.0, 1.0, 1.0)
    add_to_psnr(second, "r8s0", 1.0, 0.0, -1.0)
    found = compared(first, second)
    assert [(each.field, each.first, each.second) for each in found.changes] == [("train.steps", "40", "80")]
    psnr = {each.row: each.interval for each in found.found if each.score == "psnr"}
    verdicts = {each.row: each.verdict for each in found.found if each.score == "psnr"}
    assert (psnr["rank 4"].mean, psnr["rank 4"].low, verdicts["rank 4"]) == (1.0, 1.0, "better")
    assert (psnr["rank 8"].mean, verdicts["rank 8"]) == (0.0, "undecided")
    assert psnr["rank 8"].low < 0 < psnr["rank 8"].high and psnr["base"].mean == 0


def test_only_seeds_of_both_are_paired(first: Builder, second: Builder) -> None:
    second.fail("r4s1", "lost")
    second.fail("r8s0", "lost")
    second.fail("r8s1", "lost")
    found = compared(first, second)
    assert {(each.row, each.interval.seeds) for each in found.found} == {("base", 1), ("rank 4", 1)}
    assert found.left_out == ("Only first has: rank 8.",)


def test_a_rate_tuned_per_rank_belongs_to_the_rank(first: Builder, second: Builder) -> None:
    rates = {"r4s0": 0.5, "r4s1": 0.5, "r8s0": 0.25, "r8s1": 0.25}
    edit_plan(second, lambda name, config: config["train"].update(learning_rate=rates.get(name, 1e-4)))
    assert {each.row for each in compared(first, second).found} == {"base", "rank 4", "rank 8"}


def test_several_rates_of_a_rank_tell_rows_apart(first: Builder, second: Builder) -> None:
    edit_plan(second, lambda name, config: config["train"].update(learning_rate=0.5 if name.endswith("s1") else 1e-4))
    found = compared(first, second)
    assert {(each.row, each.interval.seeds) for each in found.found} == {
        ("base", 1),
        ("rank 4, learning rate 0.0001", 1),
        ("rank 8, learning rate 0.0001", 1),
    }
    assert found.left_out == ("Only second has: rank 4, learning rate 0.5; rank 8, learning rate 0.5.",)


def test_what_varies_in_one_study_must_be_the_same(first: Builder, second: Builder) -> None:
    edit_plan(second, lambda name, config: config["lora"].update(targets="attn" if name.endswith("s1") else "cross"))
    found = compared(first, second)
    assert {(each.row, each.interval.seeds) for each in found.found} == {
        ("base", 1),
        ("rank 4, cross", 1),
        ("rank 8, cross", 1),
    }
    assert [(each.field, each.first, each.second) for each in found.changes] == [
        ("lora.targets", "cross", "attn/cross")
    ]


def test_scores_computed_in_different_ways_are_left_out(first: Builder, second: Builder) -> None:
    for name in ("base", "r4s0", "r4s1", "r8s0", "r8s1"):
        path = second.folder.trial(name).result
        protocol = json.loads(path.read_text())["protocol"]
        protocol["kvd[tnv2]"]["fps"] = 8.0
        second.edit_json(path, protocol=protocol, versions={"torch": "3"})
    found = compared(first, second)
    assert "kvd[tnv2]" not in {each.score for each in found.found} and "psnr" in {each.score for each in found.found}
    assert found.left_out == ("kvd[tnv2]: different protocols, see above.",)
    assert [(each.field, each.first, each.second) for each in found.changes] == [
        ("protocol of kvd[tnv2]: fps", "16.0", "8.0"),
        ("version of torch", "none", "3"),
    ]


def test_other_clips_are_refused(first: Builder, second: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    path = second.reference.clips
    path.write_text(path.read_text().replace("c1,c1,a clip", "c1,c9,a clip"))
    assert main([str(first.folder.root), str(second.folder.root)]) == 2
    assert "shot and caption of c1 is c1, 'a clip' in first and c9, 'a clip' in second" in capsys.readouterr().err


def test_other_clips_under_the_same_names_are_refused(first: Builder, second: Builder) -> None:
    features = second.reference.features("tnv2")
    features.write_bytes(second.folder.trial("r4s0").features("tnv2").read_bytes())
    with pytest.raises(UserError, match="have other tnv2 features"):
        compared(first, second)


def test_too_few_common_clips_are_refused(first: Builder, second: Builder) -> None:
    second.rewrite_scores("r4s0", lambda clip, metric: clip != "c2")
    with pytest.raises(UserError, match="2 scored clips in common, 3 are needed"):
        compared(first, second)


def test_nothing_is_written_but_where_asked(first: Builder, second: Builder, tmp_path: Path) -> None:
    roots = [str(builder.folder.root) for builder in (first, second)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(roots) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert main([*roots, "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.md", "compare.csv"}
    lines = (tmp_path / "out" / "compare.csv").read_text().splitlines()
    assert "rank 4,psnr,0,0,0,undecided,2,3" in lines
