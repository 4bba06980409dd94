"""A study -> report/index.html: the answer, the rank table, the clips side by side, figures, protocol, in one file.

In: what `analysis/report.py` has computed, and the figures it has written. Out: one page that needs no network and no
other file, small enough to send by mail; the same bytes for the same study. Style and script are the files page_* here.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from analysis.page.clips import reel, reel_html
from analysis.statistics.differences import COMPARED, DIGITS, Difference, heading
from analysis.statistics.rank_tests import RankTests, listed
from analysis.statistics.rank_tests import heading as tests_heading
from analysis.statistics.truncation import Truncated, sentences
from analysis.study.load import WAITING, Study
from analysis.study.provenance import provenance_lines
from analysis.study.rows import Estimates
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER, NONE, spec_name
from analysis.tables.captions import protocol_lines
from analysis.tables.formats import MARKDOWN_ARROW
from analysis.tables.rank_table import NOT_AVAILABLE, NOTHING, Cell, Column, Table, column_name
from cinelora.core.files import whole_file

# ~ The tables of the page as semantic HTML: ranks against scores, paired differences, tests, the trials behind them.
# ~
# ~ In: `Table`, `Difference`, `RankTests`, `Study`, `Estimates`. Out: HTML; every text from a study is escaped.
# ~ Pure: no
# ~ files.

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


NAME = "index.html"
OPEN_LINES = 6  # a longer list of missing trials is folded
FEW_ANSWERS = 4  # more are set smaller
NO_ANSWER = "No answer yet: it takes the base and two ranks with a finished seed in common, on three clips."
SHEET = "contact_sheet"  # left out: the clips themselves are on the page
TREND_TOLD = (
    "A trend takes a slope clear of zero and Page's test over shots; a peak takes the umbrella test and slopes clear "
    "of zero on both sides: seeds that differ are not read as ranks that do."
)
OF_DIFFERENCES = "differences"  # stands below its table
OF_CUTS = "truncation"  # stands above what it says in words
CAPTIONS: Mapping[str, str] = {
    "quality_vs_rank": "Scores against the rank: one dot a seed, the line through their means; the base dashed, "
    "the real clips dotted.",
    OF_DIFFERENCES: "The same differences with their intervals; grey where the interval holds zero.",
    "learning_curves": "Losses while training. A held-out curve that still falls at its end was not finished.",
    "spectra": "What the updates use of their rank. Left their singular values, median over layers and seeds with the "
    "middle half, each curve named by its rank; right the effective rank (exponential of their entropy) of each kind "
    "of layer. Numbers: spectra.csv.",
    OF_CUTS: "Trained at a rank, or trained at the largest and cut down by SVD, which costs no training. Right the "
    "paired difference with its interval, in the colour of the better one; grey where it holds zero. Numbers: "
    "truncation.csv.",
    "pareto": "What a gain costs: gain over the base with its interval, against parameters, training time and adapter "
    "size. Filled and joined: the Pareto front of the means, nothing else costs less and gains as much; where "
    "intervals overlap another row may belong to it.",
    "per_clip": "Clip by clip: base across, rank upwards (mean over seeds); green is better than the base, with the "
    "share of clips that are, ties half.",
    "noise_floor": "What mere noise does. Above: half of the clips against the other half of the real ones; grey, real "
    "clips against real clips. Below, where the study has the base under other sampling noise: each rank against the "
    "best one; grey, what a redraw of the noise does to the base (95 %). Ranks share their noise, which takes part of "
    "it out of their differences, and the base is farther from the real clips than they are: the band is wide rather "
    "than narrow. Numbers: noise_floor.csv.",
    "fvd_vs_n": "Distances on fewer clips, mean over subsets, one seed a rank; the axis is 1/n. fvd rises as clips "
    "grow fewer (bias), kvd does not. Diamonds: the intercept of the line, the value at infinitely many clips, 95 %; "
    "hollow and dotted where there are no more clips than dimensions and no line is expected. Numbers: fvd_vs_n.csv.",
}


def write_page(
    study: Study,
    estimates: Estimates,
    table: Table,
    found: Sequence[Difference],
    tests: Sequence[RankTests],
    told: Sequence[str],
    place: Path,
    drawn: Sequence[str],
    cuts: Sequence[Truncated] = (),
) -> Path:
    """Write `place`/index.html. `drawn` names the figures that lie in `place` as PNG. Returns its path."""
    plots = {name: (place / f"{name}.png").read_bytes() for name in drawn if name != SHEET}
    text = page(study, estimates, table, found, tests, told, plots, cuts)
    with whole_file(place / NAME) as path:
        path.write_text(text, encoding="utf-8")
    return place / NAME


def page(
    study: Study,
    estimates: Estimates,
    table: Table,
    found: Sequence[Difference],
    tests: Sequence[RankTests],
    told: Sequence[str],
    plots: Mapping[str, bytes],
    cuts: Sequence[Truncated] = (),
) -> str:
    """The page as text. `plots`: figure name -> PNG."""
    clips = reel(study, estimates)
    rest = [_plot(name, png) for name, png in plots.items() if name not in (OF_DIFFERENCES, OF_CUTS)]
    rest += [_plot(OF_CUTS, plots[OF_CUTS], sentences(cuts))] if OF_CUTS in plots else []
    slots = {
        "title": escape(f"{study.name}: which LoRA rank"),
        "name": escape(study.name),
        "lead": escape(_lead(study, estimates)),
        "style": _beside("style.css"),
        "script": _beside("script.js"),
        "notice": _notice(study, table),
        "answer": _answers(told),
        "table": _ranks(table),
        "differences": _differences(found, plots.get(OF_DIFFERENCES)),
        "tests": _tests(tests),
        "reel": "" if clips is None else reel_html(clips, study),
        "figures": "<h2>Figures</h2>" + "".join(rest) if rest else "",
        "protocol": _protocol(study, table),
        "provenance": _provenance(study, estimates),
    }
    return filled(_beside("template.html"), slots)


def filled(template: str, slots: Mapping[str, str]) -> str:
    """The template with each {{slot}} filled, in one pass: a value that looks like a slot stays as it is."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: slots[match[1]], template)


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()


