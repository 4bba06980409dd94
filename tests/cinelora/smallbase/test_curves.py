"""The curves of a pretraining, from logs as it writes them."""

from __future__ import annotations

from pathlib import Path

from cinelora.smallbase.curves import main, read_log

DENOISER = "step,seconds,loss,source_t0.1,source_t0.9,film_t0.1,film_t0.9\n"


def test_a_step_run_twice_counts_as_last_run(tmp_path: Path) -> None:
    path = tmp_path / "denoiser.csv"
    path.write_text(DENOISER + "10,60,0.9,1,1,2,2\n20,120,0.8,1,1,2,2\n20,60,0.7,0.5,0.5,2,2\n")
    log = read_log(path)
    assert log is not None and list(log["loss"]) == [0.9, 0.7]
    assert read_log(tmp_path / "absent.csv") is None


def test_one_figure_of_what_there_is(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--out", str(tmp_path / "curves.png")]
    assert main(arguments) == 2
    (tmp_path / "denoiser.csv").write_text(DENOISER + "10,60,0.9,1,1,2,2\n20,120,0.8,1,1,2,2\n")
    assert main(arguments) == 0
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "vae.csv").write_text(
        "step,seconds,loss,source_db,source_worst_frame_db,film_db,film_worst_frame_db\n5,60,1,20,19,21,20\n9,80,1,22,21,23,22\n"
    )
    assert main(arguments) == 0
    assert (tmp_path / "curves.png").stat().st_size > 5000
