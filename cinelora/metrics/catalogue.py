"""Every metric: what it needs, its direction, how it is computed, and its protocol.

In: names such as `fvd[i3d]`, the score and data settings, hashes of weights. Out: `Metric` records, JSON-ready facts.
NumPy alone. Trials, `python -m cinelora.score`, the report and the benchmarks all read this one registry.

A metric is a family with what it rests on in brackets: a feature net (`cinelora/metrics/feature_nets.py`), an optical
flow or a colour channel; some have no brackets. To add one: an entry in `FAMILIES`, and its function. The entry of a
set metric names the function; that of a clip metric is listed by family in `cinelora/features/extract.py`, or in
`gaps.py` where it is derived from other scores.
N and M clips, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from cinelora.core.config import DataConfig, SampleConfig, ScoreConfig, StepCache
from cinelora.metrics.distances import (
    KERNEL_PRESETS,
    Array,
    fit_gaussian,
    frechet_between,
    kernel_distance,
    polynomial_mmd,
)
from cinelora.metrics.feature_nets import CLIP_NETS, LPIPS_SIDE, STLPIPS_SIDE, WEIGHTS, configured
from cinelora.metrics.influence import frechet_values, kernel_values
from cinelora.metrics.resampling import (
    GROUPS,
    Grams,
    Statistic,
    frechet_replicates,
    kernel_grams,
    linear_grams,
    matched_mmd_replicates,
    mmd_replicates,
)

PSNR_CAP_DB = 100.0  # an exact frame has infinite PSNR, which JSON cannot hold; one level off is 48 dB
RATIO_CAP = 100.0  # memorisation ratio of a clip that equals a held-out clip other than its own
COLOURS = "ycbcr"  # the feature set of colour histograms, (N, 3 x 256); not the name of a net
NEIGHBOURS = "neighbours[stlpips]"  # in studies too: free beside stlpips[alex]; of LPIPS on request
ABSDIFF = "motion[absdiff]"  # motion without an optical flow
FLOWS = {"dis": "OpenCV DIS, preset medium", "farneback": "OpenCV Farneback"}
FLOW_SIDE = 16  # pixels; DIS matches patches of 8 on a picture reduced at least once
SSIM_SIDE = 11  # pixels, of its window
APART = (1, 2, 4, 8, 16, 32, 64)  # frames, of the points of a profile of similarity over time
SEED = 0  # of the random halves and of the subsets behind `fvd_inf`

VIDEO_NETS = tuple(name for name, net in WEIGHTS.items() if net.kind == "video")
FRAME_NETS = tuple(name for name, net in WEIGHTS.items() if net.kind == "frame")
FEATURE_NETS = VIDEO_NETS + FRAME_NETS


@dataclass(frozen=True)
class SetDistance:
    """How a set metric is computed from features (N, D) of generated and (M, D) of reference clips.

    `value(generated, reference, matched)` is the distance; `matched`: row i of both belong together.
    `statistic(grams(generated, reference), ...)` is the same of resamples of both sets, `matched_statistic` of
    resamples that draw both rows of a pair, where that differs.
    `clip_values(reference, generated, standardised)` is a value per matched pair of clips (`influence.py`).
    """

    value: Callable[[Array, Array, bool], float]
    grams: Callable[[Array, Array], Grams]
    statistic: Statistic
    matched_statistic: Statistic | None = None
    clip_values: Callable[[Array, Array, bool], Array] | None = None
    linear: bool = False  # `clip_values` need enough clips: `influence.too_few_clips`
    unbiased: bool = False
    extrapolated: bool = False  # the value is that of infinitely many clips, by `resampling.at_infinity`
    least_clips: int = 2


@dataclass(frozen=True)
class Family:
    """Metrics of one formula."""

    kind: str  # "set": a number for two sets; "clip": for a clip; "paired": for a clip and its reference; "trial"
    better: str  # "lower", "higher", or "none": to be compared with the reference clips
    of: tuple[str, ...] = ()  # the texts allowed in brackets; (): no brackets
    usual: tuple[str, ...] | None = None  # those that studies compute, and the command by default; None: all of `of`
    facts: Mapping[str, Any] = field(default_factory=dict)  # its own part of the protocol
    more_facts: Mapping[str, Any] = field(default_factory=dict)  # in the protocol of the command, not of trials
    net: str = ""  # the net of a family without brackets
    needs: str = ""  # what two folders of clips lack: such a metric exists in studies alone
    whole: bool = False  # sees frame 0 even where it is dropped: it is the clip's start or anchor
    scaled_by: str = ""  # whose mean and deviation scale the features of a standardised net
    least_frames: int = 1
    least_side: int = 1  # pixels
    needs_fps: bool = False
    further: bool = False  # shown in the report's second table
    frozen_wins: bool = False  # a clip without motion scores best
    distance: SetDistance | None = None  # of a set metric
    curve: bool = False  # one point of a curve: in a figure and in scores.csv, no column and no test of its own
    derived: tuple[str, ...] = ()  # families: computed from these scores of a clip and of its real clip (`gaps.py`)


@dataclass(frozen=True)
class Metric:
    """One metric: a family and the text in its brackets ("" without)."""

    family: str
    inside: str = ""

    @property
    def name(self) -> str:
        return f"{self.family}[{self.inside}]" if self.inside else self.family

    @property
    def entry(self) -> Family:
        return FAMILIES.get(self.name) or FAMILIES[self.family]

    @property
    def kind(self) -> str:
        return self.entry.kind

    @property
    def net(self) -> str:
        """The feature net it needs, or ""."""
        return self.inside if self.inside in WEIGHTS else self.entry.net

    @property
    def base(self) -> str:
        """What it rests on: a net, a flow, a channel, or "" for pixels."""
        return self.net or self.inside

    @property
    def distance(self) -> SetDistance:
        """How this set metric is computed. ValueError: it is none."""
        if self.entry.distance is None:
            raise ValueError(f"{self.name} is not a distance between sets")
        return self.entry.distance


def _kernel_facts(preset: str) -> dict[str, Any]:
    """The kernel of `KERNEL_PRESETS`, for a protocol."""
    facts = asdict(KERNEL_PRESETS[preset])
    del facts["factor"]
    return {"kernel": {"form": "polynomial", "gamma": "1/D", **facts}}


def _frechet(generated: Array, reference: Array, matched: bool) -> float:
    """Without the warnings of `frechet_distance`: the command and the report have theirs (`set_metrics.unreliable`)."""
    return frechet_between(fit_gaussian(reference), fit_gaussian(generated))


def _kid(generated: Array, reference: Array, matched: bool) -> float:
    return polynomial_mmd(reference, generated, matched=matched)


def _jedi(generated: Array, reference: Array, matched: bool) -> float:
    """All pairs, matched or not."""
    return kernel_distance(generated, reference, "jedi")


_FRECHET = SetDistance(_frechet, linear_grams, frechet_replicates, clip_values=frechet_values, linear=True)
_AT_INFINITY = replace(_FRECHET, clip_values=None, extrapolated=True, least_clips=2 * GROUPS)
_KID = SetDistance(_kid, kernel_grams, mmd_replicates, matched_mmd_replicates, clip_values=kernel_values, unbiased=True)
_JEDI = SetDistance(
    _jedi,
    partial(kernel_grams, preset="jedi"),
    partial(mmd_replicates, unbiased=False),
    clip_values=partial(kernel_values, preset="jedi"),
)

_START: dict[str, Any] = {"whole": True, "least_frames": 2}  # of families that compare frames with those before
_FLOW: dict[str, Any] = {"of": tuple(FLOWS), **_START, "least_side": FLOW_SIDE, "further": True}
_NEAREST = {"distance": "Euclidean", "own_clip": "the held-out clip that gave the first frame is left out"}
SIMILARITIES = {
    f"similarity_{apart}": Family(
        "clip",
        "none",
        FRAME_NETS,
        facts={"unit": "0..1, mean cosine of pairs of frames", "frames_apart": apart, "negative_cosines": 0},
        whole=True,
        least_frames=apart + 1,
        curve=True,
    )
    for apart in APART
}
_WARP = {
    "unit": "levels 0..255, mean absolute difference",
    "warp": "frame t - 1 to t, bilinear",
    "validity": "inside the picture and |forward + backward|^2 < 0.01 (|forward|^2 + |backward|^2) + 0.5",
    "no_valid_pixel": "plain frame difference",
}
FAMILIES: dict[str, Family] = {
    "fvd": Family(
        "set", "lower", FEATURE_NETS, VIDEO_NETS, {"covariance": "N-1"}, scaled_by="reference", distance=_FRECHET
    ),
    "kvd": Family(
        "set",
        "lower",
        FEATURE_NETS,
        VIDEO_NETS,
        {**_kernel_facts("kid"), "matched_pairs": "left out"},
        scaled_by="reference",
        distance=_KID,
    ),
    "jedi": Family(
        "set",
        "lower",
        FEATURE_NETS,
        ("vjepa",),
        {**_kernel_facts("jedi"), "factor": KERNEL_PRESETS["jedi"].factor},
        scaled_by="reference",
        distance=_JEDI,
    ),
    "fvd_inf": Family(
        "set",
        "lower",
        FEATURE_NETS,
        (),
        {"covariance": "N-1", "line": "in 1/N, 8 sizes from N/4 to N, 8 orders", "seed": SEED},
        scaled_by="reference",
        distance=_AT_INFINITY,
    ),
    "consistency": Family(
        "clip", "higher", FRAME_NETS, more_facts={"unit": "0..1", "negative_cosines": 0}, **_START, frozen_wins=True
    ),
    "consistency_gap": Family(
        "paired",
        "lower",
        FRAME_NETS,
        facts={"unit": "0..1, |clip - its real clip|"},
        **_START,
        derived=("consistency",),
    ),
    "profile_gap": Family(
        "paired",
        "lower",
        FRAME_NETS,
        facts={"unit": "0..1, area between both curves per doubling of the frames apart"},
        **_START,
        derived=tuple(SIMILARITIES),
    ),
    **SIMILARITIES,
    "image_similarity": Family("paired", "higher", FRAME_NETS, more_facts={"unit": "0..1"}, frozen_wins=True),
    "clip_sim": Family(
        "clip",
        "higher",
        CLIP_NETS,
        facts={"unit": "100 max(cosine, 0), mean over frames", "text": "the caption, cut at 77 tokens"},
        needs="captions",
    ),
    "lpips": Family("paired", "lower", net="lpips", least_side=LPIPS_SIDE),
    "neighbours": Family("clip", "none", ("lpips",), (), {"of": "frames t - 1, t"}, **_START, least_side=LPIPS_SIDE),
    "stlpips": Family(
        "paired",
        "lower",
        ("alex",),
        facts={"trunk": "AlexNet, blurs of 3, version ST0.0 (stlpips-pytorch 0.0.2, BSD-2-Clause)"},
        net="stlpips",
        least_side=STLPIPS_SIDE,
        further=True,
    ),
    NEIGHBOURS: Family(
        "clip", "none", facts={"of": "frames t - 1, t"}, **_START, least_side=STLPIPS_SIDE, further=True
    ),
    ABSDIFF: Family(  # a guard: a frozen clip is perfectly consistent
        "clip",
        "none",
        more_facts={"unit": "levels 0..255, mean absolute difference"},
        **_START,
        least_side=FLOW_SIDE,
    ),
    "temporal_flickering": Family(
        "clip", "higher", facts={"unit": "0..1"}, **_START, least_side=FLOW_SIDE, further=True, frozen_wins=True
    ),
    "psnr": Family("paired", "higher", facts={"data_range": 255, "cap_db": PSNR_CAP_DB, "mean": "over frames, in dB"}),
    "ssim": Family(
        "paired",
        "higher",
        facts={"data_range": 255, "window": "gaussian 11x11, sigma 1.5", "k1": 0.01, "k2": 0.03},
        least_side=SSIM_SIDE,
    ),
    "tdelta": Family(
        "clip", "none", FRAME_NETS, facts={"unit": "length in feature space per frame"}, **_START, further=True
    ),
    "motion": Family("clip", "none", facts={"unit": "pixels per frame, mean flow length"}, **_FLOW),
    "warp_error": Family("clip", "lower", facts=_WARP, **_FLOW, frozen_wins=True),
    "warp_excess": Family("paired", "lower", facts={**_WARP, "minus": "the true clip's"}, **_FLOW, frozen_wins=True),
    "dynamic_degree": Family(
        "clip",
        "none",
        facts={
            "unit": "0 or 1",
            "looked_at_fps": 8,
            "pair": "top 5 % > 6 px x side / 256",
            "clip": "4 per 16 frames",
        },
        **_FLOW,
        needs_fps=True,
    ),
    "memorisation_ratio": Family(
        "clip",
        "higher",
        VIDEO_NETS,
        facts={**_NEAREST, "unit": "nearest training clip / nearest held-out clip", "cap": RATIO_CAP},
        needs="training clips",
        scaled_by="training clips'",
        further=True,
    ),
    "memorisation_share": Family(
        "clip",
        "lower",
        VIDEO_NETS,
        facts={**_NEAREST, "unit": "share of ratios below 1, ties half", "by_chance": "M / (M + K - 1)"},
        needs="training clips",
        scaled_by="training clips'",
        further=True,
    ),
    "style_distance": Family(
        "trial",
        "lower",
        ("y", "cb", "cr"),
        facts={
            "unit": "levels, 1-D Wasserstein distance of order 1",
            "channels": "Y, Cb, Cr, full-range BT.601, whole levels",
            "compares": "mean histogram of the made clips with that of the sweep's training clips",
        },
        needs="training clips",
        further=True,
    ),
    "diversity": Family(  # variety where the clips are good, unsteady training where they are not
        "trial",
        "none",
        VIDEO_NETS,
        facts={
            "unit": "mean distance of pairs of training seeds, feature units",
            "pairs": "same first frame, starting noise and settings",
        },
        needs="other training seeds",
        scaled_by="reference",
        further=True,
    ),
}


def metric(name: str) -> Metric:
    """fvd[i3d] -> its record. KeyError: no such family."""
    found = Metric(family(name), name.partition("[")[2].removesuffix("]"))
    _ = found.entry
    return found


def family(name: str) -> str:
    """fvd[i3d] -> fvd."""
    return name.partition("[")[0]


def _usual() -> Iterator[Metric]:
    for key, each in FAMILIES.items():
        for inside in (each.of if each.usual is None else each.usual) if each.of else ("",):
            yield metric(f"{key}[{inside}]" if inside else key)


USUAL = tuple(_usual())  # what studies have when all nets and flows are there


def study_metrics(nets: Iterable[str], flow: str = "") -> tuple[Metric, ...]:
    """The metrics of a trial with these `nets` and this optical `flow`: net by net, of the flow, then of pixels."""
    by_base = (each for base in (*nets, flow) for each in USUAL if base and each.base == base)
    return (*by_base, *(each for each in USUAL if each.base not in WEIGHTS and each.base not in FLOWS))


def unavailable(score: ScoreConfig) -> dict[str, str]:
    """Why a metric is not there: name -> reason. Of the packaged nets and of the best known others."""
    nets = configured(score)
    wanted = {"lpips": ("lpips",), "clip_sim": CLIP_NETS, "fvd[i3d]": ("i3d",)}
    reasons = {
        name: f"needs {WEIGHTS[of[0]].title.split()[0]} weights: set {' or '.join(f'score.{net}' for net in of)}"
        for name, of in wanted.items()
        if not any(net in nets for net in of)
    }
    for net, facts in WEIGHTS.items():
        if facts.packaged and net not in nets:
            missing = (each.name for each in USUAL if each.base == net and not each.entry.curve)
            reasons |= dict.fromkeys(missing, f"needs {facts.title} weights: set score.{net}")
    return reasons


def protocol(
    score: ScoreConfig, data: DataConfig, fingerprints: Mapping[str, str], sample: SampleConfig | None = None
) -> dict[str, dict[str, Any]]:
    """How a trial measures each of its metrics: name -> JSON-ready facts, equal for comparable trials.

    `fingerprints` are the trial's, for the hashes of weights that the user brought.
    Always: features, frames scored, first_frame ("dropped" or "kept"), fps, size [height, width] in pixels, the
    clips' resize rule, better ("higher", "lower" or "none"). A net adds its input size, resize rule and weight hash; a
    distance adds its divisor or kernel and how features are scaled. Where `sample` skips passes of the denoiser, every
    metric says so; where it generates no clips, there are no metrics.
    """
    if sample is not None and not sample.clips:
        return {}
    cached = step_cache_of(sample)
    return {
        each.name: _clip_facts(each.entry, score, data)
        | _net_facts(each, data, score, fingerprints)
        | dict(each.entry.facts)
        | ({"step_cache": cached} if cached else {})
        for each in study_metrics(configured(score), score.flow)
        if not each.entry.curve or data.frames >= each.entry.least_frames
    }


def step_cache_of(sample: SampleConfig | None) -> str:
    """How the sampler skips passes of the denoiser, in words; "" where it does not."""
    if sample is None or sample.cache is StepCache.none:
        return ""
    return f"{sample.cache.value}, relative change below {sample.cache_threshold:g}"


def _clip_facts(entry: Family, score: ScoreConfig, data: DataConfig) -> dict[str, Any]:
    dropped = 0 if score.keep_first_frame or entry.whole else 1
    return {
        "features": "pixels",
        "frames": data.frames - dropped,
        "first_frame": "dropped" if dropped else "kept",
        "fps": data.fps,
        "size": [data.height, data.width],
        "resize": data.resize.value,
        "better": entry.better,
    }


def _net_facts(each: Metric, data: DataConfig, score: ScoreConfig, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    if each.inside in FLOWS:
        return {"flow": FLOWS[each.inside]}
    if not each.net:
        return {}
    net = WEIGHTS[each.net]
    per = {"video": "clip", "frame": "frame", "pair": "pair of frames"}[net.kind]
    facts: dict[str, Any] = {
        "features": f"{net.name}, {net.dimension} per {per}",
        "network_size": list(net.size) if net.size else "as given",
        "network_resize": net.resize,
        "weights_sha256": net.sha256 if net.packaged else net.hashes(fingerprints),
    }
    if net.most_frames is not None:
        scored = data.frames - (0 if score.keep_first_frame else 1)
        facts["frames"] = min(scored, net.most_frames)  # the first of them: more it cannot see
    if each.entry.scaled_by:
        by = f"{each.entry.scaled_by} mean and standard deviation"
        facts["standardised"] = by if net.standardised else "no"
    return facts
