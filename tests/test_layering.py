"""The house rules that a program can hold: who may import whom, what loads no torch, and how full a folder may be.

python -m tests.test_layering        prints what breaks them; exit status 1 if anything does
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("cinelora", "sweeps", "launch", "analysis", "hydra_plugins")
MOST_ENTRIES = 14
MOST_FUNCTION_LINES = 60
LONG_STORIES = {"train"}  # the training loop may be longer

_FOOTAGE = ("core", "data")
_SCORES = (*_FOOTAGE, "metrics", "features")
_MODEL = (*_FOOTAGE, "distributed", "wan")
_TRIAL = (*_MODEL, *_SCORES, "adopt", "training", "trial")
ROOMS: dict[str, tuple[str, ...]] = {  # room -> the rooms it may import besides itself
    "cinelora.core": (),
    "cinelora.distributed": ("cinelora.core",),
    "cinelora.data": ("cinelora.core",),
    "cinelora.metrics": ("cinelora.core",),
    "cinelora.wan": tuple(f"cinelora.{room}" for room in _MODEL),
    "cinelora.adopt": ("cinelora.core", "cinelora.wan", "cinelora.data", "cinelora.score.clips"),
    "cinelora.features": tuple(f"cinelora.{room}" for room in _SCORES),
    "cinelora.training": tuple(f"cinelora.{room}" for room in _MODEL),
    "cinelora.score": tuple(f"cinelora.{room}" for room in _SCORES),
    "cinelora.render": tuple(f"cinelora.{room}" for room in (*_MODEL, *_SCORES)),
    "cinelora.trial": tuple(f"cinelora.{room}" for room in _TRIAL),
    "cinelora.export": tuple(f"cinelora.{room}" for room in _TRIAL),
    "cinelora.smallbase": tuple(f"cinelora.{room}" for room in (*_MODEL, *_SCORES, "training")),
    "sweeps": ("cinelora.core",),
    "sweeps.scheduling": ("cinelora.core", "sweeps"),
    "launch": ("cinelora", "sweeps", "launch.engine.run", "analysis.power"),
    "launch.engine": ("cinelora", "sweeps", "launch.status"),
    "launch.wandb_mirror": ("cinelora", "sweeps", "launch.status"),
    "hydra_plugins": ("launch.launcher",),
    "analysis.study": ("cinelora.core", "cinelora.metrics", "cinelora.wan.low_rank", "sweeps"),
    "analysis.votes": ("cinelora.core", "cinelora.metrics", "sweeps", "analysis.study"),
    "analysis.votes.__main__": ("cinelora.core", "analysis"),
    "analysis.statistics": (
        "cinelora.core", "cinelora.metrics", "cinelora.wan.low_rank", "sweeps", "analysis.study", "analysis.votes",
    ),
    "analysis.tables": (
        "cinelora.core", "cinelora.metrics", "sweeps", "analysis.study", "analysis.statistics", "analysis.votes",
    ),
    "analysis.figures": (
        "cinelora.core", "cinelora.metrics", "sweeps", "analysis.study", "analysis.statistics", "analysis.tables",
        "analysis.votes",
    ),
    "analysis.power": (
        "cinelora.core", "cinelora.metrics", "sweeps", "analysis.study", "analysis.statistics", "analysis.tables",
        "analysis.figures",
    ),
    "analysis.page": (
        "cinelora.core", "cinelora.metrics", "sweeps", "analysis.study", "analysis.statistics", "analysis.tables",
        "analysis.figures", "analysis.votes",
    ),
    "analysis": ("cinelora.core", "cinelora.metrics", "sweeps", "analysis"),
}  # fmt: skip
FORBIDDEN = {  # folder -> packages it never imports, not even inside a function
    "cinelora": {"ray", "hydra", "omegaconf"},
    "sweeps": {"torch", "numpy", "ray", "hydra", "omegaconf", "pandas", "yaml"},
    "launch": {"pandas", "matplotlib"},
    "analysis": {"torch", "ray", "hydra", "omegaconf", "diffusers", "peft", "deepspeed", "wandb"},
    "hydra_plugins": {"torch", "ray"},
}
LIGHT = {  # what loads none of the packages named
    "launch.sweep, launch.launcher, launch.preflight, launch.status": ("torch", "ray", "diffusers"),
    "sweeps.plan, sweeps.ledger, sweeps.memory, sweeps.scheduling.scheduler": ("torch", "ray", "numpy", "hydra"),
    "analysis.report, analysis.compare, analysis.rates": ("torch", "ray", "diffusers", "wandb"),
    "analysis.refresh": ("torch", "numpy", "matplotlib", "pandas"),
    "cinelora.core.config, cinelora.core.records, cinelora.core.paths, cinelora.core.files, cinelora.core.cli": (
        "torch", "numpy", "diffusers",
    ),
    "cinelora.metrics.catalogue, cinelora.metrics.feature_nets, cinelora.metrics.set_metrics, "
    "cinelora.metrics.resampling, cinelora.metrics.few_clips": ("torch", "diffusers"),
    "cinelora.wan.checkpoint, cinelora.wan.options, cinelora.wan.low_rank": ("torch", "diffusers"),
    "cinelora.data.dataset, cinelora.data.windows, cinelora.data.encodings": ("torch", "diffusers"),
    "cinelora.trial.job, cinelora.trial.tracking": ("torch", "diffusers"),
}  # fmt: skip


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in sources()}


def room_of(module: str) -> str:
    """The longest name in ROOMS that the module lies in."""
    rooms = [room for room in ROOMS if module == room or module.startswith(room + ".")]
    return max(rooms, key=len) if rooms else module


def imports(path: Path, eager_only: bool = False) -> set[str]:
    """Modules and packages that a file imports; `eager_only`: leaving out functions and `if TYPE_CHECKING`."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if eager_only and (
                isinstance(child, ast.FunctionDef)
                or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
            ):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                names = {f"{child.module}.{alias.name}" for alias in child.names}
                found.update(name if name in MODULES else child.module for name in names)
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def forbidden_imports() -> Iterator[str]:
    for path in sources():
        module, folder = module_of(path), path.relative_to(ROOT).parts[0]
        room = room_of(module)
        for name in sorted(imports(path)):
            top = name.split(".")[0]
            if top in FORBIDDEN[folder]:
                yield f"{module} imports {name}: no file of {folder}/ may"
            if top not in FOLDERS or room_of(name) == room or room not in ROOMS:
                continue
            if not any(name == ok or name.startswith(ok + ".") for ok in ROOMS[room]):
                yield f"{module} imports {name}: {room} may import {', '.join(ROOMS[room]) or 'no other room'}"


