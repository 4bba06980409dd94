"""Votes: the model against brute force and simulated raters; a page driven in a browser and its answers read."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from analysis.report import main as report
from analysis.votes import worths
from analysis.votes.__main__ import main
from analysis.votes.answers import checksum
from analysis.votes.design import lists, votes_needed
from analysis.votes.page import SIDES
from analysis.votes.worths import NOBODY, PENALTY, SAME, Votes, alpha, fit
from benchmarks.votes import PLANTED, coverage, simulated
from tests.analysis.browser import attributes, needs_chromium
from tests.analysis.paper_study import Builder


@pytest.mark.parametrize("size", [2, 4])
def test_worths_are_those_that_brute_force_finds(size: int) -> None:
    votes = simulated(np.random.default_rng(3), PLANTED, 4, 10, 40, size=size)

    def loss(values: np.ndarray) -> float:
        total = PENALTY / 2 * float(values @ values)
        for members, chosen in zip(votes.sets, votes.chosen, strict=True):
            odds = [np.exp(values[row]) for row in members if row != NOBODY]
            tie = np.exp(values[5 + len(odds) - 2]) * np.prod(odds) ** (1 / len(odds))
            total -= np.log((tie if chosen == SAME else odds[chosen]) / (sum(odds) + tie))
        return float(total)

    best = optimize.minimize(loss, np.zeros(8), method="BFGS", options={"gtol": 1e-7}).x
    found = fit(votes, 5)
    assert np.allclose(found.values, best[:5] - best[:5].mean(), atol=1e-6)
    assert np.allclose(found.ties, best[5:], atol=1e-6) and (found.ties != 0).sum() == size - 1


PEERS = Path(sys.prefix) / "peers"


@pytest.mark.skipif(not (PEERS / "choix").exists(), reason="choix is installed by `make test`")
@pytest.mark.parametrize("size", [2, 3])
def test_worths_are_those_of_choix(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """choix 0.4 knows no ties and another penalty: without both, the worths are equal."""
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.setattr(worths, "PENALTY", 1e-9)
    choix = importlib.import_module("choix")
    votes = simulated(np.random.default_rng(4), PLANTED, 4, 10, 60, size=size)
    first = votes.chosen != SAME
    votes = Votes(votes.raters[first], votes.clips[first], votes.sets[first], votes.chosen[first])
    data = []
    for members, chosen in zip(votes.sets, votes.chosen, strict=True):
        members = members[members != NOBODY]
        data.append((members[chosen], np.delete(members, chosen)))
    theirs = choix.opt_top1(5, data, alpha=1e-12, tol=1e-10)
    assert np.allclose(fit(votes, 5).values, theirs - theirs.mean(), atol=1e-6)


def test_simulated_raters() -> None:
    rng = np.random.default_rng(0)
    many = fit(simulated(rng, PLANTED, 40, 40, 200), 5)
    assert abs(many.values - (PLANTED - PLANTED.mean())).max() < 0.12
    habit = fit(simulated(rng, PLANTED, 40, 40, 200, side=1.0), 5)  # sides are random: it blurs, but favours nobody
    assert np.corrcoef(habit.values, PLANTED)[0, 1] > 0.99
    reversed_habit = fit(simulated(rng, PLANTED, 40, 40, 200, side=-1.0), 5)
    assert np.corrcoef(reversed_habit.values, PLANTED)[0, 1] > 0.99
    tenth = fit(simulated(rng, PLANTED, 40, 40, 200, careless=4), 5)  # those whom no check found pull towards equal
    assert np.corrcoef(tenth.values, PLANTED)[0, 1] > 0.99
    assert 0.8 < np.polyfit(PLANTED, tenth.values, 1)[0] < 1
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
        counts = [sum(set(trial.rows) == set(pair) for trial in one) for pair in weights]
        assert len(one) == 40 and counts == [10, 20, 10]
        clips = np.bincount([trial.clip for trial in one], minlength=5)
        assert clips.min() >= 7
        assert sum(trial.rows[0] < trial.rows[1] for trial in one) == 20
    shared = set.intersection(*({(frozenset(t.rows), t.clip) for t in one} for one in found))
    assert shared


def made(root: Path, *options: str) -> tuple[Path, dict[str, Any]]:
    before = set((root / "votes").glob("*"))
    assert main(["make", str(root), "--raters", "3", "--minutes", "8", *options]) == 0
    key, page = sorted({*(root / "votes").glob("*")} - before)
    return page, json.loads(key.read_text())


def content_of(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(re.search(r'id="content">(.*?)</script>', page.read_text(), re.S)[1])  # type: ignore[index]
    return found


def answered(folder: Path, page: Path, key: dict[str, Any], number: int, alias: str, careless: bool = False) -> Path:
    """The file of a rater who prefers the real clip, then earlier trial ids; a careless one always says left."""
    answers = []
    for item in content_of(page)["lists"][number]:
        known = key["items"][item["id"]]
        sides = [side for side in SIDES if side in item]
        if not careless:
            sides.sort(key=lambda side: (known[side] == "damaged", known[side] != "real", known[side]))
        answers.append({"item": item["id"], "choice": ">".join(sides[:-1]), "ms": 3000})
    session = f"{alias} {key['page']}"
    one = {"page": key["page"], "session": session, "alias": alias, "list": number, "answers": answers}
    one["check"] = checksum(key["page"], session, alias, number, answers)
    folder.mkdir(exist_ok=True)
    path = folder / f"votes-{alias}-{key['page']}.json"
    path.write_text(json.dumps(one))
    return path


def test_answers_are_read_and_bad_files_refused(
    builder: Builder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = builder.build()
    page, key = made(root)
    assert not re.search(r"rank|base\b|r4s0|r8s0|https?://", json.dumps({**content_of(page), "strips": 0}))
    folder = tmp_path / "answers"
    for number, alias in enumerate(("ann", "bob")):
        answered(folder, page, key, number, alias)
    answered(folder, page, key, 2, "left", careless=True)
    early = json.loads((folder / f"votes-ann-{key['page']}.json").read_text())  # downloaded before the end
    early["answers"].pop()
    early["check"] = checksum(*(early[name] for name in ("page", "session", "alias", "list", "answers")))
    (folder / "votes-ann (1).json").write_text(json.dumps(early))
    capsys.readouterr()
    assert main(["read", str(root), str(folder)]) == 0
    text = (root / "report" / "votes.md").read_text()
    assert re.search("Left out: left: 3 of 6 hidden checks wrong", text)
    assert "the same session as" in text and "2 people gave" in text
    assert re.search(r"Repeated pairs answered alike: (\d+) of \1 \(100%\)", text) and "alpha 1.00" in text
    lines = (root / "report" / "votes.csv").read_text().splitlines()
    worth = {line.split(",")[1]: float(line.split(",")[2]) for line in lines if line.startswith("worth")}
    assert list(worth)[0] == "real clips" and worth["real clips"] > worth["base"] > worth["rank 4"] > worth["rank 8"]
    assert (root / "report" / "votes.png").exists()

    bad = folder / f"votes-bob-{key['page']}.json"
    good = json.loads(bad.read_text())
    for change, words in (
        ({"answers": [{**good["answers"][0], "choice": "same"}, *good["answers"][1:]]}, "edited after its download"),
        ({"page": "0" * 16}, "not of this study"),
    ):
        bad.write_text(json.dumps({**good, **change}))
        assert main(["read", str(root), str(folder)]) == 2
        assert words in capsys.readouterr().err


def test_several_rounds_add_up_and_the_report_shows_them(builder: Builder, tmp_path: Path) -> None:
    root, answers = builder.build(), tmp_path / "answers"

    def reported() -> tuple[list[str], str, str]:
        assert report([str(root)]) == 0
        names = ("rank_table.csv", "summary.md", "index.html")
        table, summary, page = ((root / "report" / name).read_text() for name in names)
        return table.splitlines(), summary, page

    bare, earlier = reported(), 0
    assert not list((root / "report").glob("votes*")) and "prefer" not in bare[1]
    for clips, number in (("2", 0), ("3", 1)):  # the second round shows three clips at a time
        page, key = made(root, "--clips", clips, "--seed", clips, "--minutes", "12")
        assert all(len(item) == int(clips) + 2 for item in key["items"].values())
        answered(answers, page, key, number, "ann")
        answered(answers, page, key, number, "bob")
        assert main(["read", str(root), str(answers)]) == 0
        shutil.rmtree(answers)  # the study keeps them
        count = int(re.search(r"2 people gave (\d+) answers", (root / "report" / "votes.md").read_text())[1])  # type: ignore[index]
        assert count > earlier
        earlier = count

    table, summary, page_text = reported()
    assert [line.rsplit(",", 3)[0] for line in table] == bare[0] and table[0].endswith("votes,votes_low,votes_high")
    values = {line.split(",")[0]: float(line.split(",")[-3]) for line in table[1:]}
    assert values["real clips"] == max(values.values()) > 0 and all(np.isfinite(list(values.values())))
    for text in (summary, page_text):
        assert f"2 people gave {count} answers" in text and "The study&#39;s own score" in text.replace("'", "&#39;")
        assert "What people prefer" in text and "Which clip moves more like one continuous shot?" in text
    assert "![votes](votes.png)" in summary and (root / "report" / "votes.pdf").exists()


DRIVER = """
(() => {
  const marker = document.documentElement.dataset, find = (id) => document.getElementById(id);
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  let reloaded = sessionStorage.getItem("reloaded"), last = "";
  if (reloaded) marker.resumed = `${marker.loaded} ${marker.at}`;
  // Under virtual time a busy browser may reload before it has stored what the page saved: no file, so try again.
  if (reloaded && marker.loaded === "new") return;
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
    for (const key of PLANS[Number(last) % 4]) press(key);
  }, 20);
})();
"""


@needs_chromium
@pytest.mark.parametrize(
    ("clips", "plans", "choices"),
    [
        ("2", ["1", "2", "3", "4"], {"left", "right", "same", "unsure"}),
        ("3", ["21", "1134", "4", "5"], {"b>a", "c>same", "same", "unsure"}),  # a pressed twice is taken back
    ],
)
def test_a_session_in_a_browser(
    builder: Builder, tmp_path: Path, clips: str, plans: list[str], choices: set[str]
) -> None:
    root = builder.build()
    page, key = made(root, "--clips", clips, "--minutes", "12")
    left = attributes(page, "file", DRIVER.replace("PLANS", json.dumps(plans)), budgets=(45_000,) * 3 + (180_000,))
    assert left["resumed"] == "resumed 8"
    found = json.loads(left["file"])
    assert (found["alias"], found["list"], found["page"]) == ("Zo\u00eb", 1, key["page"])
    assert [each["item"] for each in found["answers"]] == [each["id"] for each in content_of(page)["lists"][1]]
    assert {each["choice"] for each in found["answers"]} == choices
    (tmp_path / "votes-zoe.json").write_text(json.dumps(found))
    assert main(["read", str(root), str(tmp_path)]) == 2  # careless by design: no vote is left, but the file is sound
