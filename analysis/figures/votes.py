"""What people prefer, and how often scores order clips as people do.

In: `Result` of the votes. Out: the figure "votes".
"""

from __future__ import annotations

from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, WIDTH
from analysis.statistics.findings import Findings
from analysis.votes.results import Result


def votes(findings: Findings) -> Figure | None:
    return votes_figure(findings.votes) if findings.votes and findings.votes.preferences else None


def votes_figure(found: Result) -> Figure:
    """Worths at the left; at the right the agreement of scores, chance dotted, two raters with each other dashed."""
    most = max(len(found.preferences), len(found.scores))
    drawn = Figure(figsize=(WIDTH, 1.1 + 0.19 * most), layout="constrained")
    panels = drawn.subplots(1, 2 if found.scores else 1, squeeze=False)[0]
    worths = [(each.row, each.worth, each.low, each.high) for each in found.preferences]
    shares = [(each.score, each.share, each.low, each.high) for each in found.scores]
    for axes, values in zip(panels, (worths, shares), strict=False):
        for place, (_, value, low, high) in enumerate(values):
            axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.2)
            axes.plot(value, place, "o", color=COLOURS[0], markersize=4)
        axes.set_yticks(range(len(values)), [name for name, *_ in values])
        axes.set_ylim(len(values) - 0.5, -0.5)
    panels[0].axvline(0, color="0.6", linestyle=":")
    panels[0].set_xlabel("worth, log odds against the mean row")
    panels[0].set_title(f"What people prefer ({found.raters} rater{'s' * (found.raters != 1)})")
    for axes in panels[1:]:
        axes.axvline(0.5, color="0.6", linestyle=":")
        if found.others[1]:
            axes.axvline(found.others[0] / found.others[1], color="0.4", linestyle="--")
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of preferences")
        axes.set_title("How often scores order clips as people do")
        for label in axes.get_yticklabels():
            label.set_fontweight("bold" if label.get_text() in found.primary else "normal")
    return drawn
