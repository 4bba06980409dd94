"""The decision of a study over all its primary scores: the winner, or what to take until there is one.

In: `Estimates`, `Answer` records. Out: a `Decision` per adapter series, and its sentence. Pure: no files.

A rank is enough if it is ENOUGH on every primary score on which some rank gains on the base, and WORSE on none
(`analysis/statistics/answer.py`). The smallest such rank is the winner if every smaller one is WORSE on some score;
else whether a smaller one is enough, too, is open. The provisional choice is the smallest rank that is WORSE on none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics.answer import ENOUGH, OPEN, WORSE, Answer, least, listed, most
from analysis.statistics.intervals import MOST_SEEDS
from analysis.study.costs import work
from analysis.study.rows import Estimates
from cinelora.metrics.primary import plain_name

WINNER, IS_ENOUGH, NO_WINNER = "winner", "enough", "no winner yet"
HOUR = 3600  # seconds
SO_FAR = "Judging by the results so far, "


@dataclass(frozen=True)
class Decision:
    """`rank` is that of a WINNER or IS_ENOUGH. `seeds`, `clips`: how many in all, the other as it is, would settle what
    is open, by the observed means and variances; None: nothing is open, unknown, or too many."""

    series: str
    word: str
    rank: int | None
    smaller: tuple[int, ...]  # ranks below `rank` of which it is open whether they are enough
    fallen: tuple[tuple[int, tuple[str, ...]], ...]  # smaller ones that are WORSE, and on which scores
    provisional: int | None
    share: float
    scores: tuple[str, ...]  # with a gain
    without_gain: tuple[str, ...]
    seeds_now: int
    clips_now: int
    seeds: int | None
    clips: int | None
    worker_hours: float | None  # of the trials of the seeds to add, at the cost of the finished ones


def decisions(estimates: Estimates, found: Iterable[Answer]) -> tuple[Decision, ...]:
    """One per series that has an answer."""
    by_series: dict[str, list[Answer]] = {}
    for answer in found:
        by_series.setdefault(answer.series, []).append(answer)
    return tuple(decide(own, seconds_a_seed(estimates, series)) for series, own in by_series.items())


def decide(found: Sequence[Answer], seconds_a_seed: Mapping[int, float]) -> Decision:
    """`found`: the answers of one series; ranks that lack one of them are left out. `seconds_a_seed`: of a rank."""
    ranks = sorted(set.intersection(*(set(answer.by_rank) for answer in found)))
    gained, worse = [answer for answer in found if answer.gained], worse_ranks(found)
    able = [rank for rank in ranks if rank not in worse]
    enough = [rank for rank in able if gained and all(each.by_rank[rank].verdict == ENOUGH for each in gained)]
    rank = enough[0] if enough else None
    smaller = tuple(each for each in able if rank is not None and each < rank)
    seeds, clips = _to_settle(able, gained)
    first = next((each for each in found[0].ranks if each.look is None), found[0].ranks[0]).gain
    gone = {each.rank for each in found[0].ranks if each.look is not None}
    seconds = [each for rank, each in seconds_a_seed.items() if rank not in gone]
    hours = sum(seconds) / HOUR if seconds else None
    return Decision(
        series=found[0].series,
        word=NO_WINNER if rank is None else IS_ENOUGH if smaller else WINNER,
        rank=rank,
        smaller=smaller,
        fallen=tuple((each, worse[each]) for each in sorted(worse) if rank is not None and each < rank),
        provisional=able[0] if able else None,
        share=found[0].share,
        scores=tuple(answer.score for answer in gained),
        without_gain=tuple(answer.score for answer in found if not answer.gained),
        seeds_now=first.seeds,
        clips_now=first.shots,
        seeds=seeds,
        clips=clips,
        worker_hours=None if seeds is None or hours is None else (seeds - first.seeds) * hours,
    )


def worse_ranks(found: Sequence[Answer]) -> dict[int, tuple[str, ...]]:
    """The ranks that are WORSE on some score, and those scores."""
    scores: dict[int, tuple[str, ...]] = {}
    for answer in found:
        for each in answer.ranks:
            if each.verdict == WORSE:
                scores[each.rank] = (*scores.get(each.rank, ()), answer.score)
    return scores


def _to_settle(able: Sequence[int], gained: Sequence[Answer]) -> tuple[int | None, int | None]:
    """Seeds and clips in all until each rank, from the smallest on, is WORSE on some score, or enough: the winner."""
    needs: list[tuple[int | None, int | None]] = []
    for rank in able if gained else ():
        left = [each for answer in gained if (each := answer.by_rank[rank]).verdict == OPEN]
        failing = [each for each in left if not each.promising]
        pick = least if failing else most  # WORSE on one score is all that it takes; or ENOUGH on each
        if left:
            needs.append(
                (pick([each.seeds for each in failing or left]), pick([each.clips for each in failing or left]))
            )
        if not failing:
            return most([seeds for seeds, _ in needs]), most([clips for _, clips in needs])
    return None, None


def seconds_a_seed(estimates: Estimates, series: str) -> dict[int, float]:
    """Rank -> mean seconds of work of its finished trials, all workers together."""
    return {
        row.key.rank: float(
            np.mean([sum(each.result.seconds.values()) * each.result.world_size for each in estimates.trials(row)])
        )
        for row in estimates.finished(series)
    }


def sentence(found: Decision) -> str:
    """The decision, what to take meanwhile, and what would settle it."""
    where = ", ".join(filter(None, ("Decision", found.series)))
    if not found.scores:
        verdict = "no winner."
    elif found.word == NO_WINNER:
        verdict = f"no winner{' yet' if found.seeds or found.clips else ''}."
    else:
        verdict = f"rank {found.rank} is {'the winner' if found.word == WINNER else 'enough'}."
    return f"{where}: {' '.join(filter(None, (verdict, reason(found), next_purchase(found))))}"


def reason(found: Decision) -> str:
    """What is shown, and what to take where that decides nothing."""
    if not found.scores:
        return "No rank is shown to improve on the untrained model in any score that decides."
    share, names = f"at least {found.share:.0%} of the best gain over the untrained model", _names(found.scores)
    if found.word == NO_WINNER:
        parts = [f"A rank is enough if it has {share}, in {names}. None is shown to be."]
    elif found.word == WINNER:
        fallen = "; ".join(f"rank {each} in {_names(scores)}" for each, scores in found.fallen)
        why = f"Smaller ranks are shown to be worse than another: {fallen}" if fallen else "No rank is smaller"
        parts = [f"It is shown to have {share}, in {names}. {why}."]
    else:
        parts = [
            f"It is shown to have {share}, in {names}; whether rank {listed(found.smaller, 'or')} has it, too, is open."
        ]
    if found.without_gain:
        parts.append(f"No rank improves {_names(found.without_gain)}, so no share of a gain is kept there.")
    if found.word == NO_WINNER and found.provisional is not None:
        parts.append(f"Rank {found.provisional} is the smallest that is not shown to fall short.")
    elif found.word == NO_WINNER:
        parts.append("Every rank is shown to fall short in some score: choose by the score that matters most.")
    return " ".join(parts)


def next_purchase(found: Decision) -> str:
    """How much more would settle it; "" where nothing is open."""
    if found.word == WINNER or not found.scores:
        return ""
    if found.seeds_now < 2:
        return "One training seed says nothing of the next: run two or more."
    if found.seeds is None and found.clips is None:
        return f"{SO_FAR}not even {MOST_SEEDS} training seeds a rank would settle it."
    options = []
    if found.seeds is not None:
        cost = "" if found.worker_hours is None else f" ({work(found.worker_hours)})"
        options.append(f"{found.seeds - found.seeds_now} more training seeds a rank{cost}")
    if found.clips is not None:
        options.append(f"{found.clips - found.clips_now} more held-out shots")
    return f"{SO_FAR}{' or '.join(options)} would settle it."


def _names(scores: Sequence[str]) -> str:
    names = [plain_name(score).partition(" (")[0] for score in scores]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def rule(share: float, level: float) -> str:
    """What "enough" means, for the page; `level`: one-sided, of the last look."""
    return (
        f"A rank is enough where its gain over the untrained model is shown to be at least {share:.0%} of that of "
        f"every other rank, at a one-sided level of {_as_percent(level)}: its confidence is then above "
        f"{_as_percent(1 - level)}. The share was "
        f"fixed before the first result (answer.share): a gain larger by less than {1 - share:.0%} is not worth the "
        "larger rank."
    )


def _as_percent(level: float) -> str:
    return f"{100 * level:.3g}%"
