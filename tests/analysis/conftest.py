"""The paper study as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.paper_study import Builder


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "study")


@pytest.fixture
def study(builder: Builder) -> Path:
    """The whole study, everything finished, on a trained base."""
    return builder.build()
