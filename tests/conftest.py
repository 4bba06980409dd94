"""Fixtures shared by all folders. One thread: two are erratic and not faster at these sizes."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest

from tests import tiny_study


@pytest.fixture(scope="session")
def study_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, a model cache and encodings, shared by the tests of a session."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_study.write_clips(root / "clips")
    return root