def circles() -> Iterator[str]:
    """Modules that import each other when they are loaded, as one line a circle."""
    graph = {module_of(path): imports(path, eager_only=True) & MODULES for path in sources()}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> Iterator[str]:
        if module in trail:
            yield " -> ".join((*trail[trail.index(module) :], module))
        elif module not in done:
            for name in sorted(graph[module] - {module}):
                yield from walk(name, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        yield from walk(module, ())


def full_folders() -> Iterator[str]:
    for folder in sorted({path.parent for path in sources()}):
        entries = [
            entry.name
            for entry in folder.iterdir()
            if entry.name not in ("__init__.py", "__pycache__") and not entry.name.startswith(".")
        ]
        if len(entries) > MOST_ENTRIES:
            yield f"{folder.relative_to(ROOT)}/ has {len(entries)} entries: at most {MOST_ENTRIES}"


def long_functions() -> Iterator[str]:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name not in LONG_STORIES and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    yield f"{module_of(path)}.{node.name} has {lines} lines: at most {MOST_FUNCTION_LINES}"


def full_inits() -> Iterator[str]:
    allowed = {"cinelora.features.nets", "analysis"}  # the registry of nets; threads of NumPy, before it is loaded
    for path in sources():
        if path.name == "__init__.py" and path.read_text().strip() and module_of(path) not in allowed:
            yield f"{path.relative_to(ROOT)} is not empty"


RULES = (forbidden_imports, circles, full_folders, long_functions, full_inits)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule: object) -> None:
    broken = list(rule())  # type: ignore[operator]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("modules", "heavy"), LIGHT.items())
def test_light(modules: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys; import {modules}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]", f"{modules} load {done.stdout.strip()}"


def main() -> int:
    broken = [line for rule in RULES for line in rule()]
    print("\n".join(broken) or f"{len(MODULES)} modules in {len(ROOMS)} rooms: no rule broken")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
