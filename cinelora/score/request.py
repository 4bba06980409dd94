"""The metrics that can be asked for by name, and what each needs.

    fvd[i3d], kvd[tnv2], consistency[dino], psnr, motion, ...    a family, with the net or flow it rests on in brackets

In: the text of a request. Out: `Metric` records. A "set" metric is one number for two folders; a "clip" metric one per
clip; a "paired" one per pair of a made and a true clip. `whole` metrics see frame 0 even where it is dropped: it is
their start or anchor, as in a study. What is computed: `cinelora/metrics/set_metrics.py`, `cinelora/score/run.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cinelora.core.cli import UserError
from cinelora.features.motion import FEATURE_SCORES, FLOWS, MIN_SIDE, PIXEL_SCORES
from cinelora.metrics.catalogue import ABSDIFF, PARAMETERS
from cinelora.metrics.feature_nets import LPIPS_SIDE, WEIGHTS
from cinelora.metrics.set_metrics import SET_FAMILIES
from cinelora.score.clips import Form

VIDEO_NETS = tuple(name for name, net in WEIGHTS.items() if net.kind == "video")
FRAME_NETS = tuple(name for name, net in WEIGHTS.items() if net.kind == "frame")
FEATURE_NETS = VIDEO_NETS + FRAME_NETS
_FLOWS = tuple(FLOWS)
_SSIM_SIDE = 11


@dataclass(frozen=True)
class Family:
    """Metrics of one formula. `inside` may stand in the brackets; none: no brackets."""

    kind: str  # "set", "clip", "paired"
    better: str  # "lower", "higher", "none"
    inside: tuple[str, ...] = ()
    default: str = ""  # what a bare name means; "" with `inside`: brackets must be given
    net: str = ""  # the net of a family without brackets
    whole: bool = False
    least_frames: int = 1
    least_side: int = 1  # pixels
    needs_fps: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


def _of_pixels(name: str, **more: Any) -> Family:
    score = PIXEL_SCORES[name]
    kind = "paired" if score.needs_truth else "clip"
    flow = {"inside": _FLOWS, "default": _FLOWS[0]} if score.uses_flow else {}
    settings: dict[str, Any] = {"whole": True, "least_frames": 2, "least_side": MIN_SIDE, **flow, **more}
    return Family(kind, score.better, facts=score.facts, **settings)


def _of_features(name: str, **more: Any) -> Family:
    score = FEATURE_SCORES[name]
    return Family("paired" if score.needs_image else "clip", score.better, FRAME_NETS, facts=score.facts, **more)


FAMILIES: dict[str, Family] = {
    **{name: Family("set", "lower", FEATURE_NETS, facts=each.facts) for name, each in SET_FAMILIES.items()},
    "consistency": _of_features("consistency", whole=True, least_frames=2),
    "tdelta": _of_features("tdelta", whole=True, least_frames=2),
    "image_similarity": _of_features("image_similarity"),
    "motion": _of_pixels("motion", inside=(ABSDIFF, *_FLOWS), default=ABSDIFF),
    "temporal_flickering": _of_pixels("temporal_flickering"),
    "warp_error": _of_pixels("warp_error"),
    "warp_excess": _of_pixels("warp_excess"),
    "dynamic_degree": _of_pixels("dynamic_degree", needs_fps=True),
    "psnr": Family("paired", "higher", facts=PARAMETERS["psnr"]),
    "ssim": Family("paired", "higher", least_side=_SSIM_SIDE, facts=PARAMETERS["ssim"]),
    "lpips": Family("paired", "lower", net="lpips", least_side=LPIPS_SIDE),
    "neighbours": Family(
        "clip", "none", ("lpips",), whole=True, least_frames=2, least_side=LPIPS_SIDE, facts={"of": "frames t - 1, t"}
    ),
}
ALIASES = {"flicker": "temporal_flickering"}


@dataclass(frozen=True)
class Metric:
    """One metric: a family and what stands in its brackets ("" without)."""

    family: str
    inside: str = ""

    @property
    def name(self) -> str:
        return f"{self.family}[{self.inside}]" if self.inside else self.family

    @property
    def kind(self) -> str:
        return FAMILIES[self.family].kind

    @property
    def net(self) -> str:
        """The feature net it needs, or ""."""
        return self.inside if self.inside in WEIGHTS else FAMILIES[self.family].net

    @property
    def facts(self) -> Mapping[str, Any]:
        """Its own part of the protocol."""
        plain = self.family == "motion" and self.inside == ABSDIFF
        return {"unit": "levels 0..255, mean absolute difference"} if plain else FAMILIES[self.family].facts


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """ "fvd[i3d], psnr" -> its metrics, each once, in that order. UserError: none, or an unknown one (lists all)."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"--metrics {text!r}: names no metric; there are {known()}")
    return tuple(dict.fromkeys(_parse(name) for name in names))


