"""Chances drawn from means and Wishart matrices are those of drawn clips under the rule of the answer."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.power.chances import Design, chances, shapes
from analysis.power.spreads import Spreads, spreads
from analysis.statistics.intervals import crossed_interval
from analysis.study.files import Array

SPREADS = Spreads(gain=1.0, clip=1.0, rank_clip=0.2, seed_clip=0.3, rest=0.4, seed=0.1, rank_seed=0.05)


def _gains(own: Spreads, shares: tuple[float, ...], seeds: int, clips: int, random: np.random.Generator) -> Array:
    def part(spread: float, *shape: int) -> Array:
        return spread * random.standard_normal(shape)

    ranks = len(shares)
    means = own.gain * np.array(shares)[:, None, None]
    of_clips = part(own.clip, 1, 1, clips) + part(own.rank_clip, ranks, 1, clips) + part(own.seed_clip, 1, seeds, clips)
    of_seeds = part(own.seed, 1, seeds, 1) + part(own.rank_seed, ranks, seeds, 1)
    return np.asarray(means + of_clips + of_seeds + part(own.rest, ranks, seeds, clips))


@pytest.mark.parametrize("design", [Design(2, 24), Design(3, 48), Design(6, 12)])
def test_chances_are_those_of_drawn_clips(design: Design) -> None:
    shares, share, random = (0.6, 1.0, 1.0), 0.8, np.random.default_rng(1)
    shots = [str(clip) for clip in range(design.clips)]
    named, told = [], []
    for _ in range(400):
        gains = _gains(SPREADS, shares, design.seeds, design.clips, random)
        enough = [
            all(crossed_interval(gains[rank] - share * gains[other], shots, 0.9).low > 0 for other in range(3))
            for rank in range(3)
        ]
        named.append(enough[1] and not enough[0])
        told.append(crossed_interval(gains[1] - gains[0], shots).excludes_zero)
    (found,) = chances(SPREADS, [shares], share, design)
    assert found.named == pytest.approx(np.mean(named), abs=0.07)  # 2.8 standard errors at a half
    assert found.told[0] == pytest.approx(np.mean(told), abs=0.07)
    assert found.wrong < 0.02
    assert 0.1 < found.named < 0.97  # or the comparison says little


def test_more_seeds_and_more_clips_tell_more() -> None:
    flat = [shapes(4)["flat after the middle rank"]]
    few, seeds, clips = (chances(SPREADS, flat, 0.9, Design(*each))[0].named for each in ((2, 24), (8, 24), (8, 192)))
    assert few < seeds < clips


def test_without_spread_every_rank_is_known() -> None:
    still = Spreads(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for found in chances(still, list(shapes(3).values()), 0.9, Design(2, 8)):
        assert (found.named, found.wrong) == (1.0, 0.0)


def test_spreads_are_recovered_and_a_common_factor_is_no_rank_effect() -> None:
    random = np.random.default_rng(2)
    found = spreads(_gains(SPREADS, (1.0,) * 12, 24, 200, random))
    for name in ("clip", "rank_clip", "seed_clip", "rest", "seed", "rank_seed"):
        assert getattr(found, name) == pytest.approx(getattr(SPREADS, name), rel=0.25), name
    clips = 1 + random.standard_normal(50)
    scaled = np.array([0.5, 1.0])[:, None, None] * clips + np.zeros((2, 3, 1))
    assert spreads(scaled).rank_clip == pytest.approx(0.0, abs=1e-9)
    assert spreads(scaled).gain == pytest.approx(clips.mean())
    with pytest.raises(ValueError, match="give"):
        spreads(np.zeros((2, 1, 4)))


def test_shapes_reach_the_whole_gain_and_start_below_it() -> None:
    for count in (2, 3, 4, 6):
        for name, shares in shapes(count).items():
            assert len(shares) == count and max(shares) == pytest.approx(1.0), name
    assert shapes(6)["flat after the middle rank"] == (0.5, 0.75, 1.0, 1.0, 1.0, 1.0)
