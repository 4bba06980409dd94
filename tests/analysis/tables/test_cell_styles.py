"""How the cells of the rank table are styled, and what the styles look like in each format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.page.page import templates
from analysis.statistics.findings import find
from analysis.study.load import load_study
from analysis.tables.cell_styles import PLAIN, CellStyle, cell_styles, legend
from analysis.tables.markdown_latex import latex, markdown, terminal
from analysis.tables.rank_table import Table, rank_table


def html(table: Table) -> str:
    return str(templates().get_template("tables.html").module.rank_table(table))  # type: ignore[attr-defined]


def styled(study: Path, style: CellStyle) -> Table:
    """The paper table with one psnr cell, that of rank 4, in this style."""
    table = rank_table(find(load_study(study)))
    columns = []
    for column in table.columns:
        changed = [replace(cell, style=style) if cell.text == "12.00" else cell for cell in column.cells]
        columns.append(replace(column, cells=tuple(changed)))
    return replace(table, columns=tuple(columns))


@pytest.mark.parametrize(
    ("style", "in_markdown", "in_latex", "in_html", "in_terminal"),
    [
        (CellStyle(tied=True), "<u>12.00</u> [", r"\underline{12.00}", "<u>12.00</u><small>", "12.00~"),
        (
            CellStyle(tied=True, equivalent=True),
            "<u>12.00</u>† [",
            r"\underline{12.00}$^\dagger$",
            "<u>12.00</u><sup>†</sup><small>",
            "12.00~+",
        ),
        (CellStyle(equivalent=True), "12.00† [", r"12.00$^\dagger$", "12.00<sup>†</sup><small>", "12.00+"),
        (CellStyle(best=True), "**12.00** [", r"\textbf{12.00}", "<strong>12.00</strong><small>", "12.00*"),
    ],
)
def test_styles_in_every_table(
    study: Path, style: CellStyle, in_markdown: str, in_latex: str, in_html: str, in_terminal: str
) -> None:
    table = styled(study, style)
    assert f"| {in_markdown}" in markdown(table) and f"& {in_latex} &" in latex(table)
    assert f"<td>{in_html}" in html(table) and in_terminal in terminal(table, 300)


def test_the_tests_style_the_table_and_the_legend_says_how(study: Path) -> None:
    findings = find(load_study(study))
    table = rank_table(findings)
    assert "<u>12.00</u> [" in markdown(table) and "**14.50**" in markdown(table)
    words = ("Bold: the best rank, or", "Underlined: no difference from the best shown", "90% to 111%")
    assert all(each in table.legend for each in (*words, "bold only: fvd[tnv2]."))
    assert r"$^\dagger$: as good as the best (gain over the base 90\% to 111\%" in latex(table)
    assert "~ no difference from it shown" in terminal(table, 300)
    assert "Underlined" not in rank_table(replace(findings, tests=())).legend


def test_numbers_stay_below_each_other_in_a_terminal(study: Path) -> None:
    lines = terminal(styled(study, CellStyle(tied=True, equivalent=True)), 300).splitlines()
    starts = {line.index(number) for line in lines for number in (" 12.00~+", " 14.50") if number in line}
    assert len(starts) == 1


def test_series_are_styled_apart_and_only_by_their_own_best(study: Path) -> None:
    findings = find(load_study(study))
    estimates = findings.estimates
    base, four, eight = estimates.rows
    other = [replace(row, series="b", key=row.key._replace(targets="block")) for row in (four, eight)]
    both = replace(estimates, rows=(base, replace(four, series="a"), replace(eight, series="a"), *other))
    (tests,) = (each for each in findings.tests if each.score == "psnr")
    found = cell_styles("psnr", both, [replace(tests, series="b")], digits=2)
    assert found[eight.key] == CellStyle(best=True) and four.key not in found
    assert [found[row.key] for row in other] == [CellStyle(tied=True), CellStyle(best=True)]
    assert base.key not in found and "of its series" in legend(both, [], {})
    assert tests.pairs is not None
    elsewhere = replace(tests, pairs=replace(tests.pairs, best=16))  # on other seeds another rank is best
    assert found.get(four.key, PLAIN) == cell_styles("psnr", both, [elsewhere], 2).get(four.key, PLAIN) == PLAIN
