"""The tables of the page as semantic HTML: ranks against scores, paired differences, tests, the trials behind them.

In: `Table`, `Difference`, `RankTests`, `Study`, `Estimates`. Out: HTML; every text from a study is escaped. Pure: no
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from analysis.statistics.differences import COMPARED, DIGITS, Difference
from analysis.statistics.rank_tests import RankTests, listed
from analysis.study.load import Study
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER, NONE, spec_name
from analysis.tables.formats import MARKDOWN_ARROW
from analysis.tables.rank_table import NOT_AVAILABLE, NOTHING, Cell, Column, Table, column_name

VARIES = "varies"  # the column of what differs beside the rank
TALL = 16  # rows of a table that should not push all else off the screen
NO_CELL = Cell(NOTHING)
SENSE = {LOWER: "lower is better", HIGHER: "higher is better", NONE: ""}


def rank_table_html(table: Table) -> str:
    """The rank table, scores before costs; a score that nobody could compute is told in the notes only."""
    known = [column for column in table.columns if not _absent(column) and column.name != VARIES]
    columns = sorted(known, key=lambda column: column.rank > 0)  # what a narrow terminal drops stands at the right
    head = "".join(f'<th scope="col">{_head(column.name, column.direction)}</th>' for column in columns)
    varies = next((column.cells for column in table.columns if column.name == VARIES), (NO_CELL,) * (table.rows + 1))
    *body, last = [
        _rank_row([column.cells[index] for column in columns], varies[index]) for index in range(table.rows + 1)
    ]
    parts = [f'<caption class="unseen">{escape(table.title)}</caption>', f"<thead><tr>{head}</tr></thead>"]
    parts += [f"<tbody>{''.join(body)}</tbody>", f"<tfoot>{last}</tfoot>"]
    return scrolling(f"<table>{''.join(parts)}</table>", table.title)


def differences_html(found: Sequence[Difference], label: str) -> str:
    """One line a row of the rank table, one column a score of COMPARED."""
    scores = [score for score in COMPARED if any(each.score == score for each in found)]
    by_place = {(each.row, each.score): each for each in found}
    rows = []
    for row in dict.fromkeys(each.row for each in found):
        cells = "".join(f"<td>{_difference(by_place.get((row, score)))}</td>" for score in scores)
        rows.append(f'<tr><th scope="row">{escape(row)}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{_head(column_name(score), DIRECTIONS[score])}</th>' for score in scores)
    top = f'<thead><tr><th scope="col">against the base</th>{heads}</tr></thead>'
    caption = f'<caption class="unseen">{escape(label)}</caption>'
    return scrolling(f"<table>{caption}{top}<tbody>{''.join(rows)}</tbody></table>", label)


def ranks_html(found: Sequence[RankTests], label: str) -> str:
    """One line a series and score of COMPARED."""
    rows = [_tests_row(each) for each in found if each.score in COMPARED]
    heads = ["over the ranks", "trend", "slope a doubling", "Page's p", "umbrella's p", "best rank"]
    heads += ["not told from it", "equivalent to it"]
    top = "".join(f'<th scope="col">{name}</th>' for name in heads)
    caption = f'<caption class="unseen">{escape(label)}</caption>'
    inner = f'<table class="text">{caption}<thead><tr>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return scrolling(inner, label)


def trials_html(study: Study, estimates: Estimates) -> str:
    """Every planned trial: what it is, whether it has finished, what it cost; of several studies, from which it is."""
    names = {trial_id: row.full_name for row in estimates.rows for trial_id in row.trial_ids}
    lines = []
    for trial in study.trials:
        result = trial.result
        cost = [f"{sum(result.seconds.values()):.0f}", f"{result.peak_memory_gib:.3g}", str(result.world_size)]
        own = [names[result.trial_id], str(result.seed), result.trial_id, "finished", str(result.steps), *cost]
        lines.append([*own, str(result.restarts), *([study.home(result.trial_id).name] if study.merged else [])])
    heads = ["row", "seed", "trial", "state", "steps", "seconds", "peak GiB", "processes", "restarts"]
    heads += ["study"] if study.merged else []
    missing = [
        [spec_name(each.spec.config), str(each.spec.config.seed), each.spec.trial_id, each.reason]
        + [NOTHING] * (len(heads) - 4)
        for each in (*study.missing, *study.pruned)
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(_trial_row(line) for line in [*lines, *missing])
    return scrolling(
        f'<table class="text"><caption class="unseen">Trials</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
        "Trials",
    )


def scrolling(inner: str, label: str) -> str:
    """A wide thing in a box that scrolls by itself, by keyboard too; a long one keeps its head in sight."""
    tall = " tall" if inner.count("<tr>") > TALL else ""
    return f'<div class="scroll{tall}" role="region" tabindex="0" aria-label="{escape(label)}">{inner}</div>'


def bullets(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _absent(column: Column) -> bool:
    return all(cell.text in (NOT_AVAILABLE, NOTHING) for cell in column.cells)


def _head(name: str, direction: str) -> str:
    """consistency[mnv2] on two lines with its arrow, and the arrow in words for who cannot see it."""
    head, bracket, tail = name.partition("[")
    told = f' <span class="unseen">{SENSE[direction]}</span>' if SENSE[direction] else ""
    protocol = f"<small>{escape(bracket + tail)}</small>" if bracket else ""
    return f"{escape(head)}{MARKDOWN_ARROW[direction].replace(' ', '&nbsp;')}{protocol}{told}"


def _rank_row(cells: Sequence[Cell], varies: Cell) -> str:
    """What varies beside the rank stands below it, in the column that stays in sight when the table is scrolled."""
    first, *rest = cells
    below = f"<small>{escape(varies.text)}</small>" if varies.text != NOTHING else ""
    inner = "".join(f"<td>{_cell(cell)}</td>" for cell in rest)
    return f'<tr><th scope="row">{escape(first.text)}{below}</th>{inner}</tr>'


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.mark.best else f"<u>{text}</u>" if cell.mark.tied else text
    text += "<sup>†</sup>" if cell.mark.equivalent else ""
    return f"{text}<small>{escape(cell.spread)}</small>" if cell.spread else text


def _difference(found: Difference | None) -> str:
    if found is None:
        return NOTHING
    low, high = f"{found.low:+.{DIGITS}g}", f"{found.high:+.{DIGITS}g}"
    verdict = f'<span class="{found.verdict}">{found.verdict}</span>'
    return f"{found.value:+.{DIGITS}g} {verdict}<small>{low} to {high}</small>".replace("-", "\N{MINUS SIGN}")


def _tests_row(each: RankTests) -> str:
    moved, pairs = each.trend, each.pairs
    cells = [NOTHING] * 7
    if moved is not None:
        page = min(1.0, 2 * min(moved.page_rising, moved.page_falling))
        low, high = f"{moved.slope.low:+.{DIGITS}g}", f"{moved.slope.high:+.{DIGITS}g}"
        slope = f"{moved.slope.mean:+.{DIGITS}g}<small>{low} to {high}</small>".replace("-", "\N{MINUS SIGN}")
        falling = "rising" if moved.page_rising < moved.page_falling else "falling"
        cells[:4] = [
            escape(each.word),
            slope,
            f"{_p(page)}<small>{falling}</small>",
            f"{_p(moved.umbrella_p)}<small>at rank {moved.peak}</small>",
        ]
    if pairs is not None:
        cells[4:6] = [str(pairs.best), listed(pairs.tied)]
        cells[6] = listed(pairs.equivalent) if pairs.over_base else NOTHING
    below = f"<small>{escape(each.series)}</small>" if each.series else ""
    head = f'<th scope="row">{escape(column_name(each.score))}{below}</th>'
    return f"<tr>{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _trial_row(line: Sequence[str]) -> str:
    first, *rest = line
    return f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(text)}</td>" for text in rest)}</tr>'