def _lead(study: Study, estimates: Estimates) -> str:
    return (
        f"Which LoRA rank gives the most consistent video? {len(study.trials)} of {len(study.specs)} planned trials "
        f"have finished; all are compared on the same {len(estimates.scores.clips)} held-out clips."
    )


def _notice(study: Study, table: Table) -> str:
    """What a reader must know before the first number; nothing where the study is whole."""
    parts = [f"<p><strong>{escape(table.banner)}</strong></p>"] if table.banner else []
    if study.missing:
        waiting = sum(each.reason == WAITING for each in study.missing)
        failed = len(study.missing) - waiting
        counts = " and ".join(f"{count} {state}" for count, state in ((failed, "failed"), (waiting, WAITING)) if count)
        parts.append(
            f"<p><strong>Half finished:</strong> {len(study.missing)} of {len(study.specs)} planned trials have no "
            f"result ({counts}). What follows rests on the others and may change.</p>"
        )
        unfolded = " open" if len(table.missing) <= OPEN_LINES else ""
        parts.append(f"<details{unfolded}><summary>Missing trials</summary>{bullets(table.missing)}</details>")
    return f'<section class="notice" aria-label="Read this first">{"".join(parts)}</section>' if parts else ""


def _answers(told: Sequence[str]) -> str:
    items = []
    for line in told or (NO_ANSWER,):
        score, found, rest = line.partition(": ")
        inner = f"<b>{escape(score)}</b> <span>{escape(rest)}</span>" if found else f"<span>{escape(line)}</span>"
        items.append(f"<li>{inner}</li>")
    shape = "answers" if len(items) <= FEW_ANSWERS else "answers many"
    return f'<section aria-label="Answer"><ul class="{shape}">{"".join(items)}</ul></section>'


