"""Votes: the model against brute force and simulated raters; a page driven in a browser and its answers read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from analysis.votes.__main__ import main
from analysis.votes.answers import checksum
from analysis.votes.design import lists, votes_needed
from analysis.votes.worths import PENALTY, alpha, fit
from benchmarks.votes import PLANTED, coverage, simulated
from tests.analysis.paper_study import Builder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_worths_are_those_that_brute_force_finds() -> None:
    votes = simulated(np.random.default_rng(3), PLANTED, 4, 10, 40)

    def loss(values: np.ndarray) -> float:
        total = PENALTY / 2 * float(values @ values)
        for i, j, outcome in zip(votes.first, votes.second, votes.outcome, strict=True):
            a, b = np.exp(values[i]), np.exp(values[j])
            tie = np.exp(values[-1]) * np.sqrt(a * b)
            total -= np.log({1: a, -1: b, 0: tie}[int(outcome)] / (a + b + tie))
        return float(total)

    best = optimize.minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-7}).x
    found = fit(votes, 5)
    assert np.allclose(found.values, best[:5] - best[:5].mean(), atol=1e-6) and abs(found.tie - best[5]) < 1e-6


def test_simulated_raters() -> None:
    rng = np.random.default_rng(0)
    many = fit(simulated(rng, PLANTED, 40, 40, 200), 5)
    assert abs(many.values - (PLANTED - PLANTED.mean())).max() < 0.12
    habit = fit(simulated(rng, PLANTED, 40, 40, 200, side=1.0), 5)  # sides are random: it blurs, but favours nobody
    assert np.corrcoef(habit.values, PLANTED)[0, 1] > 0.99
    assert many.worse(4, 0) and not many.worse(0, 4)
    covered, _ = coverage(PLANTED, 100, 6, 30, 60, 0.0)
    assert 0.93 <= covered <= 0.985  # 500 intervals
    assert coverage(np.zeros(5), 100, 6, 30, 60, 0.0)[1] <= 0.05


def test_alpha_of_a_table_on_paper() -> None:
    # Values 1 1 | 1 0 | 0 0: observed 2 * 1 / 6; expected: 2 * 3 * 3 pairs of unlike values of 6 * 5
    assert alpha([[1, 1], [1, 0], [0, 0], [1]]) == pytest.approx(1 - (2 / 6) / (18 / 30))
    assert alpha([[1, 1], [0, 0]]) == 1


def test_the_design_is_balanced() -> None:
    assert [votes_needed(share) for share in (0.55, 0.6, 0.65, 0.7)] == [783, 194, 85, 47]
    weights = {(0, 1): 1, (0, 2): 2, (1, 2): 1}
    found = lists(weights, 5, 4, 40, np.random.default_rng(0))
    for one in found:
        counts = [sum({trial.left, trial.right} == set(pair) for trial in one) for pair in weights]
        assert len(one) == 40 and counts == [10, 20, 10]
        clips = np.bincount([trial.clip for trial in one], minlength=5)
        assert clips.min() >= 7
        assert abs(sum(trial.left < trial.right for trial in one) - 20) <= 6
    shared = set.intersection(*({(frozenset((t.left, t.right)), t.clip) for t in one} for one in found))
    assert shared


def made(root: Path) -> tuple[Path, dict[str, Any]]:
    assert main(["make", str(root), "--raters", "3", "--minutes", "8"]) == 0
    page = next((root / "votes").glob("page-*.html"))
    return page, json.loads(next((root / "votes").glob("key-*.json")).read_text())


def told_of(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(re.search(r'id="told">(.*?)</script>', page.read_text(), re.S)[1])  # type: ignore[index]
    return found


def answered(folder: Path, page: Path, key: dict[str, Any], number: int, alias: str, careless: bool = False) -> Path:
    """The file of a rater who prefers the real clip, then later trial ids; a careless one always says left."""
    answers = []
    for item in told_of(page)["lists"][number]:
        known = key["items"][item["id"]]
        best = min(("left", "right"), key=lambda side: (known[side] == "damaged", known[side] != "real", known[side]))
        answers.append({"item": item["id"], "choice": "left" if careless else best, "ms": 3000})
    one = {"page": key["page"], "session": alias * 3, "alias": alias, "list": number, "answers": answers}
    one["check"] = checksum(key["page"], alias * 3, alias, number, answers)
    folder.mkdir(exist_ok=True)
    path = folder / f"votes-{alias}.json"
    path.write_text(json.dumps(one))
    return path


def test_answers_are_read_and_bad_files_refused(
    builder: Builder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = builder.build()
    page, key = made(root)
    assert not re.search(r"rank|base\b|r4s0|r8s0|https?://", json.dumps({**told_of(page), "strips": 0}))
    folder = tmp_path / "answers"
    for number, alias in enumerate(("ann", "bob")):
        answered(folder, page, key, number, alias)
    answered(folder, page, key, 2, "left", careless=True)
    (folder / "votes-ann (1).json").write_bytes((folder / "votes-ann.json").read_bytes())
    capsys.readouterr()
    assert main(["read", str(root), str(folder)]) == 0
    text = (root / "report" / "votes.md").read_text()
    assert re.search(r"Left out: left: \d of 6 hidden checks wrong", text)
    assert "the same session as" in text and "2 raters" in text
    assert re.search(r"Repeats answered alike: (\d+) of \1 \(100%\)", text) and "alpha 1.00" in text
    lines = (root / "report" / "votes.csv").read_text().splitlines()
    worth = {line.split(",")[1]: float(line.split(",")[2]) for line in lines if line.startswith("worth")}
    assert list(worth)[0] == "real clips" and worth["real clips"] > worth["base"] > worth["rank 4"] > worth["rank 8"]
    assert (root / "report" / "votes.png").exists()

    bad = folder / "votes-bob.json"
    good = json.loads(bad.read_text())
    for change, words in (
        ({"answers": [{**good["answers"][0], "choice": "same"}, *good["answers"][1:]]}, "edited after its download"),
        ({"page": "0" * 16}, "not of this study"),
    ):
        bad.write_text(json.dumps({**good, **change}))
        assert main(["read", str(root), str(folder)]) == 2
        assert words in capsys.readouterr().err


DRIVER = """
<script>
(() => {
  const marker = document.documentElement.dataset, find = (id) => document.getElementById(id);
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  let reloaded = sessionStorage.getItem("reloaded"), last = "";
  if (reloaded) marker.resumed = `${marker.loaded} ${marker.at}`;
  if (!find("start").hidden) {
    find("alias").value = "Zo\\u00eb"; find("alias").dispatchEvent(new Event("input"));
    find("consent").click(); find("list").value = "1"; find("begin").click();
  }
  setInterval(() => {
    if (marker.ended) { if (!marker.file) find("download").click(); return; }
    if (!marker.ready || marker.ready === last) return;
    last = marker.ready;
    if (last === "8" && !reloaded) { 
      sessionStorage.setItem("reloaded", "1"); setTimeout(() => location.reload(), 300); return;
    }
    press("."); press("z"); press("s"); press("s"); press("s");
    press("1234"[Number(last) % 4]);
  }, 20);
})();
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_a_session_in_a_browser(builder: Builder, tmp_path: Path) -> None:
    root = builder.build()
    page, key = made(root)
    driven = tmp_path / "driven.html"
    driven.write_text(page.read_text().replace("</body>", DRIVER + "</body>"))
    for milliseconds in (45_000, 180_000):  # a busy machine decodes pictures while virtual time runs on
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/{milliseconds}",
            f"--virtual-time-budget={milliseconds}", "--dump-dom", driven.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        head = done.stdout[: done.stdout.index("<head")]
        if "data-file" in head:
            break
    assert 'data-resumed="resumed 8"' in head, head[:500]
    found = json.loads(re.search(r'data-file="(.*?)"', head)[1].replace("&quot;", '"'))  # type: ignore[index]
    assert (found["alias"], found["list"], found["page"]) == ("Zo\u00eb", 1, key["page"])
    assert [each["item"] for each in found["answers"]] == [each["id"] for each in told_of(page)["lists"][1]]
    assert {each["choice"] for each in found["answers"]} == {"left", "right", "same", "unsure"}
    (tmp_path / "votes-zoe.json").write_text(json.dumps(found))
    assert main(["read", str(root), str(tmp_path)]) == 2  # careless by design: no vote is left, but the file is sound
