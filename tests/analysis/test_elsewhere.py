"""The report of a study of finished clips alone, and of adapters that were trained elsewhere, says what is unknown."""

from __future__ import annotations

from analysis.figures.pareto import pareto
from analysis.figures.style import rate_label
from analysis.page.clips import reel
from analysis.page.first_screen import first_screen
from analysis.statistics.findings import Findings, find
from analysis.study.load import load_study
from analysis.tables.rank_table import rank_table
from cinelora.core.config import UNKNOWN_SEED
from tests.analysis.paper_study import SHIFTS, Builder


def clips_alone(builder: Builder) -> Findings:
    builder.build()
    for name in SHIFTS:
        rank = 0 if name == "base" else int(name[1])
        lora = {"rank": 8, "alpha": 1.0}  # as it is by itself: not the rank of the clips
        builder.adopt(name, method="clips", clips_rank=rank, clips_sha256=name, lora=lora)
        changes = {
            "trainable_parameters": 0,
            "adapter_bytes": 0,
            "seconds_per_step": None,
            "seconds": {"score": 1.0},
            "heldout_loss": None,
        }
        builder.edit_json(builder.folder.trial(name).result, method="clips", **changes)
        builder.rewrite_scores(name, lambda clip, metric: metric != "heldout_loss")
    return find(load_study(builder.folder.root))


def test_what_is_unknown_of_finished_clips_is_no_number(builder: Builder) -> None:
    findings = clips_alone(builder)
    table = rank_table(findings)
    for name in ("alpha", "scale", "parameters", "adapter MB", "s/step"):
        (column,) = [column for column in table.columns if column.name == name]
        assert {cell.text for cell in column.cells} == {"-"}, name
    assert "heldout_loss: n/a (finished clips have no model to ask)." in table.notes
    assert findings.differences, "they are compared with the base"
    assert pareto(findings) is None, "nothing is known of what they cost"


def test_the_page_claims_nothing_of_models_it_does_not_know(builder: Builder) -> None:
    findings = clips_alone(builder)
    shown = reel(findings.estimates)
    assert shown is not None and shown["elsewhere"]
    assert first_screen(findings).toy == ""


def test_time_is_unknown_of_adapters_that_were_trained_elsewhere(builder: Builder) -> None:
    builder.build()
    for name in ("r4s0", "r4s1"):
        builder.adopt(name, seed=UNKNOWN_SEED if name == "r4s1" else 0, trainer="musubi-tuner")
        builder.edit_json(builder.folder.trial(name).result, method="adapter", seconds={"score": 1.0})
    findings = find(load_study(builder.folder.root))
    assert all(line[:1].isupper() for line in first_screen(findings).verdicts)
    figure = pareto(findings)
    assert figure is not None
    lines = [len(axes.lines) for axes in figure.axes[:3]]  # the front, and three of each point
    assert lines == [7, 4, 7], "against time, rank 8 alone"
    assert [rate_label(rate) for rate in (0.0, 1e-4)] == ["learning rate unknown", "learning rate 0.0001"]
