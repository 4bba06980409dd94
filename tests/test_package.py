"""What `pip install .` gives: declared dependencies, and the commands in an environment without the clone."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cinelora", "sweeps", "launch", "analysis", "hydra_plugins")


def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports, except the standard library's and our own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - set(PACKAGES)


def test_every_import_is_declared() -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = {re.split(r"[<>=\[]", line)[0].lower() for line in lines}
    known = packages_distributions()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for name in imported(path):
                distributions = {found.lower() for found in known[name]}
                assert distributions & declared, f"{path}: {name} is not in pyproject.toml"


@pytest.mark.slow
def test_the_installed_package_runs_a_study_away_from_the_clone(tmp_path: Path) -> None:
    """A wheel, built from the repository's files alone, in an environment that has the dependencies and no clone."""
    source, place, empty = tmp_path / "source", tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    venv.create(place)
    (wheel,) = tmp_path.glob("cinelora-*.whl")
    subprocess.run([*pip, "--python", place / "bin" / "python", "install", "--no-deps", wheel], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    # The editable install of the clone stays out, since Python reads no .pth file of a folder that a .pth file names.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def command(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [place / "bin" / name, *arguments], cwd=empty, env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    where = subprocess.check_output(
        [place / "bin" / "python", "-c", "import cinelora; print(cinelora.__file__)"],
        cwd=empty,
        env=environment,
        text=True,
    )
    assert where.startswith(str(place)), where
    cache = Path(os.environ.get("CINELORA_CACHE", ROOT / ".cache"))
    (empty / ".cache").mkdir()
    for name in ("clips", "weights", "fetched.json"):  # fetched already: nothing is loaded again
        if (cache / name).exists():
            (empty / ".cache" / name).symlink_to(cache / name)
    command("cinelora-fetch")
    shorter = ["lora.rank=4", "seed=0", "extra=[]", "train.steps=2", "train.heldout_windows=2", "sample.steps=2"]
    assert "3 of 3 trials done" in command("cinelora-sweep", "+study=quick", *shorter, "data.max_heldout_windows=4")
    assert "rank 4" in command("cinelora-figures", "studies/quick")
    assert (empty / "studies/quick/report/rank_table.csv").exists()
