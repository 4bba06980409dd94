"""What a scoring run found: a table to read, JSON to keep.

In: `Scores` and their `Request`. Out: text, or a dict that JSON can hold. Pure: nothing is computed or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinelora.metrics.catalogue import metric
from cinelora.score.run import Request, Scores

HEAD = ("metric", "value", "+-", "reference", "better", "protocol")
SCHEMA = 1
HASH_SHOWN = 8  # hex digits of a weight file in the table; the JSON has all of them


def table(scores: Scores, request: Request) -> str:
    """One line per metric: value, standard error, value of the reference clips, direction, protocol in short."""
    lines = [HEAD, *(_cells(*each) for each in scores.by_metric.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, "", _footer(scores, request)])


def as_json(scores: Scores, request: Request) -> dict[str, Any]:
    """Everything: numbers, values clip by clip, full protocols, what was skipped and what is doubtful."""
    return {
        "schema": SCHEMA,
        "generated": {"folder": str(request.generated), "clips": scores.clips.counts[0]},
        "reference": {"folder": str(request.reference), "clips": scores.clips.counts[1]},
        "paired": not scores.clips.unpaired,
        "skipped": list(scores.clips.skipped),
        "warnings": list(scores.warnings),
        "scores": scores.by_metric,
    }


def _cells(name: str, score: Mapping[str, Any]) -> tuple[str, ...]:
    protocol = score["protocol"]
    numbers = _number(score["value"], 5), _number(score["standard_error"], 3), _number(score.get("reference"), 5)
    return name, *numbers, protocol["better"], _short(metric(name).kind == "set", protocol)


def _number(value: float | None, digits: int) -> str:
    """So many digits, and never fewer than stand before the point: no exponent for a large distance."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _short(of_sets: bool, protocol: Mapping[str, Any]) -> str:
    parts = [f"n {protocol['n']}/{protocol['reference_n']}, d {protocol['d']}" if of_sets else f"n {protocol['n']}"]
    parts += [f"{protocol['frames']} frames", f"first {protocol['first_frame']}"]
    parts += [sha[:HASH_SHOWN] for sha in protocol.get("weights_sha256", {}).values()]
    return ", ".join(parts)


def _footer(scores: Scores, request: Request) -> str:
    clips, reading = scores.clips, request.reading
    form = clips.form
    rate = "at an unknown rate" if form.fps is None else f"at {form.fps:g} fps"
    resized = f"resized ({reading.resize.value})" if reading.size else "not resized"
    how = "paired by name" if not clips.unpaired else "not paired"
    skipped = f"; {len(clips.skipped)} skipped" if clips.skipped else ""
    counts = f"{clips.counts[0]} generated and {clips.counts[1]} reference clips, {how}{skipped}"
    return (
        f"{counts}; {form.frames} frames read {rate}, {form.height}x{form.width} pixels, {resized}. "
        "+- is one standard error."
    )
