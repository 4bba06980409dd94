"""Each shipped study once, for real, from clips to table (needs `make fetch`, which `make test` runs)."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cinelora.records import read_json

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("CINELORA_CACHE", ROOT / ".cache"))


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
@pytest.mark.skipif(not (CACHE / "fetched.json").exists(), reason="no sample clips: run `make fetch`")
def test_quick(tmp_path: Path) -> None:
    study = tmp_path / "quick"
    place = ["launch.sweep", "+study=quick", f"cache_dir={CACHE}", f"study_dir={study}"]
    planned = run(*place, "plan_only=true")
    assert "7 trials: 0 done, 7 to run" in planned and not study.exists()
    assert "7 of 7 trials done" in run(*place)
    assert "7 trials: 7 done, 0 to run" in run(*place, "plan_only=true")

    results = [read_json(path) for path in study.glob("trials/*/result.json")]
    base = next(result for result in results if result["rank"] == 0)
    assert sorted((r["rank"], r["seed"]) for r in results) == [(0, 0)] + [(r, s) for r in (4, 8, 16) for s in (0, 1)]
    for result in results:
        assert result["clips"] == base["clips"] >= 12
        if result["rank"]:
            rows = read_csv(study / "trials" / result["trial_id"] / "train.csv")
            assert float(rows[0]["heldout_loss"]) == base["heldout_loss"], "an adapter at its start is the base"
            assert result["heldout_loss"] < base["heldout_loss"]
            assert result["trainable_parameters"] == 6144 * result["rank"]

    printed = run("analysis.report", str(study))
    table = read_csv(study / "report" / "rank_table.csv")
    assert len(table) >= 4 and "rank_table.md" in printed and "quality_vs_rank.png" in printed
    for name in ("rank_table.md", "rank_table.tex", "quality_vs_rank.png", "learning_curves.png", "contact_sheet.png"):
        assert (study / "report" / name).stat().st_size > 0
    assert list(study.glob("wandb/offline-run-*/*.wandb")), "each trial is an offline W&B run"
