"""What a study looks like in W&B: one saved workspace view and one report. Sends nothing.

In: a `Board`, the study's own facts. Out: `wandb_workspaces` objects, whose `_to_model()` is what would be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces
from wandb_workspaces import expr

REPORT_JOB = "report"  # job type of the run that holds the figures; all other runs are trials
SPLITTERS = ("targets", "scaling", "alpha", "learning_rate", "steps", "model")  # what may vary below a row
CURVES = ("train/heldout_loss", "train/loss", "train/grad_norm", "train/learning_rate")
FULL_WIDTH = 24  # columns of a report's grid


@dataclass(frozen=True)
class Board:
    """`scores`, `costs`: summary keys; `curves`: history keys; `clips`, `figures`: media keys. All as logged."""

    study: str
    configs: tuple[Mapping[str, Any], ...]  # flat_config of each finished trial
    scores: tuple[str, ...]
    costs: tuple[str, ...]
    curves: tuple[str, ...]
    clips: tuple[str, ...]
    figures: tuple[str, ...]
    figures_run: str  # id of the run that holds them
    answer: str  # Markdown: what is missing, the sentences
    before: str  # Markdown: the report's text above its figures
    after: str  # and below


@dataclass(frozen=True)
class Place:
    entity: str
    project: str


def grouping(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The config keys that make a group one row of the rank table: `row`, then what else differs within a row."""
    keys = ["row"]
    for key in SPLITTERS:
        found: dict[tuple[Any, ...], set[Any]] = {}
        for config in configs:
            found.setdefault(tuple(config[name] for name in keys), set()).add(config[key])
        if any(len(values) > 1 for values in found.values()):
            keys.append(key)
    return keys


def workspace(board: Board, place: Place) -> Any:
    """The view "study NAME": trials of this study alone, grouped by rank."""
    columns = [f"summary:{key}" for key in board.scores[:3]]
    return workspaces.Workspace(
        entity=place.entity,
        project=place.project,
        name=f"study {board.study}",
        sections=[section for section in _sections(board) if section.panels],
        settings=workspaces.WorkspaceSettings(max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=[expr.Metric("Group") == board.study, expr.Metric("JobType") != REPORT_JOB],
            groupby=[expr.Config(key) for key in grouping(board.configs)],
            order=[expr.Ordering(expr.Config(key), ascending=True) for key in ("rank", "seed")],
            pinned_columns=["run:displayName", *columns],
        ),
    )


def report(board: Board, place: Place) -> Any:
    """The page: what was found, our figures, then the live panels. Builds offline: its run sets name no project."""
    figures = reports.Runset(name="figures", filters=[expr.Metric("ID") == board.figures_run])
    trials = reports.Runset(
        name=board.study,
        filters=[expr.Metric("Group") == board.study, expr.Metric("JobType") != REPORT_JOB],
        groupby=[f"config.{key}" for key in grouping(board.configs)],
        order=[reports.OrderBy(reports.Config("rank"), ascending=True)],
    )
    wide = reports.Layout(w=FULL_WIDTH, h=14)
    pictures: list[Any] = [reports.MediaBrowser(media_keys=[key], num_columns=1, layout=wide) for key in board.figures]
    live = [*quality_panels(board.scores), *curve_panels(board.curves), *clip_panels(board.clips)]
    blocks: list[Any] = [reports.MarkdownBlock(board.before)]
    if pictures:
        blocks += [reports.H2("Figures"), reports.PanelGrid(runsets=[figures], panels=pictures, hide_run_sets=True)]
    blocks += [reports.H2("Runs"), reports.PanelGrid(runsets=[trials], panels=[*live, comparer()])]
    return reports.Report(
        entity=place.entity,
        project=place.project,
        title=f"{board.study}: quality against rank"[:128],
        blocks=[*blocks, *([reports.MarkdownBlock(board.after)] if board.after else [])],
        width="fluid",
    )


def _sections(board: Board) -> list[Any]:
    answer = [reports.MarkdownPanel(markdown=board.answer)]
    cost = [bars(key) for key in board.costs]
    return [
        _section("Answer", answer, columns=1),
        _section("Quality against rank", quality_panels(board.scores)),
        _section("Rows of the rank table", [bars(key) for key in board.scores]),
        _section("Learning curves", curve_panels(board.curves), columns=2),
        _section("Clips", clip_panels(board.clips), columns=2),
        _section("Cost", cost),
        _section("Runs compared", [comparer(), coordinates(board.scores)], columns=1),
    ]


def _section(name: str, panels: Iterable[Any], columns: int = 3) -> Any:
    panels = list(panels)
    rows = max(1, min(3, -(-len(panels) // columns)))
    layout = workspaces.SectionLayoutSettings(columns=columns, rows=rows)
    return workspaces.Section(name=name, panels=panels, is_open=True, layout_settings=layout)


def title(key: str) -> str:
    return key.partition("/")[2].replace("_", " ")


def quality_panels(scores: Iterable[str]) -> list[Any]:
    """One dot a trial over log rank; rank 0 (base, full) has no place there and stands in the bars."""
    return [
        reports.ScatterPlot(
            title=f"{title(key)} against rank", x=reports.Config("rank"), y=reports.SummaryMetric(key), log_x=True
        )
        for key in scores
    ]


def bars(key: str) -> Any:
    """Mean over seeds of each group of the run table, with the range from the worst to the best."""
    return reports.BarPlot(title=title(key), metrics=[key], groupby_aggfunc="mean", groupby_rangefunc="minmax")


def curve_panels(curves: Iterable[str]) -> list[Any]:
    return [
        reports.LinePlot(
            title=title(key),
            x="Step",
            y=[key],
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=100,
        )
        for key in curves
    ]


def clip_panels(clips: Iterable[str]) -> list[Any]:
    return [reports.MediaBrowser(title=title(key), media_keys=[key], num_columns=4) for key in clips]


def comparer() -> Any:
    return reports.RunComparer(diff_only="split", layout=reports.Layout(w=FULL_WIDTH, h=9))


def coordinates(scores: Sequence[str]) -> Any:
    """One line a trial: what was set, what came out."""
    columns: list[Any] = [reports.Config(key) for key in ("rank", "learning_rate", "seed")]
    columns += [reports.SummaryMetric(key) for key in scores[:4]]
    return reports.ParallelCoordinatesPlot(
        columns=[reports.ParallelCoordinatesPlotColumn(metric=each) for each in columns]
    )
