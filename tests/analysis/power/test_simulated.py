"""Simulated studies in rounds: they have the rule of the answer, and drop, add and stop as a sweep does."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.power.chances import Design, chances
from analysis.power.rounds import look_levels
from analysis.power.simulated import contrasts, ended, noise
from analysis.power.spreads import Spreads, of_pilot
from analysis.statistics.answer import ENOUGH, OPEN, WORSE, answer_of
from sweeps.looks import Level

SHARE, CLIPS, LEVEL = 0.9, 96, Level(0.02, 0.004)
FLAT, PEAK = (0.5, 0.75, 1.0, 1.0, 1.0, 1.0), (0.6, 0.8, 1.0, 0.8, 0.6, 0.4)
KVD = of_pilot()["kvd[tnv2]"]


def test_simulated_verdicts_are_those_of_the_analysis() -> None:
    values = KVD.gain * np.array(FLAT)[:, None, None] + noise(KVD, 6, 3, CLIPS, 6, np.random.default_rng(0))
    above, below = contrasts(values, LEVEL, SHARE)
    shots, verdicts = [str(clip) for clip in range(CLIPS)], set()
    for study, found in zip(values, zip(above, below, strict=True), strict=True):
        answer = answer_of("kvd[tnv2]", "", dict(enumerate(study)), shots, SHARE, LEVEL)
        for rank, up, down in zip(answer.ranks, *found, strict=True):
            assert rank.verdict == (ENOUGH if up.all() else WORSE if down.any() else OPEN)
            verdicts.add(rank.verdict)
    assert {WORSE, OPEN} <= verdicts


def test_rounds_buy_seeds_for_the_ranks_in_question_only() -> None:
    (found,) = ended([KVD], [PEAK], (3, 4), look_levels((3, 4), 6), SHARE, CLIPS, 40)
    assert found.found > 0.9 and 18 < found.runs < 24 and found.false == 0


def test_one_look_has_the_chance_of_a_fixed_design() -> None:
    single = (Level(0.05, 0.01),)
    found = ended([KVD], [FLAT, PEAK], (3,), single, SHARE, CLIPS, 1000)
    predicted = chances(KVD, [FLAT, PEAK], SHARE, Design(3, CLIPS))
    assert [each.found for each in found] == pytest.approx([each.named for each in predicted], abs=0.05)
    assert {each.runs for each in found} == {18.0}


def test_a_score_that_cannot_tell_keeps_every_rank_in_question() -> None:
    """A second score with a sure gain on the base and no sure order of the ranks: nothing is named, nothing won."""
    vague = Spreads(1.0, 0.1, 1e-3, 1e-3, 1e-3, 1e-3, 0.3)
    alone, both = (ended(own, [PEAK], (3, 4), [LEVEL] * 2, SHARE, CLIPS, 40)[0] for own in ([KVD], [KVD, vague]))
    assert both.won < alone.won and both.undecided > 0.5 > alone.undecided and both.runs > alone.runs


def test_without_a_gain_nothing_is_decided_or_dropped() -> None:
    (found,) = ended([Spreads(0.0, 1, 1, 1, 1, 1, 1)], [FLAT], (3, 4), [Level(1e-6, 1e-6)] * 2, SHARE, 24, 40)
    assert found.undecided == 1 and found.runs == 24
