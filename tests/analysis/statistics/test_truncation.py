"""Cut beside trained on paper numbers: rank 8 cut to 4, which was trained too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.figures.ranks import truncation
from analysis.report import main
from analysis.statistics.findings import find
from analysis.statistics.truncation import Truncated, as_csv, sentences, truncations
from analysis.study.load import load_study
from analysis.study.rows import estimate
from cinelora.core.cli import UserError
from cinelora.core.files import write_json
from cinelora.core.records import TruncationResult
from cinelora.metrics.primary import primary_scores
from tests.analysis.paper_study import Builder, write_samples

COMPARED = primary_scores(()).compared


def cut(builder: Builder, seed: int, loss: float, scored: bool = False, rank: int = 4) -> Path:
    """Rank 8 of a seed cut to `rank`; features as a trial of shift 1 has them, which make kvd 7."""
    place = builder.folder.truncation.trial(f"r8s{seed}-r{rank}")
    write_samples(place, 1.0, {"heldout_loss": loss, **({"psnr": 12.0} if scored else {})})
    write_json(place.result, TruncationResult(f"r8s{seed}", "", 8, rank, 0.75, loss, scored).to_json())
    return place.root


def found(builder: Builder) -> tuple[Truncated, ...]:
    study = load_study(builder.folder.root)
    return truncations(estimate(study))


def test_trained_minus_cut_is_paired_by_seed_and_clip(builder: Builder) -> None:
    """Trained 0.8 and 0.7, cut 0.65 twice: 0.15 and 0.05, whose mean has t(1) = 12.706 times 0.05 around it."""
    builder.build()
    for seed in (0, 1):
        cut(builder, seed, 0.65)
        cut(builder, seed, 0.6, rank=8)
    four, eight = found(builder)
    assert (four.score, four.rank, four.source_rank, four.kept) == ("heldout_loss", 4, 8, 0.75)
    assert four.cut == pytest.approx((0.65, 0.65)) and four.trained == pytest.approx((0.8, 0.7))
    pair = four.difference
    assert pair is not None and (pair.seeds, pair.shots) == (2, 3)
    assert (pair.mean, pair.low, pair.high) == pytest.approx((0.1, 0.1 - 0.635310, 0.1 + 0.635310))
    assert (four.verdict, eight.verdict) == ("undecided", "") and eight.cut == eight.trained
    assert sentences((four, eight), COMPARED) == [
        "heldout_loss: rank 8 cut to 4 gains 0.1 [-0.535, 0.735] against training rank 4 (undecided)"
    ]
    assert as_csv((four,)).splitlines()[1].startswith("heldout_loss,,8,4,0.75,0.65,0.75,0.1,")


def test_a_loss_is_told_as_one(builder: Builder) -> None:
    builder.build()
    cut(builder, 0, 0.875)
    [four] = found(builder)
    assert four.verdict == "training is better" and four.difference is not None
    assert sentences([four], COMPARED) == [
        "heldout_loss: rank 8 cut to 4 loses 0.075 [0.075, 0.075] against training rank 4"
    ]
    other = replace(four, score="psnr")
    assert other.verdict == "cut is better" and "cut to 4 gains 0.075" in sentences([other], COMPARED)[0]


def test_scores_come_with_generated_clips(builder: Builder) -> None:
    builder.build()
    cut(builder, 0, 0.65, scored=True)
    cut(builder, 1, 0.65)
    by_score = {each.score: each for each in found(builder) if each.rank == 4}
    assert set(by_score) == {"heldout_loss", "kvd[tnv2]", "psnr"}
    assert by_score["kvd[tnv2]"].cut == pytest.approx((7.0,))
    assert len(by_score["heldout_loss"].cut) == 2 and len(by_score["psnr"].cut) == 1


def test_half_finished_and_foreign_cuts(builder: Builder) -> None:
    builder.build(only=("base", "r8s0", "r8s1"))
    assert found(builder) == ()
    cut(builder, 0, 0.65)
    [four] = found(builder)  # nothing was trained at rank 4: the cut stands alone
    assert four.trained == () and four.difference is None and sentences([four], COMPARED) == []
    assert truncation(find(load_study(builder.folder.root))) is not None
    builder.edit_json(builder.folder.trial("r8s0").result, adapter_sha256="trained again")
    assert found(builder) == ()


def test_bad_files_are_named(builder: Builder) -> None:
    builder.build()
    place = cut(builder, 0, 0.65)
    scores = place / "clip_scores.csv"
    whole = scores.read_text()
    scores.write_text("".join(line for line in whole.splitlines(keepends=True) if not line.startswith("c1")))
    with pytest.raises(UserError, match="lacks clips of the study"):
        found(builder)
    scores.write_text(whole)
    builder.edit_json(place / "result.json", unknown=1)
    with pytest.raises(UserError, match="not a cut this program reads"):
        found(builder)


def test_the_report_shows_what_is_there(builder: Builder) -> None:
    root = builder.build()
    assert main([str(root)]) == 0
    assert not list((root / "report").glob("truncation*"))
    cut(builder, 0, 0.65)
    assert main([str(root)]) == 0
    assert {path.suffix for path in (root / "report").glob("truncation*")} == {".csv", ".png", ".pdf"}
    line = "rank 8 cut to 4 gains 0.15"
    assert line in (root / "report" / "summary.md").read_text()
    assert line in (root / "report" / "index.html").read_text()
