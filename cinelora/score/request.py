"""The metrics of a scoring run: names parsed, and checked against the clips before any work.

In: the text of `--metrics`, the form and number of the clips. Out: `Metric` records of `cinelora/metrics/catalogue.py`.

    fvd[i3d], kvd[tnv2], consistency[dino], psnr, motion, ...    a family, with the net or flow it rests on in brackets
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cinelora.core.cli import UserError
from cinelora.metrics.catalogue import ABSDIFF, FAMILIES, FLOWS, Metric, family, study_metrics
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.score.clips import Clips, Form

ALIASES = {key: f"{key}[dis]" for key, each in FAMILIES.items() if each.of == tuple(FLOWS)}
ALIASES |= {"flicker": "temporal_flickering", "motion": ABSDIFF}


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """ "fvd[i3d], psnr" -> its metrics, each once, in that order. UserError: none, or an unknown one (lists all)."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"--metrics {text!r}: names no metric; there are {known()}")
    return tuple(dict.fromkeys(_parse(name) for name in names))


def _brackets() -> dict[str, list[str]]:
    """Family -> what may stand in its brackets, of the metrics that two folders suffice for."""
    found: dict[str, list[str]] = {}
    for key, each in FAMILIES.items():
        if not each.needs:
            found.setdefault(family(key), []).extend(each.of or ([key.partition("[")[2][:-1]] if "[" in key else []))
    return found


def known() -> str:
    """Every metric, as "fvd[tnv2|i3d|...], psnr, ...", for a message."""
    return ", ".join(f"{name}[{'|'.join(allowed)}]" if allowed else name for name, allowed in _brackets().items())


def _parse(text: str) -> Metric:
    name, bracket, inside = ALIASES.get(text, text).partition("[")
    closed = not bracket or (inside.endswith("]") and bool(inside[:-1]))
    brackets = _brackets()
    if name not in brackets or not closed:
        raise UserError(f"--metrics {text}: no such metric; there are {known()}")
    allowed, inside = brackets[name], inside.removesuffix("]")
    if allowed and inside not in allowed:
        which = f"no {name} of {inside}" if inside else "a name in brackets is missing"
        raise UserError(f"--metrics {text}: {which}; there are {', '.join(f'{name}[{each}]' for each in allowed)}")
    if not allowed and inside:
        raise UserError(f"--metrics {text}: {name} takes no brackets")
    return Metric(name, inside)


def chosen_metrics(requested: Sequence[Metric] | None, nets: Iterable[str], clips: Clips) -> tuple[Metric, ...]:
    """`requested`, or if None all that `nets` and the clips allow. UserError: one of them cannot be computed."""
    if requested is None:
        return tuple(each for each in study_metrics(nets) if not each.entry.needs and not _lacks(each, clips))
    for metric in requested:
        if lack := _lacks(metric, clips):
            raise UserError(f"{metric.name} {lack}")
    return tuple(requested)


def with_sources(metrics: Iterable[Metric], clips: Clips) -> tuple[Metric, ...]:
    """Those to be measured: in the place of a derived metric, what it is computed from and the clips allow."""
    found: dict[Metric, None] = {}
    for metric in metrics:
        sources = [Metric(source, metric.inside) for source in metric.entry.derived]
        found |= dict.fromkeys(each for each in sources or [metric] if not _lacks(each, clips))
    return tuple(found)


def scored_frames(metric: Metric, form: Form) -> int:
    """How many frames of a clip the metric sees."""
    return form.frames - (0 if metric.entry.whole else form.dropped)


def _lacks(metric: Metric, clips: Clips) -> str:
    """Why the metric cannot be computed, as the end of a sentence; "" if it can."""
    entry, form, net = metric.entry, clips.form, WEIGHTS.get(metric.net)
    frames, side = scored_frames(metric, form), min(form.height, form.width)
    least = max(entry.least_frames, net.least_frames if net else 1)
    most = net.most_frames if net else None
    if metric.kind == "paired" and clips.unpaired:
        return f"compares a clip with its reference clip, but {clips.unpaired}"
    if frames < least or (most is not None and frames > most):
        limits = f"exactly {least}" if least == most else f"{least} or more"
        return f"needs {limits} frames, there are {frames}; give --frames {least}"
    if side < entry.least_side:
        return f"needs {entry.least_side} pixels a side, there are {side}; give --size HxW"
    if entry.needs_fps and form.fps is None:
        return "needs the frame rate, and images carry none; give --fps F"
    if metric.kind == "set" and min(clips.counts) < metric.distance.least_clips:
        counts = "{} and {}".format(*clips.counts)
        return f"needs {metric.distance.least_clips} clips in each folder; there are {counts}"
    return ""
