"""A place that cannot be written is refused before any work, in one line; nothing is created by asking."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import compare, report
from cinelora.core.cli import UserError, exit_status
from cinelora.core.files import check_writable
from cinelora.score import __main__ as score
from launch import fetch


def test_a_place_that_can_be_written_is_not_created(tmp_path: Path) -> None:
    check_writable("--out", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file/out", "/proc/out"])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*out: cannot be written \(.+\); name another place"):
        check_writable("--out", tmp_path / place)


def test_the_commands_try_the_place_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "out")
    monkeypatch.setattr(score, "score_folders", lambda *_: pytest.fail("scored before the place was tried"))
    folders = [str(tmp_path / name) for name in ("a", "b")]
    for name in folders:
        Path(name).mkdir()
    monkeypatch.setattr(report, "load_studies", lambda roots: pytest.fail("read before the place was tried"))
    assert score.main(["--generated", folders[0], "--reference", folders[1], "--out", out]) == 2
    assert report.main([*folders, "--out", out]) == 2
    assert compare.main([*folders, "--out", out]) == 2
    assert fetch.main(["--cache", out]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 4 and all("cannot be written" in line for line in lines), lines


def test_a_file_that_the_system_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: (tmp_path / "missing").write_text("x") and (tmp_path / "no" / "x").write_text("x")) == 2
    assert capsys.readouterr().err == f"cinelora: {tmp_path}/no/x: No such file or directory\n"


def test_a_study_is_not_compared_with_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(tmp_path), str(tmp_path / ".." / tmp_path.name)]) == 2
    assert "twice the same study" in capsys.readouterr().err
