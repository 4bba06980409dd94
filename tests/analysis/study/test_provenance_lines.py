"""What the report says of code and machines, and of what was pruned."""

from __future__ import annotations

from typing import Any

from analysis.rates import markdown, searches
from analysis.report import main
from analysis.study.load import load_study
from analysis.study.merge import merged
from analysis.study.provenance import provenance_lines, warning
from cinelora.core.files import write_json
from sweeps.rates import PRUNED, Search
from tests.analysis.paper_study import SHIFTS, Builder
from tests.analysis.test_rates import rated

HERE = {"cpu": "Xeon", "cores": 8, "memory_gib": 31.9}
CARDS = {"gpus": ["H100", "H100"], "driver": "550.1", "cuda": "12.8", "nccl": "2.27.3"}


def code(commit: str, tree: str = "t", diff: str | None = None) -> dict[str, Any]:
    return {"version": "0.1.0", "commit": commit, "tree": tree, "diff_sha256": diff}


def record(builder: Builder, name: str, *codes: dict[str, Any], hardware: dict[str, Any] = HERE) -> None:
    runs = [{"workers": [{"count": 1, "code": each, "hardware": hardware}]} for each in codes]
    write_json(builder.folder.trial(name).provenance, {"runs": runs})


def test_older_studies_say_nothing(builder: Builder) -> None:
    study = load_study(builder.build())
    assert provenance_lines(study) == () and warning(study) == ""


def test_one_code_under_two_commits_is_one(builder: Builder) -> None:
    builder.build()
    for name in SHIFTS:
        record(builder, name, code("a" * 40 if name == "base" else "b" * 40))
    record(builder, "r8s1", code("b" * 40), hardware={**HERE, **CARDS})
    study = load_study(builder.folder.root)
    assert warning(study) == ""
    assert provenance_lines(study) == (
        "Code: cinelora 0.1.0, commit aaaaaaa/bbbbbbb: 5 trials.",
        "Machine: Xeon, 8 cores, 32 GiB, no GPU: 4 trials.",
        "Machine: Xeon, 8 cores, 32 GiB, 2 x H100 a process (driver 550.1, CUDA 12.8, NCCL 2.27.3): 1 trial.",
    )


def test_several_code_versions_are_told_before_all_else(builder: Builder) -> None:
    builder.build()
    old, new = code("a" * 40), code("a" * 40, diff="d" * 64)
    for name in ("base", "r4s0", "r4s1"):
        record(builder, name, old)
    record(builder, "r8s0", old, new)  # taken up again after a change; r8s1 recorded nothing
    text = (
        "trials of 3 code versions: cinelora 0.1.0, commit aaaaaaa (3 trials); cinelora 0.1.0, commit aaaaaaa, then "
        "cinelora 0.1.0, commit aaaaaaa with changes ddddddd (1 trial); not recorded (1 trial)"
    )
    assert warning(load_study(builder.folder.root)) == text
    assert main([str(builder.folder.root)]) == 0
    report = builder.folder.report
    page = (report / "index.html").read_text()
    assert page.index(text) < page.index('aria-label="Answer"')
    assert (report / "summary.md").read_text().count(text) == 1 and text in (report / "rank_table.md").read_text()


def prune(builder: Builder, name: str) -> None:
    place = builder.folder.trial(name)
    place.result.unlink()
    write_json(place.pruned, {"trial_id": name, "step": 20, "heldout_loss": 0.9, "why": "step 20: behind"})


def test_a_pruned_seed_takes_its_row_out_of_all_means(builder: Builder) -> None:
    builder.build()
    prune(builder, "r8s0")
    study = load_study(builder.folder.root)
    assert [trial.spec.trial_id for trial in study.trials] == ["base", "r4s0", "r4s1"] and study.missing == ()
    assert {each.spec.trial_id: each.reason for each in study.pruned} == {
        "r8s0": "pruned, learning rate 0.0001: step 20: behind",
        "r8s1": "pruned, learning rate 0.0001: another seed of it was pruned",
    }  # fmt: skip
    assert main([str(builder.folder.root)]) == 0
    page = (builder.folder.report / "index.html").read_text()
    assert "Pruned, and in no mean with any of its seeds: rank 8 at learning rate 0.0001." in page
    assert "pruned, learning rate 0.0001: step 20: behind" in page and "Half finished" not in page
    assert merged([study]).pruned == study.pruned


def test_a_result_after_all_counts(builder: Builder) -> None:
    builder.build()
    write_json(builder.folder.trial("r8s0").pruned, {"why": "behind"})
    assert load_study(builder.folder.root).pruned == ()


def test_a_pruned_rate_was_tried(builder: Builder) -> None:
    root = rated(builder)
    prune(builder, "r8s1")
    study = load_study(root)
    found = searches(study)
    assert found[1] == Search(8, {1e-3: 0.6}, {3e-3: PRUNED}, "cross")
    assert "| rank 8 | **0.6000** | pruned | 0.001 |" in markdown(study, found)
    assert not Search(8, {3e-3: 0.6}, {1e-3: PRUNED, 1e-2: PRUNED}).at_edge
