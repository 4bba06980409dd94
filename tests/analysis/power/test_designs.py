"""The table of designs: what a plan prints, and what it says of the cheapest one that decides."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.power.chances import Design
from analysis.power.designs import Offer, measured, power_lines, power_table, rounds_lines, write_power
from analysis.power.rounds import look_levels
from analysis.power.spreads import Spreads, of_pilot
from cinelora.core.cli import UserError
from sweeps.looks import Looks

OFFERS = [Offer(Design(3, 96), 30.0, 3600.0, True), Offer(Design(2, 48), 12.0, 1500.0, False)]
QUICK = of_pilot()
KVD = {"kvd[tnv2]": QUICK["kvd[tnv2]"]}


def test_table_and_lines() -> None:
    table = power_table([*OFFERS, Offer(Design(8, 192), 150.0, 18000.0, False)], 6, KVD, 0.9)
    assert len(table) == 3 * 3  # designs x shapes
    lines = power_lines(table, "GPU-hours", 2.0, 0.9)
    assert lines[1].startswith("*     3    96           30   1:00:00         60")
    assert "90% is reached by 8 seeds x 192 clips, 150 GPU-hours" in lines[-1]


def test_where_no_design_is_enough_and_no_price_is_known() -> None:
    unpriced = [Offer(each.design, None, None, each.own) for each in OFFERS]
    lines = power_lines(power_table(unpriced, 6, KVD, 0.9), "GPU-hours", 2.0, 0.9)
    assert "?" in lines[1]
    assert lines[-1].endswith("90% is reached by none of these designs")


def test_a_score_on_which_no_rank_gains_has_no_chance() -> None:
    assert not power_table(OFFERS, 4, {"psnr": Spreads(-0.1, 1, 1, 1, 1, 1, 1)}, 0.9)


def test_two_ranks_that_are_alike_leave_nothing_to_tell() -> None:
    told = {each.shape: each.told for each in power_table(OFFERS, 2, KVD, 0.9)}
    assert told["flat after the middle rank"] == 1.0 and 0 < told["rising to the largest"] <= 1


def test_rounds_lines_give_chance_and_cost_by_score_and_of_all() -> None:
    looks = Looks((3, 4, 5), look_levels((3, 4, 5), 6), ())
    lines = rounds_lines(QUICK, 6, looks, 0.9, 24, lambda seeds: 1000 * seeds, "GPU-hours", 2.0)
    assert "24 clips and at most 5 seeds of a rank" in lines[0] and "(400 simulations of each)" in lines[0]
    assert lines[1].split() == ["decided", "by", "named", "winner", "seeds", "of", "a", "rank", "GPU-hours", "price"]
    assert [line.split()[0] for line in lines[2:]] == ["consistency_gap[mnv2]", "kvd[tnv2]", "held-out", "all"]
    low, high, *money = re.fullmatch(
        r" +kvd\[tnv2\] +\d+% +\d+% +([345]\.\d) to ([345]\.\d) +[345],\d{3} to [45],\d{3} +(\S+) to (\S+)", lines[3]
    ).groups()  # type: ignore[union-attr]
    assert 3 <= float(low) <= float(high) <= 5
    assert [float(each.replace(",", "")) / 2000 for each in money] == pytest.approx([float(low), float(high)], abs=0.06)
    unpriced = rounds_lines(KVD, 6, looks, 0.9, 24, lambda seeds: None, "GPU-hours", 0.0)
    assert len(unpriced) == 3 and unpriced[2].split()[-4:] == [low, "to", high, "?"]


def test_files(tmp_path: Path) -> None:
    table = power_table(OFFERS, 4, QUICK, 0.9)
    paths = write_power(table, "GPU-hours", 0.9, tmp_path)
    assert list(pd.read_csv(paths[0])["score"].unique()) == list(QUICK)
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_pilot_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="study"):
        measured(str(tmp_path))
