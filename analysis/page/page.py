"""A study -> report/index.html: the answer, the rank table, the clips side by side, figures, protocol, in one file.

In: the findings and the rank table, and the figures that `analysis/figures/draw.py` has written. Out: one page that
needs no network and no other file, small enough to send by mail; the same bytes for the same study. The words are in
`template.html`, its tables in `tables.html`, the clips in `clips.html`; every value from a study is escaped.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from analysis.figures.draw import FIGURES
from analysis.page.clips import reel
from analysis.page.first_screen import first_screen
from analysis.statistics import differences, rank_tests, steadiness, truncation
from analysis.statistics.decision import rule
from analysis.statistics.differences import DIGITS
from analysis.statistics.findings import Findings, answer_lines
from analysis.study import costs
from analysis.study.load import WAITING, Study
from analysis.study.provenance import provenance_lines
from analysis.study.rows import Estimates, distinct
from analysis.study.scores import DIRECTIONS, HIGHER, LOWER, NONE, spec_name
from analysis.tables.captions import protocol_lines
from analysis.tables.markdown_latex import MARKDOWN_ARROW
from analysis.tables.rank_table import NOT_AVAILABLE, NOTHING, Cell, Column, Table, column_name
from analysis.votes import results
from cinelora.core.config import seed_text
from cinelora.core.files import whole_file

NAME = "index.html"
HERE = Path(__file__).parent
NOT_SHOWN = "contact_sheet"  # the clips themselves are on the page
VARIES = "varies"  # the column of what varies besides the rank


def write_page(findings: Findings, table: Table, drawn: Sequence[str], folder: Path) -> Path:
    """Write `folder`/index.html. `drawn` names the figures that lie in `folder` as PNG. Returns its path."""
    text = page(findings, table, {name: (folder / f"{name}.png").read_bytes() for name in drawn if name != NOT_SHOWN})
    with whole_file(folder / NAME) as path:
        path.write_text(text, "utf-8", "backslashreplace")
    return folder / NAME


def page(findings: Findings, table: Table, pictures: Mapping[str, bytes]) -> str:
    """The page as text. `pictures`: figure name -> PNG."""
    study, estimates = findings.study, findings.estimates
    shown = estimates.primary.compared
    compared = [each for each in findings.differences if each.score in shown]
    tested = [each for each in findings.tests if each.score in shown]
    figures = {
        name: {"title": name.replace("_", " "), "caption": FIGURES[name].caption, "png": base64.b64encode(png).decode()}
        for name, png in pictures.items()
    }
    return (
        templates()
        .get_template("template.html")
        .render(
            style=Markup((HERE / "style.css").read_text(encoding="utf-8").strip()),
            script=Markup((HERE / "script.js").read_text(encoding="utf-8").strip()),
            study=study,
            estimates=estimates,
            table=table,
            waiting=sum(each.reason == WAITING for each in study.missing),
            answers=answer_lines(findings),
            first=first_screen(findings),
            rule=rule(study.share, max(each.level for each in findings.answers)) if findings.decisions else "",
            compared=shown,
            differences=compared,
            steady=steadiness.sentences(estimates, findings.differences, findings.tests, findings.matched),
            differences_heading=differences.heading(findings.differences) if compared else "",
            tests=tested,
            rates_note=rank_tests.rates_note(estimates),
            tests_heading=rank_tests.heading(tested) if tested else "",
            reel=reel(estimates),
            votes_heading=results.heading(),
            votes=results.sentences(findings.votes) if findings.votes else [],
            cost=costs.sentence(findings.costs),
            cost_table=costs.table(findings.costs),
            figures=figures,
            truncation_lines=truncation.sentences(findings.truncations, shown),
            protocol=protocol_lines(study),
            trials=trial_lines(estimates),
            provenance=provenance_lines(study),
            versions=_gathered(trial.result.versions for trial in study.trials),
            fingerprints=_gathered(spec.fingerprints for spec in study.specs),
            command=_command(study),
        )
    )


def templates() -> jinja2.Environment:
    """The templates beside this file, with the filters and facts they use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {
        "signed": lambda value: f"{value:+.{DIGITS}g}".replace("-", "\N{MINUS SIGN}"),
        "p_value": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    }
    environment.globals |= {
        "arrow": {direction: text.replace(" ", "\N{NO-BREAK SPACE}") for direction, text in MARKDOWN_ARROW.items()},
        "sense": {LOWER: "lower is better", HIGHER: "higher is better", NONE: ""},
        "directions": DIRECTIONS,
        "column_name": column_name,
        "listed": rank_tests.listed,
        "page_columns": page_columns,
    }
    return environment


def page_columns(table: Table) -> tuple[list[Column], tuple[Cell, ...] | None]:
    """The columns with a number, scores before costs; the cells of what varies besides the rank, if anything does."""
    known = [
        column for column in table.columns if any(cell.text not in (NOT_AVAILABLE, NOTHING) for cell in column.cells)
    ]
    varies = next((column.cells for column in known if column.name == VARIES), None)
    shown = [column for column in known if column.name != VARIES]
    return sorted(shown, key=lambda column: column.drop_order > 1), varies  # 1: a score


def trial_lines(estimates: Estimates) -> list[list[object]]:
    """Every planned trial: what it is, whether it has finished, what it cost; of several studies, which it is from."""
    study = estimates.study
    names = {trial_id: row.full_name for row in estimates.rows for trial_id in row.trial_ids}
    lines: list[list[object]] = []
    for result in (trial.result for trial in study.trials):
        cost = [f"{sum(result.seconds.values()):.0f}", f"{result.peak_memory_gib:.3g}", result.world_size]
        own = [
            names[result.trial_id],
            seed_text(result.seed),
            result.trial_id,
            "finished",
            result.steps,
            *cost,
            result.restarts,
        ]
        lines.append([*own, *([study.home(result.trial_id).name] if study.merged else [])])
    for each in (*study.missing, *study.pruned):
        own = [spec_name(each.spec.config), seed_text(each.spec.config.seed), each.spec.trial_id, each.reason]
        lines.append(own + [NOTHING] * (6 if study.merged else 5))
    return lines


def _gathered(found: Iterable[Mapping[str, str]]) -> str:
    """Name and value over all trials; values that differ are given as a/b."""
    return ", ".join(f"{name} {'/'.join(texts)}" for name, texts in sorted(distinct(found).items()))


def _command(study: Study) -> str:
    """How to draw the report again, from the folder that holds `studies/`."""
    homes = list(study.merged.values()) or [study]
    names = sorted({home.folder.root.name for home in homes})
    command = shlex.join(["python", "-m", "analysis.report", *(f"studies/{name}" for name in names)])
    return command + (" --out DIR" if study.merged else "")