def known() -> str:
    """Every metric, as "fvd[tnv2|i3d|...], psnr, ...", for a message."""
    return ", ".join(f"{name}[{'|'.join(each.inside)}]" if each.inside else name for name, each in FAMILIES.items())


def default_metrics(nets: Sequence[str], paired: bool, form: Form, dropped: int) -> tuple[Metric, ...]:
    """What to score when nothing is asked: all that `nets`, the pairing and the form of the clips allow."""
    chosen = []
    for net in nets:
        if WEIGHTS[net].kind == "video":
            chosen += [Metric(family, net) for family in ("kvd", "fvd")]
            chosen += [Metric("jedi", net)] if net == "vjepa" else []
        elif WEIGHTS[net].kind == "frame":
            chosen += [Metric(family, net) for family in ("consistency", "tdelta", "image_similarity")]
    chosen += [Metric("motion", ABSDIFF), Metric("temporal_flickering"), Metric("psnr"), Metric("ssim")]
    chosen += [Metric("lpips")] if "lpips" in nets else []
    return tuple(each for each in chosen if not _lacks(each, paired, form, dropped))


def check_metrics(metrics: Sequence[Metric], unpaired: str, form: Form, counts: tuple[int, int], dropped: int) -> None:
    """That all `metrics` can be had, before any work. `unpaired` says why clips do not pair, "" if they do;
    `counts` are the made and the real clips, `dropped` 1 if frame 0 is. UserError at the first that cannot."""
    for metric in metrics:
        if metric.kind == "paired" and unpaired:
            raise UserError(f"{metric.name} compares a clip with its true one, but {unpaired}")
        lack = _lacks(metric, True, form, dropped)
        if lack:
            raise UserError(f"{metric.name} {lack}")
        least = SET_FAMILIES[metric.family].least_clips if metric.kind == "set" else 1
        if min(counts) < least:
            raise UserError(f"{metric.name} needs {least} clips in each folder; there are {counts[0]} and {counts[1]}")


def scored_frames(metric: Metric, form: Form, dropped: int) -> int:
    """How many frames of a clip the metric sees."""
    return form.frames - (0 if FAMILIES[metric.family].whole else dropped)


def _parse(text: str) -> Metric:
    name = ALIASES.get(text, text)
    family, bracket, inside = name.partition("[")
    closed = not bracket or (inside.endswith("]") and bool(inside[:-1]))
    if family not in FAMILIES or not closed:
        raise UserError(f"--metrics {text}: no such metric; there are {known()}")
    allowed, inside = FAMILIES[family].inside, inside.removesuffix("]") or FAMILIES[family].default
    if allowed and inside not in allowed:
        which = f"no {family} of {inside}" if inside else "say of what"
        raise UserError(f"--metrics {text}: {which}; there are {', '.join(f'{family}[{each}]' for each in allowed)}")
    if not allowed and inside:
        raise UserError(f"--metrics {text}: {family} takes no brackets")
    return Metric(family, inside)


def _lacks(metric: Metric, paired: bool, form: Form, dropped: int) -> str:
    """What stands in its way, as the end of a sentence; "" for nothing."""
    family, frames, side = FAMILIES[metric.family], scored_frames(metric, form, dropped), min(form.height, form.width)
    net = WEIGHTS.get(metric.net)
    least = max(family.least_frames, net.least_frames if net else 1)
    most = net.most_frames if net else None
    if metric.kind == "paired" and not paired:
        return "needs pairs"
    if frames < least or (most is not None and frames > most):
        limits = f"exactly {least}" if least == most else f"{least} or more"
        return f"needs {limits} frames, there are {frames}; give --frames {least}"
    if side < family.least_side:
        return f"needs {family.least_side} pixels a side, there are {side}; give --size HxW"
    if family.needs_fps and form.fps is None:
        return "needs the frame rate, and images carry none; give --fps F"
    return ""
