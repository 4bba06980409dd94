"""What a report says of the search that its learning rates come from."""

from __future__ import annotations

from typing import Any

from analysis.report import summary
from analysis.statistics.findings import find
from analysis.study.costs import sentence, table
from analysis.study.load import load_study
from analysis.study.provenance import provenance_lines
from analysis.tables.rank_table import rank_table
from cinelora.core.files import write_json
from tests.analysis.paper_study import Builder

COMMIT = "c" * 40


def record(rate_of_four: float = 1e-4) -> dict[str, Any]:
    chosen = [
        {"targets": "cross", "rank": 4, "learning_rate": rate_of_four, "at_edge": True, "losses": {}, "lost": {}},
        {"targets": "cross", "rank": 8, "learning_rate": 1e-4, "at_edge": False, "losses": {}, "lost": {}},
    ]
    facts = {"folder": "studies/a-rates", "data": "builtin:film-select", "clips": 32, "scaling": "alpha_equals_rank"}
    cost = {"wall_seconds": 90.0, "worker_seconds": [{"train": 30.0, "generate": 20.0}, {"train": 10.0}]}
    return facts | cost | {"prune": "halving", "commits": [COMMIT], "chosen": chosen}


def test_caption_note_cost_and_provenance_name_the_search(builder: Builder) -> None:
    root = builder.build()
    write_json(builder.folder.rates, record())
    findings = find(load_study(root))
    text = summary(findings, rank_table(findings), [])
    assert (
        "each rank's learning rate was searched on 32 clips that no row here reports (studies/a-rates, 0.0167 "
        "worker-hours): 4: 0.0001, 8: 0.0001, so two ranks may differ by rate too"
    ) in text
    assert "Learning rate of rank 4 on cross: 0.0001 is at the edge of those tried; a better one may lie" in text
    alone = 5 * 8 / 3600
    assert sentence(findings.costs).endswith(
        "The search for its learning rates before it: 2 trials, 90 s wall, 1 worker-minutes; "
        f"{60 * alone + 1:.3g} worker-minutes in all."
    )
    _, rows = table(findings.costs)
    assert rows[-2] == ["search in studies/a-rates", "2", "0.67", "0.33", "1.00", "0.50", "-"]
    assert rows[-1][:2] == ["all", "7"] and findings.costs.trials == 5
    line = "Learning rates: searched in studies/a-rates, commit ccccccc."
    assert line in provenance_lines(findings.study)


def test_a_search_whose_choice_was_not_taken_is_not_named(builder: Builder) -> None:
    root = builder.build()
    write_json(builder.folder.rates, record(rate_of_four=1e-3))
    findings = find(load_study(root))
    assert findings.study.rates is None and "searched" not in summary(findings, rank_table(findings), [])
