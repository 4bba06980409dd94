"""The clips on the page, driven in a browser: slices, zoom, wiper, order, and a link that brings all of it back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from analysis.page.clips import apart
from analysis.report import main
from analysis.study.load import load_study
from analysis.study.rows import estimate
from tests.analysis.browser import attributes, needs_chromium
from tests.analysis.paper_study import Builder, write_rows, write_video

SLOPE = np.arange(40, 168, 4).reshape(1, 32, 1)  # grey levels: brighter to the right
DRIVER = """
(() => {
  const marker = document.documentElement.dataset, find = (id) => document.getElementById(`reel-${id}`);
  const shown = () => [...document.querySelectorAll("figure[data-lane]")].filter((each) => !each.hidden);
  const grey = (canvas, x, y) => canvas.getContext("2d").getImageData(x, y, 1, 1).data[0];
  const columns = (canvas, y) => Array.from({ length: canvas.width }, (_, x) => grey(canvas, x, y));
  const put = (id, value, event = "input") => { find(id).value = value; find(id).dispatchEvent(new Event(event)); };
  const press = (key) => find("line").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const seen = () => {
    const [film, slice] = shown().at(-1).querySelectorAll("canvas"), wiper = find("wiper").querySelector("canvas");
    return {
      names: shown().map((each) => each.querySelector("b").textContent), drawn: Number(marker.drawn),
      labels: [film, slice, wiper].map((each) => each.getAttribute("aria-label")), caption: find("caption").textContent,
      order: [...find("clip").options].map((each) => each.value), clip: find("clip").value,
      frame: find("frame").textContent, zoomed: find("zoom").closest("section").className,
      film: columns(film, 16), rows: [slice.width, slice.height],
      slice: Array.from({ length: slice.height }, (_, y) => grey(slice, 16, y)), wiper: columns(wiper, 16),
      style: find("zoom").closest("section").style.cssText, sides: [find("left").value, find("right").value],
      lost: find("lost").textContent, hash: location.hash, link: find("link").getAttribute("href"),
    };
  };
  const pause = (time) => new Promise((go) => setTimeout(go, time));
  const ready = async () => { do await pause(300); while (marker.reel !== "ready"); };
  (async () => { const states = []; await ready(); STEPS; marker.seen = JSON.stringify(states); })();
})();
"""
STEPS = """
states.push(seen());
put("order", "most", "change"); await ready(); states.push(seen());
put("clip", "c1", "change"); put("rank", "1"); press("+"); press("."); await ready();
put("right", "rank 8, seed 1"); put("across", "1");
const film = find("wiper").querySelector(".film"), box = film.getBoundingClientRect();
film.dispatchEvent(new PointerEvent("pointerdown", { clientX: box.left + box.width / 4 }));
await ready(); states.push(seen())
"""


@pytest.fixture
def apart_on_c1(builder: Builder) -> Builder:
    """On c1 the two seeds of rank 8 are 0.25 and 0.76 farther from the real clip; one of them is a slope of greys."""
    builder.build()
    for name, more in (("r8s0", 0.25), ("r8s1", 0.76)):
        path = builder.folder.trial(name).clip_scores
        head, *lines = (line.split(",") for line in path.read_text().splitlines())
        own = ["c1", "consistency[mnv2]"]
        write_rows(path, head, [(*each[:2], float(each[2]) + more * (each[:2] == own)) for each in lines])
    write_video(builder.folder.trial("r8s1").sample("c1"), SLOPE)
    return builder


def test_how_far_the_ranks_are_apart(apart_on_c1: Builder) -> None:
    # Gaps to 0.97: rank 4 0.07 and 0.05; rank 8 0.03 and 0.02, on c1 0.94 + 0.25 - 0.97 = 0.22 and 0.95 + 0.76 - 0.97
    found = apart(estimate(load_study(apart_on_c1.folder.root)))
    assert found == pytest.approx({"c0": 0.035, "c1": 0.48 - 0.06, "c2": 0.035})


@needs_chromium
def test_the_viewer_in_a_browser(apart_on_c1: Builder) -> None:
    root = apart_on_c1.folder.root
    assert main([str(root)]) == 0
    page = root / "report" / "index.html"

    def states(steps: str, fragment: str = "") -> list[dict[str, Any]]:
        left = attributes(page, "seen", DRIVER.replace("STEPS", steps), fragment)
        found: list[dict[str, Any]] = json.loads(left["seen"])
        return found

    first, most, last = states(STEPS)
    assert first["names"] == ["reference", "base", "rank 4", "rank 4"] and first["drawn"] == 8  # four small ones
    assert (first["order"], first["clip"], first["hash"]) == (["c0", "c1", "c2"], "c0", "")
    assert first["rows"] == [32, 5] and first["slice"] == pytest.approx([40, 45, 50, 55, 60], abs=4)
    assert first["labels"][0] == "rank 4, seed 1: clip c0, a clip"
    assert first["labels"][1] == "rank 4, seed 1: row 17 of 32 over 5 frames"

    assert most["order"][0] == most["clip"] == "c1" and sorted(most["order"]) == ["c0", "c1", "c2"]
    assert "differ by 0.42 in gap in steadiness to the real clip (consistency_gap[mnv2])" in most["caption"]

    slope = SLOPE.ravel() + 5.0  # the second frame
    assert last["names"] == ["reference", "base", "rank 8", "rank 8"] and last["frame"] == "2 of 5"
    assert last["zoomed"] == "reel zoomed-in"  # zoom 2 at the right edge: columns 16 to 32
    assert last["film"] == pytest.approx(np.repeat(slope[16:], 2), abs=8)
    assert last["slice"] == pytest.approx(SLOPE.ravel()[24] + 5.0 * np.arange(5), abs=8)
    assert last["sides"] == ["base", "rank 8, seed 1"] and "--wipe: 0.25" in last["style"]
    assert last["wiper"][:8] == pytest.approx([105] * 8, abs=4)  # the base, to a quarter of the width
    assert last["wiper"][8:] == pytest.approx(last["film"][8:], abs=1)
    assert last["link"] == last["hash"] and "zoom=2" in last["hash"]

    again = states("states.push(seen())", last["hash"])[0]
    assert again == last
    other = states("states.push(seen())", "#clip=gone&wipe=0.75&rank=rank+8")[0]
    assert other["lost"] == "Not on this page: clip gone." and other["clip"] == "c0"
    assert other["names"][-1] == "rank 8" and "--wipe: 0.75" in other["style"]
