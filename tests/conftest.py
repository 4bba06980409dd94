"""Fixtures shared by all folders. One thread: two are erratic and not faster at these sizes.

GPUs of the machine are hidden from tests and from the processes that they start, unless CINELORA_TEST_GPU=1.
Tests marked `gpu` run if it is 1, or cpu to run them on the CPU.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
if os.environ.get("CINELORA_TEST_GPU") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported

import pytest
import torch

from cinelora.wan import tiny
from tests import tiny_study

GPU = os.environ.get("CINELORA_TEST_GPU", "")
# What takes longest: `pytest -n` starts it first, else one process would wait for another at the end.
LONGEST = frozenset(("launch", "test_end_to_end.py", "test_two_stages.py", "test_smallbase.py", "test_gang.py"))
SLOW_LIST, SLOW_SECONDS, FIXTURE_SECONDS = Path(__file__).with_name("slow.txt"), 0.3, 1.0
SLOW = frozenset(SLOW_LIST.read_text().splitlines())  # tests and files that `make test-fast` leaves out


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-slow", action="store_true", help="write tests/slow.txt anew, after a run of all tests")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("write_slow"):
        seconds: Counter[str] = Counter()
        for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("")):
            name = report.nodeid.partition("[")[0]
            shared = (
                report.when == "setup" and report.duration > FIXTURE_SECONDS
            )  # the next test of the file would wait
            seconds[name.partition("::")[0] if shared else name] += report.duration
        SLOW_LIST.write_text("".join(f"{name}\n" for name in sorted(seconds) if seconds[name] > SLOW_SECONDS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests share a process of `pytest -n`: those that disturb sweeps, so that nothing else disturbs them, and
    those of a file whose fixture takes long. And which are slow, and which are skipped."""
    # The groups do nothing with pytest 9.2 and xdist 3.8, which sets a name that this pytest no longer reads.
    items.sort(key=lambda item: LONGEST.isdisjoint(item.path.parts))
    reason = "no GPU here" if GPU == "1" and not torch.cuda.is_available() else "" if GPU else "run by `make test-gpu`"
    for item in items:
        if {item.nodeid.partition("[")[0], item.nodeid.partition("::")[0]} & SLOW:
            item.add_marker(pytest.mark.slow)
        if reason and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))
        if "launch" in item.path.parts and item.path.name != "test_two_stages.py":
            item.add_marker(pytest.mark.xdist_group("sweeps"))
        elif item.path.name in ("test_full_size.py", "test_gang.py"):
            item.add_marker(pytest.mark.xdist_group("pair"))
        elif item.path.name in ("test_render.py", "test_engine.py"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def study_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, a model cache and encodings, shared by the tests of a session."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_study.write_clips(root / "clips")
    return root


@pytest.fixture
def sweep_root(study_root: Path, tmp_path: Path) -> Path:
    """A folder with clips, and a cache with the built-in model alone, which a sweep takes 10 s to build."""
    tiny.ensure(study_root / "cache")
    for name in ("clips", "cache/models"):
        shutil.copytree(study_root / name, tmp_path / name)
    return tmp_path
