"""The report is drawn again only if something under it changed, and the command prints the same either way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.refresh import LIBRARIES, main
from cinelora.core.files import read_json, write_json

CHANGES: dict[str, Callable[[Path], object]] = {
    "a result": lambda root: os.utime(root / "trials/t/result.json", (1, 1)),
    "a clip": lambda root: (root / "trials/t/samples/c.mp4").write_bytes(b"longer"),
    "a new trial": lambda root: write_json(root / "trials/u/result.json", {}),
    "a trial gone": lambda root: (root / "trials/t/result.json").unlink(),
    "the plan": lambda root: write_json(root / "plan.json", {"trials": [1]}),
    "the report": lambda root: (root / "report/summary.md").write_text("mine"),
    "a figure gone": lambda root: (root / "report/summary.md").unlink(),
    "its record": lambda root: (root / "report/.drawn.json").write_text("{"),
}


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The studies whose report was drawn, by a report that writes one file; a study that was drawn once."""
    calls: list[Path] = []

    def report(roots: list[Path]) -> None:
        calls.extend(roots)
        (roots[0] / "report").mkdir(exist_ok=True)
        (roots[0] / "report/summary.md").write_text(f"{len(calls)}")
        print("the table\nof the study")

    monkeypatch.setattr("analysis.report.report", report)
    (tmp_path / "trials/t/samples").mkdir(parents=True)
    (tmp_path / "trials/t/samples/c.mp4").write_bytes(b"clip")
    write_json(tmp_path / "trials/t/result.json", {})
    write_json(tmp_path / "plan.json", {"trials": []})
    assert main([str(tmp_path)]) == 0 and calls == [tmp_path]
    return calls


def test_nothing_is_drawn_after_a_sweep_with_nothing_to_do(
    tmp_path: Path, drawn: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "plan.json", read_json(tmp_path / "plan.json"))  # what such a sweep writes
    (tmp_path / "events.jsonl").write_text("{}\n")
    assert main([str(tmp_path)]) == 0 and len(drawn) == 1
    assert capsys.readouterr().out == "the table\nof the study\n"


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_draws_again(tmp_path: Path, drawn: list[Path], change: str) -> None:
    CHANGES[change](tmp_path)
    for _ in range(2):
        assert main([str(tmp_path)]) == 0 and len(drawn) == 2


def test_other_code_or_libraries_draw_again(tmp_path: Path, drawn: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for count, library in enumerate(LIBRARIES, 2):
        monkeypatch.setattr("analysis.refresh.version", lambda name, library=library: "9" if name == library else "1")
        assert main([str(tmp_path)]) == 0 and len(drawn) == count
    monkeypatch.setattr("analysis.refresh.CODE", ("analysis",))
    assert main([str(tmp_path)]) == 0 and len(drawn) == count + 1


def test_no_study_is_refused_as_by_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
