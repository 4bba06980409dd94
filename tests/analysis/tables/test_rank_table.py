"""The rank table as text: cells known on paper, bold where it may be, n/a with a reason."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.statistics.findings import find
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.tables.csv_files import rank_csv
from analysis.tables.markdown_latex import latex, markdown, terminal
from analysis.tables.rank_table import Table, decimals, rank_table, short_count
from tests.analysis.paper_study import Builder


def table_of(root: Path) -> Table:
    """Without tests, so that only the best cells are styled."""
    return rank_table(replace(find(load_study(root)), tests=()))


def lines(text: str) -> dict[str, list[str]]:
    """Markdown table rows by their first cell."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row for row in rows}


def test_markdown_cells(study: Path) -> None:
    rows = lines(markdown(table_of(study)))
    head, four = rows["rank"], rows["4"]
    cell = dict(zip(head, four, strict=True))
    assert cell["alpha"] == "4" and cell["scale"] == "1" and cell["parameters"] == "12.3k"
    assert cell["adapter MB"] == "0.05" and cell["s/step"] == "0.25" and cell["seeds"] == "2/2"
    assert cell["psnr ↑"] == "12.00 [11.00..13.00]" and cell["fvd[tnv2] ↓"] == "2.500 [1.000..4.000]"
    assert cell["held-out loss ↓"] == "0.7500 [0.7000..0.8000]" and cell["lpips"] == "n/a"
    real = dict(zip(head, rows["real clips"], strict=True))
    assert real["motion[absdiff]"] == "2.100" and real["consistency[mnv2] ↑"] == "0.9700" and real["psnr ↑"] == "-"


def test_best_is_bold_and_a_frozen_video_never_wins(study: Path) -> None:
    text = markdown(table_of(study))
    rows = lines(text)
    base, eight = (dict(zip(rows["rank"], rows[name], strict=True)) for name in ("base", "8"))
    assert eight["psnr ↑"].startswith("**14.50**")
    assert eight["consistency[mnv2] ↑"].startswith("0.9450") and base["consistency[mnv2] ↑"] == "0.9900"
    assert base["consistency_gap[mnv2] ↓"].startswith("**0.02000**"), "nearest to the real clips, which have 0.97"
    assert "**" not in eight["motion[absdiff]"]
    assert "Never bold, because a frozen clip would be best: consistency[mnv2], image_similarity[mnv2]." in text


def test_equal_numbers_share_the_bold(study: Path) -> None:
    rows = lines(markdown(table_of(study)))
    column = rows["rank"].index("ssim ↑")
    assert [rows[name][column].startswith("**0.5000**") for name in ("base", "4", "8")] == [True] * 3


def test_untrained_base_has_a_banner_and_no_bold(builder: Builder) -> None:
    table = table_of(builder.build(trained=False))
    assert "**untrained base: plumbing only**" in markdown(table) and "untrained base" in latex(table)
    assert not any(cell.style.best for column in table.columns for cell in column.cells)


def test_a_row_alone_has_no_best(builder: Builder) -> None:
    table = table_of(builder.build(only=("r4s0",)))
    assert not any(cell.style.best for column in table.columns for cell in column.cells)


def test_captions_tell_the_protocol(study: Path) -> None:
    caption = table_of(study).caption
    for words in (
        "3 held-out clips of 5 frames at 16 fps, 32x32 pixels",
        "first frame, given to the model, is not scored",
        "unbiased polynomial MMD of degree 3",
        "covariances divided by N-1",
        "standardised by the 3 real clips",
        "alpha = rank, update scale 1",
    ):
        assert words in caption


def test_unavailable_and_missing_are_told(builder: Builder) -> None:
    root = builder.build(only=("base", "r4s0"))
    builder.fail("r8s1", "out of memory")
    text = markdown(table_of(root))
    assert "lpips: n/a (needs LPIPS weights)." in text
    assert "- rank 4, seed 1 (trial r4s1): queued or running" in text
    assert "- rank 8, seed 1 (trial r8s1): failed (out_of_memory): out of memory" in text
    rows = lines(text)
    four, eight = (dict(zip(rows["rank"], rows[name], strict=True)) for name in ("4", "8"))
    assert four["seeds"] == "1/2" and eight["seeds"] == "0/2" and eight["psnr ↑"] == "-"


def test_no_features_is_told(builder: Builder) -> None:
    root = builder.build()
    builder.reference.features("tnv2").unlink()
    text = markdown(table_of(root))
    assert "kvd[tnv2]: n/a (reference/features/tnv2.npz is missing)." in text
    assert lines(text)["4"][lines(text)["rank"].index("kvd[tnv2] ↓")] == "n/a"


def test_csv_has_all_digits(study: Path) -> None:
    loaded = load_study(study)
    rows = list(csv.DictReader(io.StringIO(rank_csv(estimate(loaded), {}))))
    four = next(row for row in rows if row["rank"] == "4")
    assert float(four["kvd[tnv2]"]) == pytest.approx((7 + 136) / 2)
    assert (four["psnr"], four["psnr_min"], four["psnr_max"], four["psnr_seeds"]) == ("12", "11", "13", "2")
    assert four["lpips"] == "n/a" and rows[-1]["row"] == "real clips" and rows[-1]["motion[absdiff]"] == "2.1"


def test_latex_is_booktabs_and_escaped(study: Path) -> None:
    text = latex(table_of(study))
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1 and r"\hline" not in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len({line.count("&") for line in body}) == 1, "every line has the same number of cells"
    assert r"\textbf{14.50}" in text and r"{\tiny 14.00--15.00}" in text and r"consistency\_gap" in text
    assert not any(line.lstrip().startswith("[") for line in text.splitlines())


def test_terminal_fits_and_aligns(study: Path) -> None:
    table = table_of(study)
    for width in (100, 140, 300):
        rows = terminal(table, width).splitlines()
        assert max(map(len, rows)) <= width
        assert rows[0].startswith("rank") and any(row.startswith("real clips") for row in rows)
    assert "left out for width" in terminal(table, 100) and "left out" not in terminal(table, 300)


def test_counts_and_decimals() -> None:
    assert [short_count(n) for n in (0, 999, 12288, 1_500_000)] == ["0", "999", "12.3k", "1.5M"]
    assert [decimals([x]) for x in (625.5, 11.3, 0.92, 0.00012, 0.0, 12345.0)] == [1, 2, 4, 6, 2, 0]
