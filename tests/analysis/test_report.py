"""The command: files written, the same bytes again, half-finished studies, exit codes, no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis.figures.contact_sheet import BLANK, mosaic, read_sheet, row_labels
from analysis.figures.quality import smoothing_window
from analysis.report import main
from analysis.study.frames import read_clip, spread
from analysis.study.load import load_study
from analysis.study.rows import estimate
from cinelora.core.cli import UserError
from tests.analysis.paper_study import SHIFTS, Builder

FIGURES = ("answer", "quality_vs_rank", "differences", "learning_curves", "contact_sheet", "pareto", "per_clip")
FILES = {
    *(
        "rank_table.csv",
        "rank_table.md",
        "rank_table.tex",
        "further_scores.md",
        "answer.csv",
        "differences.csv",
        "spectra.csv",
        "tests.csv",
        "noise_floor.csv",
        "fvd_vs_n.csv",
        "scores.csv",
        "summary.md",
        "index.html",
    ),
    *(f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf")),
}
ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_bytes_whatever_the_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same ledger in another order, read twice, gives the same report, PDF and PNG included."""
    first = Builder(tmp_path / "a" / "study").build()
    second = Builder(tmp_path / "b" / "study").build(reverse=True)
    assert main([str(first)]) == main([str(second)]) == 0
    once = contents(first / "report")
    assert set(once) == FILES and all(once.values())
    assert once == contents(second / "report")
    assert main([str(first), "--out", str(tmp_path / "again")]) == 0
    assert once == contents(tmp_path / "again")
    printed = capsys.readouterr().out
    assert "rank_table.md" in printed and all(f"{name}.png" in printed for name in FIGURES)


def test_half_finished_study(builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    root = builder.build(trained=False, only=("base", "r4s0"))
    builder.fail("r4s1", "out of memory")
    assert main([str(root)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "untrained base: plumbing only" and printed[1].startswith("missing trials")
    summary = (root / "report" / "summary.md").read_text()
    assert "2 of 5 planned trials have finished" in summary and summary.index("Missing") < summary.index("| rank |")


def test_base_alone_has_no_curves_and_stale_figures_go(builder: Builder) -> None:
    root = builder.build(only=("base",))
    stale = root / "report" / "learning_curves.png"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    assert main([str(root)]) == 0
    assert not stale.exists() and (root / "report" / "quality_vs_rank.png").exists()


def test_tables_that_an_earlier_report_alone_had_go_and_notes_stay(builder: Builder) -> None:
    root = builder.build()
    for name in SHIFTS:  # no further score is left: features give diversity
        for place in (builder.reference, builder.folder.trial(name)):
            place.features("tnv2").unlink(missing_ok=True)
    stale = [root / "report" / name for name in ("further_scores.md", "truncation.csv", "truncation.pdf")]
    notes = root / "report" / "my_notes.md"
    notes.parent.mkdir()
    for path in (*stale, notes):
        path.write_text("old")
    assert main([str(root)]) == 0
    assert not any(path.exists() for path in stale) and notes.read_text() == "old"


def test_a_study_folder_may_have_a_name_in_another_encoding(tmp_path: Path) -> None:
    root = Builder(tmp_path / "caf\udce9").build(only=("base", "r4s0"))
    assert main([str(root)]) == 0
    assert "caf\\udce9" in (root / "report" / "index.html").read_text("utf-8")


def test_samples_may_be_absent(builder: Builder) -> None:
    root = builder.build()
    builder.folder.trial("r8s0").sample("c1").unlink()
    loaded = load_study(root)
    sheet = read_sheet(estimate(loaded))
    assert sheet is not None and sheet.rows == ("reference", "base", "rank 4, seed 0", "rank 8, seed 0")
    assert (sheet.frames[3, 1] == BLANK).all() and not (sheet.frames[3, 0] == BLANK).all()
    assert sheet.frames.shape == (4, 3, 4, 32, 32, 3)


def test_bad_folders_exit_with_2(tmp_path: Path, builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(builder.build(only=()))]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "no such folder" in errors[0] and "none of 5" in errors[1]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole study and the command that reported it, drawn once for those who only read."""
    root = Builder(tmp_path_factory.mktemp("reported") / "study").build()
    code = (
        "import sys; from analysis.report import main; code = main([sys.argv[1]]); "
        "heavy = {'torch', 'ray', 'hydra', 'diffusers', 'wandb'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    return root, subprocess.run([sys.executable, "-c", code, root], cwd=ROOT, capture_output=True, text=True)


def test_command_needs_no_torch(reported: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert reported[1].returncode == 0, reported[1].stderr


def test_scores_csv_holds_clips_and_trials(reported: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    lines = (reported[0] / "report" / "scores.csv").read_text().splitlines()
    assert "r4s0,lora,,4,4.0,alpha_equals_rank,cross,0.0001,0,c0,psnr,10.875" in lines
    assert "r4s1,lora,,4,4.0,alpha_equals_rank,cross,0.0001,1,(set),fvd[tnv2],4" in lines


def test_mosaic_places_frames() -> None:
    frames = np.zeros((2, 2, 2, 3, 4, 3), np.uint8)
    frames[1, 1, 1] = 200
    picture = mosaic(frames)
    assert picture.shape == (2 * 3 + 2, 4 * 4 + 2 + 10 + 2, 3), "frames are 2 pixels apart, clips 10"
    assert (picture[-3:, -4:] == 200).all() and (picture == 200).sum() == 3 * 4 * 3
    assert (picture[:3, :4] == 0).all() and (picture == 0).sum() == 7 * 3 * 4 * 3


def test_no_word_of_a_row_label_is_broken() -> None:
    assert row_labels(["base", "base_other_noise, rank 8"]) == ["base", "base_other_noise,\nrank\xa08"]
    assert row_labels(["source, rank 8"]) == ["source,\nrank\xa08"]


def test_smoothing_takes_an_odd_number_of_steps() -> None:
    assert [smoothing_window(steps) for steps in (0, 10, 100, 200)] == [1, 1, 5, 11]


def test_spread_takes_the_ends() -> None:
    assert spread(tuple(range(10)), 3) == (0, 4, 9) and spread((1, 2), 3) == (1, 2)


def test_a_damaged_clip_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"a\.mp4: damaged .*remove it to show none"):
        read_clip(tmp_path / "a.mp4")


def test_read_clip(builder: Builder, tmp_path: Path) -> None:
    builder.build()
    frames = read_clip(builder.reference.sample("c1"))
    assert frames is not None and frames.shape == (5, 32, 32, 3)
    assert abs(int(frames[0, 0, 0, 0]) - 100) < 6
    assert read_clip(tmp_path / "none.mp4") is None
