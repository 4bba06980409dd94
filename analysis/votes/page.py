"""A study -> one HTML file that shows clips side by side, unnamed, and the key that says what its items are.

In: `Estimates`. Out: `votes/page-HASH.html`, to send, and `votes/key-HASH.json`, to keep, in the study folder. Items
and pictures are named by HMACs under a secret that is in the key alone, so that the page names no row. HASH covers the
items, the pictures, the question and the rule.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from analysis.study.frames import Image, read_clip, spread, strip
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER
from analysis.votes.design import Pair, Trial, lists, power_lines
from analysis.votes.worths import LARGEST
from cinelora.core.cli import UserError
from cinelora.core.files import content_hash, whole_file, write_json
from cinelora.core.paths import SampleFolder

REAL, DAMAGED = "real", "damaged"  # in place of a trial id
SIDES = ("left", "right", "a", "b", "c", "d")  # of two clips; of more
HERE = Path(__file__).parent
QUESTION = "Which clip moves more like one continuous shot?"
SECONDS = 6  # of each clip in an answer
TRAINING, CHECKS, REPEATS = 3, 6, 6
RULE = {"checks_wrong_at_most": 1, "checks_seen_at_least": 4}
MAX_CLIPS = 40
MAX_BYTES = 7_300_000  # of base64; the page stays below 8 MB


@dataclass(frozen=True)
class Entry:
    """A row, or the real clips. A clip is shown by its trials in turn."""

    name: str
    trials: tuple[str, ...]

    def shown(self, clip: int) -> str:
        return self.trials[clip % len(self.trials)]


def entries(estimates: Estimates) -> list[Entry]:
    rows = [Entry(row.full_name, row.trial_ids) for row in estimates.rows if row.done and not row.is_frozen]
    return [Entry("real clips", (REAL,)), *rows]


def make(estimates: Estimates, raters: int, minutes: float, seed: int, size: int = 2) -> tuple[Path, list[str]]:
    """Write page and key. Returns the page and what to print."""
    found, study = entries(estimates), estimates.study
    each = int(minutes * 60 / (SECONDS * size)) - TRAINING - CHECKS - REPEATS
    if raters < 1 or each < 2 * REPEATS:
        raise UserError(f"--raters {raters} --minutes {minutes:g}: give 1 rater or more, and more minutes")
    if not 2 <= size <= min(LARGEST, len(found)):
        raise UserError(f"--clips {size}: give 2 to {LARGEST}, and at most the {len(found)} rows that have finished")
    rng = np.random.default_rng(seed)
    weights = pair_weights(estimates, found)
    strips = _Strips(estimates, found, secrets.token_hex(16))
    trials = lists(weights, len(strips.clips), raters, each, rng, size)
    own = [_session(strips, one, number, rng) for number, one in enumerate(trials)]
    items = {key: item for one in own for key, item in one}
    training = [_check(strips, size, number % 2 == 0, rng) for number in range(TRAINING)]
    content = {
        "question": QUESTION,
        "rule": RULE,
        "sides": sides(size),
        "fps": study.trials[0].spec.config.data.fps,
        "training": [
            {**strips.pictures_of(item, f"training {number}"), "damaged": _side_of(item, DAMAGED)}
            for number, item in enumerate(training)
        ],
        "lists": [[strips.pictures_of(item, key) for key, item in one] for one in own],
    }
    pictures = dict(sorted(strips.pictures.items()))
    page = content_hash([content, pictures], 16)
    shared = {"study": study.name, "page": page, "secret": strips.secret, "rule": RULE, "question": QUESTION}
    folder = study.folder.root / "votes"
    write_json(folder / f"key-{page}.json", {**shared, "items": items})
    path = folder / f"page-{page}.html"
    with whole_file(path) as temporary:
        temporary.write_text(_html({**content, "page": page, "strips": pictures}), "utf-8")
    return path, power_lines(weights, len(found), raters, each, size)


def pair_weights(estimates: Estimates, found: Sequence[Entry]) -> dict[Pair, int]:
    """2 for pairs of rows that the primary scores order differently, or that lie next to each other; else 1."""
    means = [{score: each.mean for score, each in row.estimates.items()} for row in estimates.rows if row.done]
    by_name = dict(zip([row.full_name for row in estimates.rows if row.done], means, strict=True))
    sign = {LOWER: -1.0, HIGHER: 1.0}
    scores = [score for score in estimates.primary.answered if DIRECTIONS.get(score) in sign]
    values = [{s: sign[DIRECTIONS[s]] * by_name.get(one.name, {}).get(s, np.inf) for s in scores} for one in found]
    order = sorted(range(len(found)), key=lambda index: -values[index][scores[0]] if scores else index)
    weights = {}
    for i in range(len(found)):
        for j in range(i + 1, len(found)):
            signs = {np.sign(values[i][s] - values[j][s]) for s in scores if np.isfinite(values[i][s] - values[j][s])}
            near = abs(order.index(i) - order.index(j)) == 1 and 0 not in (i, j)
            weights[i, j] = 2 if near or len(signs) > 1 else 1
    if not weights:
        raise UserError(f"{estimates.study.name}: no row has finished; nothing to compare")
    return weights


def damaged(frames: Image) -> Image:
    """A copy that nobody takes for one continuous shot: every second frame mirrored in time, darker and shifted."""
    broken = frames.copy()
    broken[1::2] = (np.roll(frames[::-1][1::2], frames.shape[2] // 8, axis=2) * 0.7).astype(np.uint8)
    return broken


class _Strips:
    """The clips that the page shows, encoded once each and named by HMAC."""

    def __init__(self, estimates: Estimates, found: Sequence[Entry], secret: str) -> None:
        self.study, self.entries, self.secret = estimates.study, found, secret
        self.pictures: dict[str, dict[str, Any]] = {}
        ids = [
            (index, clip)
            for index, clip in enumerate(estimates.scores.clips)
            if all(self.folder(one.shown(index)).sample(clip).exists() for one in found)
        ]
        if not ids:
            why = "restore samples/" if self.study.generated else "its trials generated none (sample.clips=false)"
            raise UserError(f"{self.study.folder.root}: no held-out clip is on disk for every row; {why}")
        size = sum(len(self.strip(trial, ids[0][1])["webp"]) for trial in {one.shown(ids[0][0]) for one in found})
        self.clips = spread(tuple(ids), max(2, min(MAX_CLIPS, int(0.85 * MAX_BYTES / size))))

    def folder(self, trial: str) -> SampleFolder:
        return self.study.reference_folder if trial in (REAL, DAMAGED) else self.study.trial_folder(trial)

    def strip(self, trial: str, clip: str) -> dict[str, Any]:
        frames = read_clip(self.folder(trial).sample(clip))
        assert frames is not None
        return strip(damaged(frames) if trial == DAMAGED else frames)

    def named(self, *parts: object) -> str:
        text = "|".join(map(str, parts))
        return hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()[:16]

    def pictures_of(self, item: Mapping[str, Any], key: str) -> dict[str, str]:
        names = {}
        for side in (each for each in SIDES if each in item):
            names[side] = self.named(item[side], item["clip"])
            if names[side] not in self.pictures:
                self.pictures[names[side]] = self.strip(item[side], item["clip"])
        return {"id": key, **names}


def sides(size: int) -> list[str]:
    """The names of the places of `size` clips."""
    return list(SIDES[:2] if size == 2 else SIDES[2 : 2 + size])


def _item(kind: str, clip: str, trials: Sequence[str]) -> dict[str, Any]:
    return {"kind": kind, "clip": clip, **dict(zip(sides(len(trials)), trials, strict=True))}


def _session(strips: _Strips, trials: Sequence[Trial], number: int, rng: np.random.Generator) -> list[tuple[str, Any]]:
    """Items of one list: its trials, checks in between, and repeats of early trials in reverse order at the end."""
    shown = []
    for trial in trials:
        index, clip = strips.clips[trial.clip]
        shown.append((clip, [strips.entries[row].shown(index) for row in trial.rows]))
    items = [_item("pair", clip, names) for clip, names in shown]
    early = rng.choice(len(items) // 2, size=REPEATS, replace=False)
    repeats = [_item("repeat", shown[at][0], shown[at][1][::-1]) for at in early]
    places = sorted(rng.integers(len(items) * 3 // 4, len(items) + 1, size=REPEATS).tolist(), reverse=True)
    for place, repeat in zip(places, repeats, strict=True):
        items.insert(place, repeat)
    for check, real_first in enumerate((rng.permutation(CHECKS) % 2 == 0).tolist()):
        at = len(items) * (2 * check + 1) // (2 * CHECKS)
        items.insert(at, _check(strips, len(trials[0].rows), real_first, rng))
    return [(strips.named("item", number, place), item) for place, item in enumerate(items)]


def _check(strips: _Strips, size: int, real_first: bool, rng: np.random.Generator) -> dict[str, Any]:
    """The real clip and its damaged copy, beside other rows in a larger set. `real_first`: in half of the checks of a
    list, so that who always takes the same side gets half of them wrong."""
    index, clip = strips.clips[int(rng.integers(len(strips.clips)))]
    others = rng.choice(np.arange(1, len(strips.entries)), size - 2, replace=False).tolist()
    names = [REAL, DAMAGED, *(strips.entries[row].shown(index) for row in others)]
    names = [names[at] for at in rng.permutation(size)]
    if (names.index(REAL) < names.index(DAMAGED)) != real_first:
        names = [{REAL: DAMAGED, DAMAGED: REAL}.get(name, name) for name in names]
    return _item("check", clip, names)


def _side_of(item: Mapping[str, Any], name: str) -> str:
    return next(side for side in SIDES if item.get(side) == name)


def _html(content: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    script = Markup((HERE / "session.js").read_text(encoding="utf-8"))
    return environment.get_template("session.html").render(content=content, script=script)
