"""Trials that end after their held-out loss (`sample.clips=false`), and the report of a study of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.rates import main
from analysis.statistics.findings import find
from analysis.study.load import load_study
from analysis.tables.rank_table import rank_table
from cinelora.core.files import write_json
from cinelora.trial import resident
from launch.engine import encoding
from launch.engine.pool import Pool
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.scheduling.cluster import GangShape
from tests import tiny_study


def test_no_clip_is_written_and_the_report_is_about_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, calls = tiny_study.write_clips(tmp_path / "clips", 6), list[str]()
    monkeypatch.setattr(encoding, "_share_out", lambda *given: calls.extend(call.method for call in given[2]))
    own = {"sample__clips": False, "data__heldout_shots": 3}
    rates = [{"train__learning_rate": rate, "train__steps": 2} for rate in (1e-3, 1e-2)]
    jobs = [
        tiny_study.make_job(tmp_path, tiny_study.tiny_config(clips, **own, **changes))
        for changes in ({"method": "base"}, *rates)
    ]
    encoding.encode_all(Pool(), GangShape(1, 1, 0.0), jobs, 0)
    assert "reference" not in calls
    base = resident.load_resident_model(jobs[0])
    seen: list[str] = []
    for job in jobs:
        result = tiny_study.run(job, base, lambda stage, *_: seen.append(stage))
        assert (result.clips, result.protocol, result.unavailable) == (len(job.windows().heldout), {}, {})
        assert result.heldout_loss is not None and result.seconds["generate"] == result.seconds["score"] == 0
        assert {path.suffix for path in job.study.root.rglob("*")} & {".mp4", ".npz"} == set()
        assert {line.split(",")[1] for line in job.folder.clip_scores.read_text().splitlines()[1:]} == {"heldout_loss"}
    assert "generate" not in seen and "evaluate" in seen
    write_json(jobs[0].study.study, {"schema": 1, "name": "search"})
    Ledger(jobs[0].study).write_plan(Plan(tuple(job.spec for job in jobs)))
    root = jobs[0].study.root
    table = rank_table(find(load_study(root)))
    assert [column.name for column in table.columns][-2:] == ["clips", "held-out loss"]
    assert [note for note in table.notes if "n/a" in note] == [
        "All scores but the held-out loss: n/a (sample.clips=false, so no clip was generated)."
    ]
    assert main([str(root)]) == 0 and "| rank 8 |" in capsys.readouterr().out
