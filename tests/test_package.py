"""What `pip install .` gives: declared dependencies, and an environment without the clone (for test_end_to_end.py)."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import packages_distributions
from pathlib import Path

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


def install(folder: Path) -> Path:
    """The `bin` of an environment that has the dependencies, no clone, and a wheel of the repository's files alone."""
    source, place = folder / "source", folder / "venv"
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    venv.create(place)
    (wheel,) = folder.glob("cinelora-*.whl")
    subprocess.run([*pip, "--python", place / "bin" / "python", "install", "--no-deps", wheel], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    # The editable install of the clone stays out, since Python reads no .pth file of a folder that a .pth file names.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"
