"""What a study cost, by hand: wall time from events, work by phase, sizes of what was trained."""

from __future__ import annotations

import json

import pytest

from analysis.page.page import page
from analysis.report import summary
from analysis.statistics.findings import find
from analysis.study.costs import costs, duration, sentence, table, wall_seconds
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.tables.rank_table import rank_table
from cinelora.core.files import read_json
from tests.analysis.paper_study import Builder

SWEEPS = [(0, "sweep"), (10, "started"), (70, "done"), (90, "started"), (100, "sweep"), (200, "sweep"), (210, "nodes")]
AGAIN = [(300, "sweep"), (330, "started"), (360, "failed")]


def test_wall_time_is_that_of_the_sweeps_that_ran_something() -> None:
    assert wall_seconds([{"time": time, "event": name} for time, name in SWEEPS + AGAIN]) == 90 + 60
    assert wall_seconds([]) == 0
    assert [duration(each) for each in (95, 1728, 7200)] == ["95 s", "28.8 min", "2.0 h"]


def test_work_by_phase_and_row(builder: Builder) -> None:
    """8 s for the base and each of two seeds of two ranks, but 2 x (30 + 6) s for one."""
    builder.build()
    builder.edit_json(builder.folder.trial("r4s1").result, seconds={"train": 30.0, "keyframe": 6.0}, world_size=2)
    lines = [{"time": time, "event": name} for time, name in AGAIN]
    builder.folder.events.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time": 4')
    found = costs(estimate(load_study(builder.folder.root)))
    assert found.trials == 5 and found.by_phase == {"train": 4 * 8.0 + 60, "keyframe": 12.0}
    four = next(row for row in found.rows if row.name == "rank 4")
    assert four.of_a_trial() == (8.0, 60.0) and four.of_a_trial(["keyframe"]) == (0.0, 12.0)
    assert sentence(found) == "5 trials (4 of the ranks): 60 s wall, 1.73 worker-minutes: 88% training, 12% keyframe."
    heads, rows = table(found)
    assert heads == ["worker-minutes", "trials", "training", "keyframe", "in all", "a trial", "adapter MB"]
    assert rows[1] == ["rank 4", "2", "1.13", "0.20", "1.33", "0.67", "0.05"]
    findings = find(load_study(builder.folder.root))
    shown = findings, rank_table(findings)
    text = summary(*shown, [])
    assert sentence(found) in text and "| rank 4 | 2 | 1.13 |" in text
    assert sentence(found) in page(*shown, {})


@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("bfloat16", 2)])
def test_an_older_full_fine_tune_has_the_size_of_its_denoiser(builder: Builder, dtype: str, bytes_each: int) -> None:
    builder.build()
    plan = read_json(builder.folder.plan)
    trial = next(each for each in plan["trials"] if each["trial_id"] == "r4s0")
    trial["config"] |= {"method": "full", "model": trial["config"]["model"] | {"dtype": dtype}}
    builder.edit_json(builder.folder.plan, trials=plan["trials"])
    builder.edit_json(builder.folder.trial("r4s0").result, method="full", rank=0, adapter_bytes=0)
    rows = {row.name: row for row in costs(estimate(load_study(builder.folder.root))).rows}
    assert rows["full"].adapter_megabytes == pytest.approx(12288 * bytes_each / 1e6)
