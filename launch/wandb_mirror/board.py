"""How a study looks in W&B: one saved workspace view and one report. Sends nothing.

In: a `Board`, what the study folder holds. Out: `wandb_workspaces` objects, whose `_to_model()` is what would be sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces
from wandb_workspaces import expr

FIGURES_JOB = "report"  # job type of the run that holds the figures; all other runs are trials
SPLITTERS = ("targets", "scaling", "alpha", "learning_rate", "steps", "model")  # config keys that may split a row
CURVES = ("train/heldout_loss", "train/loss", "train/grad_norm", "train/learning_rate")
FULL_WIDTH = 24  # columns of a report's grid
COLUMNS = {"Answer": 1, "Learning curves": 2, "Clips": 2, "Runs compared": 1}  # of a section's panels; otherwise 3
OVER_GROUP: Mapping[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}


class Place(NamedTuple):
    entity: str
    project: str


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


def grouping(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The config keys that make a group one row of the rank table: `row`, then what else differs within a row."""
    keys = ["row"]
    for key in SPLITTERS:
        groups = {tuple(config[name] for name in keys) for config in configs}
        if len({tuple(config[name] for name in (*keys, key)) for config in configs}) > len(groups):
            keys.append(key)
    return keys


def workspace(board: Board, place: Place) -> Any:
    """The view "study NAME": the trials of this study, grouped by rank."""
    return workspaces.Workspace(
        entity=place.entity,
        project=place.project,
        name=f"study {board.study}",
        sections=[_section(name, panels) for name, panels in _panels(board).items() if panels],
        settings=workspaces.WorkspaceSettings(max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=_trials(board),
            groupby=[expr.Config(key) for key in grouping(board.configs)],
            order=[expr.Ordering(expr.Config(key), ascending=True) for key in ("rank", "seed")],
            pinned_columns=["run:displayName", *(f"summary:{key}" for key in board.scores[:3])],
        ),
    )


def report(board: Board, place: Place) -> Any:
    """The page: the answer, the figures, then the live panels. Its run sets name no project, so it builds offline."""
    figures = reports.Runset(name="figures", filters=[expr.Metric("ID") == board.figures_run])
    trials = reports.Runset(
        name=board.study,
        filters=_trials(board),
        groupby=[f"config.{key}" for key in grouping(board.configs)],
        order=[reports.OrderBy(reports.Config("rank"), ascending=True)],
    )
    wide = reports.Layout(w=FULL_WIDTH, h=14)
    pictures: list[Any] = [reports.MediaBrowser(media_keys=[key], num_columns=1, layout=wide) for key in board.figures]
    panels = _panels(board)
    live = [*panels["Quality against rank"], *panels["Learning curves"], *panels["Clips"], _run_comparer()]
    blocks: list[Any] = [reports.MarkdownBlock(board.before)]
    if pictures:
        blocks += [reports.H2("Figures"), reports.PanelGrid(runsets=[figures], panels=pictures, hide_run_sets=True)]
    blocks += [reports.H2("Runs"), reports.PanelGrid(runsets=[trials], panels=live)]
    if board.after:
        blocks.append(reports.MarkdownBlock(board.after))
    title = f"{board.study}: quality against rank"[:128]
    return reports.Report(entity=place.entity, project=place.project, title=title, blocks=blocks, width="fluid")


def _trials(board: Board) -> list[Any]:
    return [expr.Metric("Group") == board.study, expr.Metric("JobType") != FIGURES_JOB]


def _section(name: str, panels: list[Any]) -> Any:
    columns = COLUMNS.get(name, 3)
    layout = workspaces.SectionLayoutSettings(columns=columns, rows=min(3, -(-len(panels) // columns)))
    return workspaces.Section(name=name, panels=panels, is_open=True, layout_settings=layout)


def _panels(board: Board) -> dict[str, list[Any]]:
    """Section -> panels. Bars and curves show the mean of a group of runs and its range."""
    rank = reports.Config("rank")
    settings = [reports.Config(key) for key in ("rank", "learning_rate", "seed")]
    axes: list[Any] = [*settings, *(reports.SummaryMetric(key) for key in board.scores[:4])]
    coordinates = [reports.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]

    def bars(keys: Sequence[str]) -> list[Any]:
        return [reports.BarPlot(title=_title(key), metrics=[key], **OVER_GROUP) for key in keys]

    return {
        "Answer": [reports.MarkdownPanel(markdown=board.answer)],
        # One dot per trial over the logarithm of the rank: base and full fine-tune (rank 0) are in the bars only.
        "Quality against rank": [
            reports.ScatterPlot(title=f"{_title(key)} against rank", x=rank, y=reports.SummaryMetric(key), log_x=True)
            for key in board.scores
        ],
        "Rows of the rank table": bars(board.scores),
        "Learning curves": [
            reports.LinePlot(title=_title(key), x="Step", y=[key], max_runs_to_show=100, **OVER_GROUP)
            for key in board.curves
        ],
        "Clips": [reports.MediaBrowser(title=_title(key), media_keys=[key], num_columns=4) for key in board.clips],
        "Cost": bars(board.costs),
        "Runs compared": [_run_comparer(), reports.ParallelCoordinatesPlot(columns=coordinates)],
    }


def _run_comparer() -> Any:
    return reports.RunComparer(diff_only="split", layout=reports.Layout(w=FULL_WIDTH, h=9))


def _title(key: str) -> str:
    return key.partition("/")[2].replace("_", " ")