def _ranks(table: Table) -> str:
    marks = f'<p class="soft">{escape(table.marks)}</p>' if table.marks else ""
    notes = f'<div class="soft">{bullets(table.notes)}</div>' if table.notes else ""
    further = "" if table.further is None else _further(table.further)
    return f"<h2>{escape(table.title)}</h2>{rank_table_html(table)}{marks}{notes}{further}"


def _further(table: Table) -> str:
    told = f'<p class="soft">{escape(" ".join(filter(None, [table.marks, table.caption])))}</p>'
    return f"<details><summary>{escape(table.title)}</summary>{rank_table_html(table)}{told}</details>"


def _differences(found: Sequence[Difference], plot: bytes | None) -> str:
    told = [each for each in found if each.score in COMPARED]
    if not told:
        return ""
    drawn = "" if plot is None else _plot(OF_DIFFERENCES, plot)
    note = f'<p class="soft">{escape(heading(tuple(found)))}. All scores are in differences.csv.</p>'
    return f"<h2>Against the base, clip by clip</h2>{note}{differences_html(told, 'Differences to the base')}{drawn}"


def _tests(found: Sequence[RankTests]) -> str:
    told = [each for each in found if each.score in COMPARED]
    if not told:
        return ""
    note = f'<p class="soft">{escape(tests_heading(told))}. {escape(TREND_TOLD)} All scores are in tests.csv.</p>'
    return f"<h2>Rank against rank</h2>{note}{ranks_html(told, 'Tests over the ranks')}"


def _plot(name: str, png: bytes, told: Sequence[str] = ()) -> str:
    words = escape(name.replace("_", " "))
    caption = escape(CAPTIONS.get(name, "")) or words
    caption += bullets(told) if told else ""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        f'<figure class="plot"><div role="region" tabindex="0" aria-label="{words}">'
        f'<img src="{source}" alt="{words}"></div><figcaption>{caption}</figcaption></figure>'
    )


def _protocol(study: Study, table: Table) -> str:
    lines = protocol_lines(study)
    pairs = "".join(
        f"<dt>{escape(score)}</dt><dd>{escape(rest)}</dd>"
        for score, _, rest in (line.partition(": ") for line in lines)
    )
    recorded = f"<details><summary>As the trials recorded it, score by score</summary><dl>{pairs}</dl></details>"
    return f"<h2>Protocol</h2><p>{escape(table.caption)}</p>{recorded if lines else ''}"


def _provenance(study: Study, estimates: Estimates) -> str:
    versions = _gathered(trial.result.versions for trial in study.trials)
    marks = _gathered(spec.fingerprints for spec in study.specs)
    folders = dict.fromkeys(home.folder.root.name for home in study.merged.values()) or [study.folder.root.name]
    command = " ".join(["python -m analysis.report", *(shlex.quote(f"studies/{name}") for name in sorted(folders))])
    command += " --out DIR" if study.merged else ""
    parts = [
        "<h2>Where the numbers come from</h2>",
        trials_html(study, estimates),
        *(f'<p class="soft">{escape(line)}</p>' for line in provenance_lines(study)),
        f'<p class="soft">Versions: {escape(versions or "not recorded")}.</p>',
        f'<p class="soft">Content hashes: {escape(marks)}.</p>',
        "<p>This page and all tables and figures again, from the study folder alone and without a GPU:</p>",
        f"<pre>{escape(command)}</pre>",
        '<p class="soft">The settings of each trial are in its spec.json; a trial\'s name is the hash of all that '
        "changes its result.</p>",
    ]
    return "".join(parts)


def _gathered(found: Iterable[Mapping[str, str]]) -> str:
    """Name and value over all trials; values that differ are given as a/b."""
    values: dict[str, dict[str, None]] = {}
    for each in found:
        for name, text in each.items():
            values.setdefault(name, {})[text] = None
    return ", ".join(f"{name} {'/'.join(texts)}" for name, texts in sorted(values.items()))
