"""Each shipped study once, for real, from clips to table (needs `make fetch`, which `make test` runs)."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cinelora.core.files import read_json

ROOT = Path(__file__).parents[1]
SHORT = ["train.steps=60", "train.heldout_every=30"]
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
@pytest.mark.parametrize(
    ("name", "smaller", "ranks", "beside"),
    [
        ("quick", ["lora.rank=1,16", "seed=0", "data.max_heldout_windows=12", *SHORT], (1, 16), 3),
        ("clips", ["lora.rank=8", "seed=0", "train.steps=150", "train.heldout_every=75"], (8,), 0),
    ],
)
def test_study(tmp_path: Path, name: str, smaller: list[str], ranks: tuple[int, ...], beside: int) -> None:
    study, trials = tmp_path / name, 2 + len(ranks) + beside  # the base and the frozen first frame
    place = ["launch.sweep", f"+study={name}", f"cache_dir={CACHE}", f"study_dir={study}", *smaller]
    planned = run(*place, "plan_only=true")
    assert f"{trials} trials: 0 done, {trials} to run" in planned
    assert not study.exists() or {path.stem for path in study.iterdir()} == {"power"}, "a plan runs nothing"
    assert f"{trials} of {trials} trials done" in run(*place)
    assert f"{trials} trials: {trials} done, 0 to run" in run(*place, "plan_only=true")

    results = [read_json(path) for path in study.glob("trials/*/result.json")]
    base = next(result for result in results if result["method"] == "base" and not result["arm"])
    grid = [result for result in results if result["method"] == "lora" and not result["arm"]]
    assert sorted(result["rank"] for result in grid) == list(ranks) and len(results) == trials
    for result in grid:
        rows = read_csv(study / "trials" / result["trial_id"] / "train.csv")
        assert float(rows[0]["heldout_loss"]) == base["heldout_loss"], "an adapter at its start is the base"
        assert result["heldout_loss"] < 0.95 * base["heldout_loss"], "the base learns these clips"
        assert result["trainable_parameters"] == 6144 * result["rank"]
        assert result["clips"] == base["clips"] >= 12

    printed = run("analysis.report", str(study))
    table = read_csv(study / "report" / "rank_table.csv")
    assert len(table) == trials + 1 and "Against the base" in printed and "quality_vs_rank.png" in printed
    found = read_csv(study / "report" / "differences.csv")
    losses = {row["row"]: row for row in found if row["score"] == "heldout_loss"}
    assert all(losses[f"rank {rank}"]["verdict"] == "better" for rank in ranks)
    for file in ("rank_table.md", "rank_table.tex", "quality_vs_rank.png", "learning_curves.png", "contact_sheet.png"):
        assert (study / "report" / file).stat().st_size > 0
    assert list(study.glob("wandb/offline-run-*/*.wandb")), "each trial is an offline W&B run"
