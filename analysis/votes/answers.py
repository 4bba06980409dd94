"""Answer files and the keys of a study -> who counts, and what they said of which clips.

In: `votes/key-HASH.json` of the study and `votes/votes-*.json`, the files that people sent. Out: `Ballots`. UserError:
a file of another page, or one that was edited. Several pages of one study add up, and so do several merged studies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, repeat
from pathlib import Path
from typing import Any

from analysis.votes.page import DAMAGED, REAL, SIDES
from cinelora.core.cli import UserError
from cinelora.core.files import content_hash, read_json, write_json
from cinelora.core.paths import StudyFolder

SAME, UNSURE = "same", "unsure"
PAIR, CHECK, REPEAT = "pair", "check", "repeat"


@dataclass(frozen=True)
class Ranking:
    """One answer: the trials of `order`, the best first, are preferred to those of `rest`, which are about the same."""

    alias: str
    clip: str
    order: tuple[str, ...]
    rest: tuple[str, ...]

    def votes(self) -> list[Vote]:
        """What it says of each pair."""
        above = [(one, two, 1) for at, one in enumerate(self.order) for two in (*self.order[at + 1 :], *self.rest)]
        alike = [(one, two, 0) for one, two in combinations(self.rest, 2)]
        return [
            Vote(self.alias, self.clip, one, two, outcome)
            if one < two
            else Vote(self.alias, self.clip, two, one, -outcome)
            for one, two, outcome in (*above, *alike)
        ]


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
    rankings: tuple[Ranking, ...]  # of those who pass the checks; repeats are not among them
    repeats: tuple[tuple[Vote, Vote], ...]  # the first answer on a pair and the repeated one
    unsure: int
    excluded: tuple[tuple[str, str], ...]  # alias, why
    remarks: tuple[str, ...]
    question: str
    pages: int


def read_ballots(folders: Sequence[StudyFolder]) -> Ballots | None:
    """None where nobody has answered."""
    keys = {page: key for folder in folders for page, key in read_keys(folder).items()}
    files = [file for folder in folders for file in sorted((folder.root / "votes").glob("votes-*.json"))]
    if not files:
        return None
    sessions, remarks = _distinct([(file, checked(file, keys)) for file in files])
    by_alias: dict[str, list[Answer]] = {}
    for one in sessions:
        key = keys[one["page"]]
        own = by_alias.setdefault(one["alias"], [])
        own += [Answer(key, key["items"][each["item"]], each["choice"]) for each in one["answers"]]
    excluded = tuple((alias, why) for alias, own in sorted(by_alias.items()) if (why := _fails(own)))
    rankings, repeats, unsure = [], [], 0
    for alias, own in sorted(by_alias.items()):
        first: dict[tuple[str, frozenset[str]], Ranking] = {}
        for answer in own if alias not in dict(excluded) else ():
            if answer.item["kind"] == CHECK:
                continue
            if (found := answer.ranking(alias)) is None:
                unsure += 1
                continue
            place = (found.clip, frozenset((*found.order, *found.rest)))
            if place in first:  # a repeat, or the same clips on a later page
                repeats += list(zip(*(sorted(each.votes(), key=_pair) for each in (first[place], found)), strict=True))
            elif answer.item["kind"] == PAIR:
                first[place] = found
                rankings.append(found)
    used = {one["page"] for one in sessions}
    questions = sorted({str(keys[page]["question"]) for page in used})
    return Ballots(tuple(rankings), tuple(repeats), unsure, excluded, tuple(remarks), " / ".join(questions), len(used))


def take(study: StudyFolder, paths: Sequence[Path]) -> list[str]:
    """Check the files that people sent and copy them into the study, all or none. Returns the names of their copies."""
    if not (keys := read_keys(study)):
        raise UserError(f"{study.root / 'votes'}: no key-*.json; `python -m analysis.votes make` writes it")
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.glob("votes-*.json")))]
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no votes-*.json; put the files that people sent there")
    copies = {}
    for file in files:
        found = checked(file, keys)
        copies[f"votes-{content_hash(found['session'], 12)}-{found['check']}.json"] = found
    for name, found in copies.items():
        write_json(study.root / "votes" / name, found)
    return list(copies)


def read_keys(study: StudyFolder) -> dict[str, Any]:
    """Page -> what its items are."""
    return {str(key["page"]): key for key in map(read_json, sorted((study.root / "votes").glob("key-*.json")))}


def _pair(vote: Vote) -> tuple[str, str]:
    return vote.first, vote.second


@dataclass(frozen=True)
class Answer:
    """`key`: that of the page; `choice`: sides, the best first, with ">" between them, SAME for those left; UNSURE."""

    key: Mapping[str, Any]
    item: Mapping[str, Any]
    choice: str

    def ranking(self, alias: str) -> Ranking | None:
        """None for UNSURE; ValueError for what the page cannot say."""
        if self.choice == UNSURE:
            return None
        sides = [side for side in SIDES if side in self.item]
        *order, last = self.choice.split(">")
        order += [last] * (last != SAME)
        rest = [side for side in sides if side not in order]
        if not set(order) <= set(sides) or len(order) + len(rest) != len(sides) or (len(rest) > 1) != (last == SAME):
            raise ValueError(self.choice)
        named = (tuple(str(self.item[side]) for side in each) for each in (order, rest))
        return Ranking(alias, str(self.item["clip"]), *named)


def checksum(page: str, session: str, alias: str, number: int, answers: Iterable[Mapping[str, Any]]) -> str:
    """FNV-1a, 32 bits, as session.js computes it: it sees edits by hand, not a forger."""
    lines = [f"{each['item']},{each['choice']},{each['ms']}" for each in answers]
    found = 0x811C9DC5
    for byte in "\n".join([page, session, alias, str(number), *lines]).encode():
        found = (found ^ byte) * 0x01000193 % 2**32
    return f"{found:08x}"


def checked(file: Path, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of one file. UserError: of no page in `keys`, or edited."""
    try:
        found: dict[str, Any] = read_json(file)
        page, answers = found["page"], found["answers"]
        own = checksum(page, found["session"], found["alias"], found["list"], answers)
        known = page in keys and all(each["item"] in keys[page]["items"] for each in answers)
        twice = len({each["item"] for each in answers}) < len(answers)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not answers that a page of this program wrote; ask for the file again") from error
    if page not in keys:
        pages = ", ".join(keys) or "none"
        raise UserError(f"{file}: page {page} is not of this study (its pages: {pages}); take the file out")
    if found.get("check") != own or twice or not known or not all(map(_possible, answers, repeat(keys[page]))):
        raise UserError(f"{file}: edited after its download (check {found.get('check')}, now {own}); ask for it again")
    return found


def _possible(answer: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    try:
        Answer(key, key["items"][answer["item"]], str(answer["choice"])).ranking("")
    except ValueError:
        return False
    return True


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


def _fails(own: Sequence[Answer]) -> str:
    """Why a rater is left out by the rule of the page, or ""."""
    seen = [answer.ranking("") for answer in own if answer.item["kind"] == CHECK]
    wrong = sum(found is None or not _passes(found) for found in seen)
    rule = own[0].key["rule"] if own else {"checks_seen_at_least": 1, "checks_wrong_at_most": 0}
    if len(seen) < rule["checks_seen_at_least"]:
        return f"answered {len(seen)} hidden checks, fewer than {rule['checks_seen_at_least']}"
    most = rule["checks_wrong_at_most"] * len({answer.key["page"] for answer in own})
    return f"{wrong} of {len(seen)} hidden checks wrong, at most {most} allowed" if wrong > most else ""


def _passes(found: Ranking) -> bool:
    """Whether the real clip stands before its damaged copy."""
    return REAL in found.order and DAMAGED not in found.order[: found.order.index(REAL)]
