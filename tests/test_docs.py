"""What the documentation names exists: links and anchors, modules, make targets, paths, studies, settings, scripts.

python -m pytest tests/test_docs.py

Read are the Markdown files that git tracks, and for commands and paths also `conf/` and the scripts in `docs/clusters`.
A definition is named as `folder/file.py:NAME`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cinelora.core.config import TargetSet

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^    .*$|`[^`]+`", re.MULTILINE)  # indented lines, code spans
MODULE = re.compile(r"(?:python|torchrun|torch\.distributed\.run)\b[^\n`]*? -m ([a-z_]\w*(?:\.\w+)*)")
TARGET = re.compile(r"(?:^\s*|`|&& |; )(?:\w+=\S+ )*make ([a-z][a-z-]*)", re.MULTILINE)
STUDY = re.compile(r"\+study=(\w+)")
GROUP = re.compile(r"(?<![\w.@])(model|data|lora|train|zero|sample|score|cluster|tracking)=(\w+)")
SCRIPT = re.compile(r"(?<![\w/.-])(cinelora-[a-z]+)\b")
FOLDERS = "cinelora|sweeps|launch|analysis|hydra_plugins|conf|docs|tests|benchmarks|assets"
PATH = re.compile(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*\w)(?::([A-Za-z_]\w*))?")


def tracked(*patterns: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


TARGETS = {each.value for each in TargetSet}
PAGES = tracked("*.md")
SOURCES = [*PAGES, *tracked("conf/*.yaml", "docs/clusters")]


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text()


def commands(name: str) -> str:
    """The code of a page, its continued lines joined; all of another file."""
    found = "\n".join(CODE.findall(text(name))) if name.endswith(".md") else text(name)
    found = re.sub(r"`[^`]+`", lambda span: span[0].replace("\n", " "), found)
    return re.sub(r"\\\n\s*", " ", found)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: str) -> Iterator[str]:
    for target in LINK.findall(text(page)):
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        if not path.exists():
            yield f"{page}: link to {target}, which is missing"
        elif anchor and anchor not in anchors(path):
            yield f"{page}: link to {target}: no such heading"


def unknown_modules(name: str) -> Iterator[str]:
    for module in MODULE.findall(commands(name)):
        own = (ROOT / module.split(".")[0]).is_dir()
        spec = importlib.util.find_spec(module if own else module.split(".")[0])
        if spec is not None and own and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{module}.__main__")
        if spec is None:
            yield f"{name}: python -m {module}: no such module"
        elif own and '__name__ == "__main__"' not in Path(str(spec.origin)).read_text():
            yield f"{name}: python -m {module}: does nothing when run"


def unknown_targets(name: str) -> Iterator[str]:
    known = set(re.findall(r"^([a-z][a-z-]*):", text("Makefile"), re.MULTILINE))
    yield from (f"{name}: make {each}: no such target" for each in TARGET.findall(commands(name)) if each not in known)


def unknown_settings(name: str) -> Iterator[str]:
    found = [("study", study) for study in STUDY.findall(commands(name))] + GROUP.findall(commands(name))
    for group, choice in found:
        known = choice in TARGETS if group == "lora" else (ROOT / "conf" / group / f"{choice}.yaml").exists()
        if not known:
            yield f"{name}: {group}={choice}: no conf/{group}/{choice}.yaml"


def unknown_scripts(name: str) -> Iterator[str]:
    if not name.endswith(".md"):
        return  # a Kubernetes file names volumes so
    known = tomllib.loads(text("pyproject.toml"))["project"]["scripts"]
    yield from (f"{name}: {each}: no such script" for each in SCRIPT.findall(commands(name)) if each not in known)


def unknown_paths(name: str) -> Iterator[str]:
    for path, definition in PATH.findall(text(name)):
        if not (ROOT / path).exists():
            yield f"{name}: {path} is missing"
        elif definition and definition not in defined(path):
            yield f"{name}: {path} does not define {definition}"


@cache
def defined(path: str) -> set[str]:
    """Functions, classes and constants at the top of a Python file."""
    names: set[str] = set()
    for node in ast.parse(text(path)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            names |= {target.id} if isinstance(target, ast.Name) else set()
    return names


CHECKS = (unknown_modules, unknown_targets, unknown_settings, unknown_scripts, unknown_paths)


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    broken = list(broken_links(page))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_text_names_exists(name: str) -> None:
    missing = [line for check in CHECKS for line in check(name)]
    assert not missing, "\n".join(missing)


def test_the_checks_see_what_is_missing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        f"""# One, heading
[a](absent.md) [b]({ROOT}/README.md#absent) [c](https://example.org) [d](#one-heading)

    python -m cinelora.absent && make absent && python -m launch.sweep +study=absent model=absent
    torchrun --nproc-per-node 2 \\
        -m cinelora.core && cinelora-absent

See `analysis/absent.py`, `tests/test_docs.py:absent`, `tests/test_docs.py:PATH` and `cluster.address=auto`.
"""
    )
    name = str(page)
    assert list(broken_links(name)) == [
        f"{name}: link to absent.md, which is missing",
        f"{name}: link to {ROOT}/README.md#absent: no such heading",
    ]
    assert [line.removeprefix(f"{name}: ") for check in CHECKS for line in check(name)] == [
        "python -m cinelora.absent: no such module",
        "python -m cinelora.core: no such module",
        "make absent: no such target",
        "study=absent: no conf/study/absent.yaml",
        "model=absent: no conf/model/absent.yaml",
        "cinelora-absent: no such script",
        "analysis/absent.py is missing",
        "tests/test_docs.py does not define absent",
    ]


def test_the_index_names_every_page() -> None:
    linked = set(LINK.findall(text("docs/README.md")))
    missing = {Path(page).name for page in PAGES if Path(page).parent == Path("docs")} - {"README.md"} - linked
    assert not missing


def test_make_takes_folders_with_blanks_and_quotes(tmp_path: Path) -> None:
    shown = tmp_path / "python"
    shown.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    shown.chmod(0o755)
    study, cache = "studies/caf\u00e9 'one'", "my cache"
    command = ["make", "-s", "-o", ".venv/.runtime", f"BIN={tmp_path}", f"STUDY={study}", f"CACHE={cache}"]
    for target, arguments in (
        ("figures", ["analysis.report", study]),
        ("status", ["launch.status", study]),
        ("plan", ["launch.sweep", "+study=quick", f"cache_dir='{cache}'", "plan_only=true"]),
    ):
        printed = subprocess.run([*command, target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert printed.splitlines()[-len(arguments) :] == arguments, target


def test_the_batch_script_takes_a_study_folder_quoted_for_hydra(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / "bin" / "activate").write_text("exit 7\n")  # the folder has been made by then
    study = tmp_path / "caf\u00e9 one"
    command = ["bash", "docs/clusters/slurm.sh", "seed=0", f"study_dir='{study}'"]
    environment = {**os.environ, "SLURM_JOB_ID": "1", "CINELORA": str(tmp_path)}
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 7
    assert study.is_dir() and sorted(path.name for path in tmp_path.iterdir()) == [".venv", "caf\u00e9 one"]
