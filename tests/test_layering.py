"""Who may import whom, held by parsing the imports; and what stays light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cinelora", "sweeps", "launch", "analysis", "hydra_plugins")
MAY_IMPORT = {
    "cinelora": {"cinelora"},
    "sweeps": {
        "sweeps", "cinelora.config", "cinelora.studyconfig", "cinelora.records", "cinelora.layout", "cinelora.errors",
        "cinelora.flops",
    },
    "launch": {"launch", "sweeps", "cinelora"},
    "hydra_plugins": {"launch.launcher"},
    "analysis": {
        "analysis", "sweeps", "cinelora.config", "cinelora.records", "cinelora.layout", "cinelora.errors",
        "cinelora.distances", "cinelora.extrapolation", "cinelora.resampling", "cinelora.smalldata", "cinelora.weights",
        "cinelora.protocol", "cinelora.lowrank", "cinelora.setdistances",
    },
}  # fmt: skip
FORBIDDEN = {
    "cinelora": {"ray", "hydra", "omegaconf"},
    "sweeps": {"torch", "numpy", "ray", "hydra", "omegaconf", "pandas", "yaml"},
    "launch": {"pandas", "matplotlib"},
    "analysis": {"torch", "ray", "hydra", "omegaconf", "diffusers", "peft", "deepspeed", "wandb"},
    "hydra_plugins": {"torch", "ray"},
}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
LONG_STORIES = {"train"}  # the training loop is the story and may be longer


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        top = name.split(".")[0]
        if top in FOLDERS:
            assert any(name == ok or name.startswith(ok + ".") for ok in MAY_IMPORT[folder]), f"{path} imports {name}"
        assert top not in FORBIDDEN[folder], f"{path} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE_LINES, f"{path} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name not in LONG_STORIES and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{path}: {node.name}"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("launch.sweep, launch.launcher, launch.preflight, launch.display", ("torch", "ray", "diffusers")),
        ("sweeps.plan, sweeps.ledger", ("torch", "ray", "numpy", "hydra")),
        ("analysis.report", ("torch", "ray", "diffusers", "wandb")),
    ],
)
def test_planning_and_analysis_load_no_torch(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys; import {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
