"""One decision over all primary scores, from verdicts written down by hand."""

from __future__ import annotations

import pytest

from analysis.statistics.answer import ENOUGH, OPEN, WORSE, Answer, RankVerdict
from analysis.statistics.decision import IS_ENOUGH, NO_WINNER, WINNER, decide, decisions, sentence
from analysis.statistics.findings import find
from analysis.statistics.intervals import Interval
from analysis.study.load import load_study
from tests.analysis.paper_study import Builder

RANKS = (1, 4, 8)
GAIN = Interval(1.0, 0.9, 1.1, seeds=3, shots=96)
HOUR = dict.fromkeys(RANKS, 1200.0)  # seconds of a seed


def verdict(
    rank: int, word: str, promising: bool = True, seeds: int | None = None, clips: int | None = None
) -> RankVerdict:
    return RankVerdict(rank, GAIN, GAIN, 8, 0.5, word, promising, seeds, clips)


def answer(score: str, *ranks: RankVerdict, gained: bool = True) -> Answer:
    return Answer(score, "", 0.9, gained, ranks)


def words(score: str, *verdicts: str, gained: bool = True) -> Answer:
    return answer(score, *map(verdict, RANKS, verdicts), gained=gained)


@pytest.mark.parametrize(
    ("first", "second", "word", "rank", "smaller", "provisional"),
    [
        ((WORSE, ENOUGH, ENOUGH), (ENOUGH, ENOUGH, ENOUGH), WINNER, 4, (), 4),
        ((ENOUGH, ENOUGH, ENOUGH), (ENOUGH, ENOUGH, ENOUGH), WINNER, 1, (), 1),
        ((OPEN, ENOUGH, ENOUGH), (ENOUGH, ENOUGH, ENOUGH), IS_ENOUGH, 4, (1,), 1),
        ((OPEN, ENOUGH, ENOUGH), (WORSE, ENOUGH, ENOUGH), WINNER, 4, (), 4),
        ((OPEN, ENOUGH, ENOUGH), (ENOUGH, OPEN, ENOUGH), IS_ENOUGH, 8, (1, 4), 1),
        ((WORSE, OPEN, OPEN), (ENOUGH, ENOUGH, ENOUGH), NO_WINNER, None, (), 4),
        ((WORSE, ENOUGH, WORSE), (ENOUGH, WORSE, WORSE), NO_WINNER, None, (), None),
    ],
)
def test_decision_over_two_scores(
    first: tuple[str, ...],
    second: tuple[str, ...],
    word: str,
    rank: int | None,
    smaller: tuple[int, ...],
    provisional: int | None,
) -> None:
    found = decide([words("kvd[i3d]", *first), words("heldout_loss", *second)], HOUR)
    assert (found.word, found.rank, found.smaller, found.provisional) == (word, rank, smaller, provisional)


def test_a_score_without_a_gain_rules_ranks_out_but_keeps_none() -> None:
    flat = words("consistency[mnv2]", WORSE, OPEN, OPEN, gained=False)
    found = decide([flat, words("heldout_loss", ENOUGH, ENOUGH, ENOUGH)], HOUR)
    assert (found.word, found.rank, found.without_gain) == (WINNER, 4, ("consistency[mnv2]",))
    assert "No rank improves steadiness," in sentence(found)
    none = decide([flat], HOUR)
    assert none.word == NO_WINNER and "No rank is shown to improve on the untrained model" in sentence(none)


def test_what_would_settle_it() -> None:
    """Rank 1 is to be shown to fail one score, the cheaper; rank 4 to pass both; 8 then does not matter."""
    found = decide(
        [
            answer(
                "kvd[i3d]",
                verdict(1, OPEN, False, 7, 300),
                verdict(4, OPEN, True, 9, None),
                verdict(8, OPEN, True, 40, 40),
            ),
            answer("heldout_loss", verdict(1, OPEN, False, 12, 200), verdict(4, ENOUGH), verdict(8, ENOUGH)),
        ],
        HOUR,
    )
    assert (found.seeds, found.clips, found.worker_hours) == (9, None, 6 * 1.0)
    assert sentence(found).endswith(
        "Rank 1 is the smallest that is not shown to fall short. Judging by the results so far, 6 more training seeds "
        "a rank (6 worker-hours) would settle it."
    )
    enough = decide([answer("kvd[i3d]", verdict(1, OPEN, True, 5, 120), verdict(4, ENOUGH), verdict(8, ENOUGH))], HOUR)
    assert (enough.word, enough.rank, enough.seeds, enough.clips) == (IS_ENOUGH, 4, 5, 120)
    assert "whether rank 1 has it, too, is open" in sentence(enough)
    assert "or 24 more held-out shots would" in sentence(enough)


def test_a_winner_needs_nothing_more() -> None:
    found = decide([words("kvd[i3d]", WORSE, ENOUGH, OPEN)], HOUR)
    assert (found.word, found.seeds, found.clips) == (WINNER, None, None)
    assert sentence(found) == (
        "Decision: rank 4 is the winner. It is shown to have at least 90% of the best gain over the untrained model, "
        "in distance to real clips. Smaller ranks are shown to be worse than another: rank 1 in distance to real clips."
    )
    assert "No rank is smaller." in sentence(decide([words("kvd[i3d]", ENOUGH, ENOUGH, OPEN)], HOUR))


def test_the_cost_is_that_of_finished_trials(builder: Builder) -> None:
    """Ranks 4 and 8, 8 seconds a trial."""
    found = find(load_study(builder.build()))
    (decision,) = found.decisions
    assert decision == decisions(found.estimates, found.answers)[0]
    if decision.seeds is not None:
        assert decision.worker_hours == pytest.approx((decision.seeds - 2) * 16 / 3600)
