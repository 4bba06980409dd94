"""Studies for real, from clips to table (needs `make fetch`, which `make test` runs).

`clips` with the modules of the clone, `quick` with the commands of an installed package.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cinelora.core.files import read_json
from tests.test_package import install

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("CINELORA_CACHE", ROOT / ".cache"))


Run = Callable[..., str]  # a program and its arguments -> what it prints
MODULES = {"cinelora-sweep": "launch.sweep", "cinelora-figures": "analysis.report"}


def execute(command: Sequence[str | Path], folder: Path, environment: dict[str, str]) -> str:
    environment = {**environment, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=900, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.skipif(not (CACHE / "fetched.json").exists(), reason="no sample clips: run `make fetch`")
def test_clips_in_the_clone(tmp_path: Path) -> None:
    def run(program: str, *arguments: str) -> str:
        return execute([sys.executable, "-m", MODULES[program], *arguments], ROOT, dict(os.environ))

    place = ["+study=clips", f"cache_dir={CACHE}", f"study_dir={tmp_path}/clips"]
    smaller = ["lora.rank=8", "seed=0", "data.max_heldout_windows=12", "train.steps=50", "train.heldout_every=25"]
    check_study(run, tmp_path / "clips", [*place, *smaller], ranks=(8,), of_rank_1=6144, few_shots=True)


def test_quick_as_an_installed_package_away_from_the_clone(tmp_path: Path) -> None:
    programs, empty = install(tmp_path), tmp_path / "empty"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(program: str, *arguments: str) -> str:
        return execute([programs / program, *arguments], empty, environment)

    (empty / ".cache").mkdir(parents=True)
    where = run("python", "-c", "import cinelora; print(cinelora.__file__)")
    assert where.startswith(str(programs.parent)), where
    for name in ("clips", "weights", "fetched.json"):  # fetched already: nothing is loaded again
        if (CACHE / name).exists():
            (empty / ".cache" / name).symlink_to(CACHE / name)
    run("cinelora-fetch")
    smaller = [
        "lora.rank=1,16",
        "seed=0",
        "data.max_heldout_windows=12",
        "data.max_train_windows=16",
        "train.steps=30",
        "train.heldout_every=15",
    ]
    check_study(run, empty / "studies/quick", ["+study=quick", *smaller], ranks=(1, 16), of_rank_1=14336, beside=3)


def check_study(
    run: Run,
    study: Path,
    place: list[str],
    ranks: tuple[int, ...],
    of_rank_1: int,
    beside: int = 0,
    few_shots: bool = False,
) -> None:
    """Plan, run and report it. `of_rank_1`: parameters of a LoRA of rank 1 on the study's layers; `beside`: further
    trials than the base, the frozen first frame and the ranks; `few_shots`: too few to show that a rank is better."""
    trials = 2 + len(ranks) + beside
    planned = run("cinelora-sweep", *place, "plan_only=true")
    assert f"{trials} trials: 0 done, {trials} to run" in planned
    assert {path.stem for path in study.glob("*")} <= {"power"}, "a plan runs nothing"
    assert f"{trials} of {trials} trials done" in run("cinelora-sweep", *place)
    assert f"{trials} trials: {trials} done, 0 to run" in run("cinelora-sweep", *place, "plan_only=true")

    results = [read_json(path) for path in study.glob("trials/*/result.json")]
    base = next(result for result in results if result["method"] == "base" and not result["arm"])
    grid = [result for result in results if result["method"] == "lora" and not result["arm"]]
    assert sorted(result["rank"] for result in grid) == list(ranks) and len(results) == trials
    for result in grid:
        rows = read_csv(study / "trials" / result["trial_id"] / "train.csv")
        assert float(rows[0]["heldout_loss"]) == base["heldout_loss"], "an adapter at its start is the base"
        assert result["heldout_loss"] < 0.95 * base["heldout_loss"], "the base learns these clips"
        assert result["trainable_parameters"] == of_rank_1 * result["rank"]
        assert result["clips"] == base["clips"] >= 12

    printed = run("cinelora-figures", str(study))
    table = read_csv(study / "report" / "rank_table.csv")
    assert len(table) == trials + 1 and "Against the base" in printed and "quality_vs_rank.png" in printed
    assert all(f"rank {rank}" in printed for rank in ranks)
    found = read_csv(study / "report" / "differences.csv")
    losses = {row["row"]: row for row in found if row["score"] == "heldout_loss"}
    verdicts = {losses[f"rank {rank}"]["verdict"] for rank in ranks}
    assert verdicts <= ({"better", "undecided"} if few_shots else {"better"})
    assert all(float(losses[f"rank {rank}"]["difference"]) < 0 for rank in ranks)
    for file in ("rank_table.md", "rank_table.tex", "quality_vs_rank.png", "learning_curves.png", "contact_sheet.png"):
        assert (study / "report" / file).stat().st_size > 0
    assert list(study.glob("wandb/offline-run-*/*.wandb")), "each trial is an offline W&B run"
