"""The page: self-contained, escaped, with missing trials named; its script runs in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.page import clips as filmstrips
from analysis.page.page import templates
from analysis.report import main
from analysis.study.frames import strip
from tests.analysis.browser import BUDGETS, attributes, needs_chromium
from tests.analysis.paper_study import CLIPS, Builder, write_rows
from tests.analysis.statistics.test_rank_tests import planted


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


def test_every_seed_has_its_clips_and_none_where_it_is_not_on_disk(builder: Builder) -> None:
    builder.build()
    builder.folder.trial("r8s0").sample("c1").unlink()
    assert main([str(builder.folder.root)]) == 0
    text = (builder.folder.root / "report" / "index.html").read_text()
    index = json.loads(re.search(r'id="reel-index">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert [lane["name"] for lane in index["lanes"]] == ["reference", "base", *["rank 4"] * 2, *["rank 8"] * 2]
    assert [lane["seed"] for lane in index["lanes"]] == ["", "", *["seed 0", "seed 1"] * 2]
    assert text.count('<button class="lane"') == 2
    strips = [json.loads(block) for block in re.findall(r'id="reel-clip-\d">(.*?)</script>', text, re.S)]
    assert [[strip is not None for strip in clip] for clip in strips] == [
        [True] * 6,
        [True] * 4 + [False, True],
        [True] * 6,
    ]
    assert strips[0][0]["frames"] == 5 and strips[0][0]["cell"] == [32, 32] and strips[0][0]["columns"] == 3
    assert index["clips"][1]["scores"][2] == "psnr 11.00\nconsistency 0.900\nmotion 2.00"


def test_frames_lie_in_the_strip_where_it_says() -> None:
    frames = np.stack([np.full((10, 18, 3), 50 * index, dtype=np.uint8) for index in range(5)])
    found = strip(frames)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["webp"]))).convert("L"), dtype=int)
    width, height = found["cell"]
    assert (width, height, found["columns"]) == (32, 16, 3) and sheet.shape == (32, 96)
    for index in range(5):
        top, left = index // 3 * height, index % 3 * width
        assert abs(sheet[top : top + 10, left : left + 18] - 50 * index).max() <= 4


def test_fewer_clips_where_the_page_would_grow_too_big(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filmstrips, "MAX_BYTES", 100)
    text = written(builder)
    assert "shows 1 of 3 held-out clips" in text and text.count('id="reel-clip-') == 1
    monkeypatch.setattr(filmstrips, "MAX_BYTES", 100_000)
    assert "shows all 3 held-out clips" in written(builder)


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    roots = [tmp_path / "a" / "study", tmp_path / "b" / "study"]
    assert written(Builder(roots[0])) == written(Builder(roots[1]), reverse=True)


def test_text_of_a_study_is_escaped(builder: Builder) -> None:
    builder.build()
    evil = "</script><script>alert(1)</script>"
    builder.edit_json(builder.folder.study, name=evil)
    rows = [(clip, clip, evil) for clip in CLIPS]
    write_rows(builder.reference.clips, ["clip_id", "shot", "caption"], rows)
    assert main([str(builder.folder.root)]) == 0
    text = (builder.folder.root / "report" / "index.html").read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text
    assert text.count("</script>") == len(CLIPS) + 2  # a block a clip, the index, the program


def test_the_answer_comes_before_the_table(builder: Builder) -> None:
    text = written(builder)
    order = ['class="verdict"', 'class="grounds"', "What may be wrong", 'alt="answer: ', 'id="reel"', 'class="scroll']
    assert [text.index(each) for each in order] == sorted(text.index(each) for each in order)
    assert re.search(r'class="verdict">(No winner|Rank \d)', text)
    assert "64x64" not in text and "A toy: a small model" in text
    assert ">Held-out loss<small>" in text and ">Movement<small>" in text


def test_missing_trials_come_first(builder: Builder) -> None:
    builder.build(only=("base", "r4s0"))
    builder.fail("r4s1", "no <memory> left")
    assert main([str(builder.folder.root)]) == 0
    text = (builder.folder.root / "report" / "index.html").read_text()
    assert text.index("Half finished") < text.index('aria-label="Answer"')
    assert "no &lt;memory&gt; left" in text and "no <memory>" not in text


def test_the_page_shows_the_tests() -> None:
    tables = templates().get_template("tables.html").module
    text = str(tables.tests([planted("psnr")], "Tests"))  # type: ignore[attr-defined]
    for words in ("quality rises with rank", "<td>8</td><td>none</td><td>4</td>", "&lt; 0.001<small>rising</small>"):
        assert words in text


@needs_chromium
def test_the_script_draws_every_lane_in_a_browser(builder: Builder) -> None:
    written(builder)
    found = attributes(builder.folder.root / "report" / "index.html", "drawn", budgets=(4_000, *BUDGETS))
    assert found["reel"] == "ready"
    assert found["drawn"] == "8"  # reference, base, both seeds of a rank, and the four small ones
