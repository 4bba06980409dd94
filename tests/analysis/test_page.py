"""The page: whole in itself, escaped, honest about what is missing, and its script runs in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis.page import filled
from analysis.report import main
from tests.analysis.paper_study import CLIPS, Builder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def written(builder: Builder, **build: object) -> str:
    root = builder.build(**build)  # type: ignore[arg-type]
    assert main([str(root)]) == 0
    return (root / "report" / "index.html").read_text()


def test_a_page_needs_nothing_else(builder: Builder) -> None:
    text = written(builder)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text), "it points outside itself"
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert "{{" not in text and "Half finished" not in text
    index = json.loads(re.search(r'id="reel-index">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert [clip["caption"] for clip in index["clips"]] == ["a clip"] * len(CLIPS)
    assert all(len(clip["scores"]) == len(index["lanes"]) for clip in index["clips"])


def test_the_answer_comes_before_the_table(builder: Builder) -> None:
    text = written(builder)
    assert text.index('aria-label="Answer"') < text.index("<table")
    assert "<b>heldout_loss</b>" in text


def test_missing_trials_are_told_first(builder: Builder) -> None:
    builder.build(only=("base", "r4s0"))
    builder.fail("r4s1", "no <memory> left")
    assert main([str(builder.folder.root)]) == 0
    text = (builder.folder.root / "report" / "index.html").read_text()
    assert text.index("Half finished") < text.index('aria-label="Answer"')
    assert "no &lt;memory&gt; left" in text and "no <memory>" not in text


def test_a_value_that_looks_like_a_slot_stays() -> None:
    assert filled("<p>{{one}} {{two}}</p>", {"one": "{{two}}", "two": "2"}) == "<p>{{two}} 2</p>"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_the_script_draws_every_lane_in_a_browser(builder: Builder, tmp_path: Path) -> None:
    written(builder)
    page = builder.folder.root / "report" / "index.html"
    shot = tmp_path / "page.png"
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
        "--virtual-time-budget=4000", f"--screenshot={shot}", "--window-size=1280,1600", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert 'data-reel="ready"' in done.stdout, done.stderr[-500:]
    drawn = re.search(r'data-drawn="(\d+)"', done.stdout)
    assert drawn is not None and int(drawn[1]) >= 3  # truth, base, a rank
