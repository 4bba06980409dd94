"""Answer files and the keys of a study -> who counts, and what they said of which clips.

In: the files that people sent, `votes/key-HASH.json` of the study. Out: `Ballots`. UserError: no key, no file, a file
of another page or one that was edited. Several pages of one study add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.votes.page import DAMAGED, REAL
from cinelora.core.cli import UserError
from cinelora.core.files import read_json
from cinelora.core.paths import StudyFolder

CHOICES = {"left": 1, "same": 0, "right": -1, "unsure": None}  # the outcome for the left clip
PAIR, CHECK, REPEAT = "pair", "check", "repeat"


@dataclass(frozen=True)
class Vote:
    """`outcome`: 1 if the trial `first`, which sorts before `second`, is preferred, 0 the same, -1."""

    alias: str
    clip: str
    first: str
    second: str
    outcome: int


@dataclass(frozen=True)
class Ballots:
    votes: tuple[Vote, ...]  # of those who pass the checks; repeats are not among them
    repeats: tuple[tuple[Vote, Vote], ...]  # the first answer and the repeated one
    unsure: int
    excluded: tuple[tuple[str, str], ...]  # alias, why
    remarks: tuple[str, ...]
    question: str


def read_ballots(study: StudyFolder, paths: Sequence[Path]) -> Ballots:
    keys = {str(key["page"]): key for key in map(read_json, sorted((study.root / "votes").glob("key-*.json")))}
    if not keys:
        raise UserError(f"{study.root / 'votes'}: no key-*.json; `python -m analysis.votes make` writes it")
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.glob("votes-*.json")))]
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no votes-*.json; put the files that people sent there")
    sessions, remarks = _distinct([(file, _checked(file, keys)) for file in files])
    by_alias: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any], str]]] = {}
    for one in sessions:
        key = keys[one["page"]]
        own = by_alias.setdefault(one["alias"], [])
        own += [(key, key["items"][each["item"]], each["choice"]) for each in one["answers"]]
    excluded = tuple((alias, why) for alias, own in sorted(by_alias.items()) if (why := _fails(own)))
    kept = {alias: own for alias, own in sorted(by_alias.items()) if alias not in dict(excluded)}
    votes, repeats, unsure = [], [], 0
    for alias, own in kept.items():
        first: dict[tuple[str, str, str], Vote] = {}
        for _, item, choice in own:
            outcome = CHOICES[choice]
            if item["kind"] == CHECK:
                continue
            if outcome is None:
                unsure += 1
                continue
            vote = _vote(alias, item, outcome)
            place = (vote.clip, vote.first, vote.second)
            if place in first:  # a repeat, or the same pair of a later page
                repeats.append((first[place], vote))
            elif item["kind"] == PAIR:
                first[place] = vote
                votes.append(vote)
    questions = sorted({str(key["question"]) for key in keys.values()})
    return Ballots(tuple(votes), tuple(repeats), unsure, excluded, tuple(remarks), " / ".join(questions))


def checksum(page: str, session: str, alias: str, number: int, answers: Iterable[Mapping[str, Any]]) -> str:
    """FNV-1a, 32 bits, as session.js computes it: it sees edits by hand, not a forger."""
    lines = [f"{each['item']},{each['choice']},{each['ms']}" for each in answers]
    found = 0x811C9DC5
    for byte in "\n".join([page, session, alias, str(number), *lines]).encode():
        found = (found ^ byte) * 0x01000193 % 2**32
    return f"{found:08x}"


def _checked(file: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(file)
        page, session, answers = found["page"], found["session"], found["answers"]
        own = checksum(page, session, found["alias"], found["list"], answers)
        known = page in keys and all(each["item"] in keys[page]["items"] for each in answers)
        wrong = [each["choice"] for each in answers if each["choice"] not in CHOICES]
        twice = len({each["item"] for each in answers}) < len(answers)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not answers that a page of this program wrote; ask for the file again") from error
    if page not in keys:
        raise UserError(f"{file}: page {page} is not of this study (its pages: {', '.join(keys)}); take the file out")
    if found.get("check") != own or wrong or twice or not known:
        raise UserError(f"{file}: edited after its download (check {found.get('check')}, now {own}); ask for it again")
    return found


def _distinct(found: Sequence[tuple[Path, dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[str]]:
    """One file a session, that with the most answers, and a line for each other one."""
    best: dict[str, tuple[Path, dict[str, Any]]] = {}
    remarks = []
    for file, one in sorted(found, key=lambda pair: -len(pair[1]["answers"])):
        if one["session"] in best:
            remarks.append(f"{file.name} left out: the same session as {best[one['session']][0].name}")
        else:
            best[one["session"]] = (file, one)
    return [one for _, one in sorted(best.values(), key=lambda pair: pair[0].name)], remarks


def _fails(own: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], str]]) -> str:
    """Why a rater is left out by the rule of the page, or ""."""
    checks = [item[choice] == REAL if choice in item else False for _, item, choice in own if item["kind"] == CHECK]
    rule = own[0][0]["rule"] if own else {"checks_seen_at_least": 1, "checks_wrong_at_most": 0}
    wrong = len(checks) - sum(checks)
    if len(checks) < rule["checks_seen_at_least"]:
        return f"answered {len(checks)} hidden checks, fewer than {rule['checks_seen_at_least']}"
    pages = len({key["page"] for key, _, _ in own})
    most = rule["checks_wrong_at_most"] * pages
    return f"{wrong} of {len(checks)} hidden checks wrong, at most {most} allowed" if wrong > most else ""


def _vote(alias: str, item: Mapping[str, Any], outcome: int) -> Vote:
    left, right = str(item["left"]), str(item["right"])
    assert DAMAGED not in (left, right)
    if left > right:
        left, right, outcome = right, left, -outcome
    return Vote(alias, str(item["clip"]), left, right, outcome)
