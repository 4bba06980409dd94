"""Which scores a trial has, which way they point, how each is measured, and why another is not there.

In: the score and data settings, and the content hashes of the weights. Out: JSON-ready facts. Standard library only.
A score is named after the net it rests on: `fvd[i3d]`. Nets and their files: `cinelora/metrics/feature_nets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cinelora.core.config import DataConfig, SampleConfig, ScoreConfig, StepCache
from cinelora.metrics.feature_nets import CLIP_NETS, WEIGHTS, configured

PSNR_CAP_DB = 100.0  # an exact frame has infinite PSNR, which JSON cannot hold; one level off is 48 dB
RATIO_CAP = 100.0  # memorisation ratio of a clip equal to a held-out one that is not its own
OF_KIND: dict[str, dict[str, str]] = {
    "video": {
        "fvd": "lower",
        "kvd": "lower",
        "memorisation_ratio": "higher",
        "memorisation_share": "lower",
        "diversity": "none",  # variety where the clips are good, unsteady training where they are not
    },
    "frame": {"consistency": "higher", "image_similarity": "higher", "tdelta": "none"},
}
OF_PIXELS = {
    "motion[absdiff]": "none",  # a guard: a frozen clip is perfectly consistent
    "psnr": "higher",
    "ssim": "higher",
    "temporal_flickering": "higher",
    "style_distance[y]": "lower",
    "style_distance[cb]": "lower",
    "style_distance[cr]": "lower",
}
OF_FLOW = {"motion": "none", "warp_error": "lower", "warp_excess": "lower", "dynamic_degree": "none"}
FLOWS = {"dis": "OpenCV DIS, preset medium", "farneback": "OpenCV Farneback"}
LPIPS, CLIP_SIM = "lpips", "clip_sim"
_STARTED = ("motion", "tdelta", "temporal_flickering", "warp_error", "warp_excess", "dynamic_degree")
WHOLE = ("consistency", *_STARTED)  # families that see frame 0 though it is given: their anchor, their start
# What a true clip can be asked without a rival, while it is scored like a made one.
OF_REAL_CLIPS = ("consistency", CLIP_SIM, *(name for name in _STARTED if name != "warp_excess"))
COLOURS = "ycbcr"  # the feature set of colour histograms, (N, 3 x 256), under the name of no net

SCALED_BY = {
    **dict.fromkeys(("fvd", "kvd", "jedi", "diversity"), "reference"),
    **dict.fromkeys(("memorisation_ratio", "memorisation_share"), "training clips'"),
}
_KERNEL = {"form": "polynomial", "gamma": "1/D"}
_WARP = {
    "unit": "levels 0..255, mean absolute difference",
    "warp": "frame t - 1 to t, bilinear",
    "validity": "inside the picture and |forward + backward|^2 < 0.01 (|forward|^2 + |backward|^2) + 0.5",
    "no_valid_pixel": "plain frame difference",
}
_NEAREST = {"distance": "Euclidean", "own_clip": "the held-out clip that gave the first frame is left out"}
# By family; motion by name, as its two kinds differ.
PARAMETERS: dict[str, dict[str, Any]] = {
    "fvd": {"covariance": "N-1"},
    "kvd": {
        "kernel": {**_KERNEL, "degree": 3, "coef0": 1.0, "unbiased": True},
        "matched_pairs": "left out",
    },
    "jedi": {"kernel": {**_KERNEL, "degree": 2, "coef0": 0.0, "unbiased": False}, "factor": 100.0},
    "psnr": {"data_range": 255, "cap_db": PSNR_CAP_DB, "mean": "over frames, in dB"},
    "ssim": {"data_range": 255, "window": "gaussian 11x11, sigma 1.5", "k1": 0.01, "k2": 0.03},
    CLIP_SIM: {"unit": "100 max(cosine, 0), mean over frames", "text": "the caption, cut at 77 tokens"},
    "temporal_flickering": {"unit": "0..1"},
    "tdelta": {"unit": "length in feature space per frame"},
    **dict.fromkeys((f"motion[{flow}]" for flow in FLOWS), {"unit": "pixels per frame, mean flow length"}),
    "warp_error": _WARP,
    "warp_excess": {**_WARP, "minus": "the true clip's"},
    "dynamic_degree": {
        "unit": "0 or 1",
        "looked_at_fps": 8,
        "pair": "top 5 % > 6 px x side / 256",
        "clip": "4 per 16 frames",
    },
    "memorisation_ratio": {**_NEAREST, "unit": "nearest training clip / nearest held-out clip", "cap": RATIO_CAP},
    "memorisation_share": {**_NEAREST, "unit": "share of ratios below 1, ties half", "by_chance": "M / (M + K - 1)"},
    "diversity": {
        "unit": "mean distance of pairs of training seeds, feature units",
        "pairs": "same first frame, starting noise and settings",
    },
    "style_distance": {
        "unit": "levels, 1-D Wasserstein distance of order 1",
        "channels": "Y, Cb, Cr, full-range BT.601, whole levels",
        "compares": "mean histogram of the made clips with that of the sweep's training clips",
    },
}


def family(name: str) -> str:
    """fvd[i3d] -> fvd."""
    return name.partition("[")[0]


def flow_of(score: ScoreConfig) -> str:
    """The optical flow that is asked for, or ""."""
    return score.flow


def step_cache_of(sample: SampleConfig | None) -> str:
    """How the sampler cuts passes short, in words; "" where it does not."""
    if sample is None or sample.cache is StepCache.none:
        return ""
    return f"{sample.cache.value}, relative change below {sample.cache_threshold:g}"


def directions(nets: Iterable[str], flow: str = "") -> dict[str, str]:
    """The scores that `nets`, the pixels and a `flow` give: name -> "higher", "lower" or "none"."""
    found: dict[str, str] = {}
    for net in nets:
        found |= {f"{name}[{net}]": way for name, way in OF_KIND.get(WEIGHTS[net].kind, {}).items()}
        found |= {"jedi[vjepa]": "lower"} if net == "vjepa" else {}
        found |= {LPIPS: "lower"} if net == LPIPS else {}
        found |= {f"{CLIP_SIM}[{net}]": "higher"} if net in CLIP_NETS else {}
    found |= {f"{name}[{flow}]": way for name, way in OF_FLOW.items()} if flow else {}
    return found | OF_PIXELS


def unavailable(score: ScoreConfig) -> dict[str, str]:
    """Why a score is not there: score name -> reason. Tells of the two packaged nets and of the best known others."""
    nets = configured(score)
    wanted = {LPIPS: (LPIPS,), CLIP_SIM: CLIP_NETS, "fvd[i3d]": ("i3d",)}
    reasons = {
        name: f"needs {WEIGHTS[of[0]].title.split()[0]} weights: set {' or '.join(f'score.{net}' for net in of)}"
        for name, of in wanted.items()
        if not any(net in nets for net in of)
    }
    for net, facts in WEIGHTS.items():
        if facts.packaged and net not in nets:
            missing = (f"{name}[{net}]" for name in OF_KIND[facts.kind])
            reasons |= dict.fromkeys(missing, f"needs {facts.title} weights: set score.{net}")
    return reasons


def protocol(
    score: ScoreConfig, data: DataConfig, marks: Mapping[str, str], sample: SampleConfig | None = None
) -> dict[str, dict[str, Any]]:
    """How each available score is measured: score name -> JSON-ready facts, equal for comparable trials.

    `marks` are the trial's fingerprints, for the hashes of weights that the user brought.
    Always: features, frames scored, first_frame ("dropped" or "kept"), fps, size [height, width] in
    pixels, the clips' resize rule, better ("higher", "lower" or "none"). A net adds its input size,
    resize rule and weight hash; a distance adds its divisor or kernel and how features are scaled. Where `sample` cuts
    passes of the denoiser short, every score says so.
    """
    return {
        name: _clip_facts(name, better, score, data)
        | _net_facts(name, data, score, marks)
        | (PARAMETERS.get(name) or PARAMETERS.get(family(name), {}))
        | ({"step_cache": cached} if (cached := step_cache_of(sample)) else {})
        for name, better in directions(configured(score), flow_of(score)).items()
    }


def _clip_facts(name: str, better: str, score: ScoreConfig, data: DataConfig) -> dict[str, Any]:
    dropped = 0 if score.keep_first_frame or family(name) in WHOLE else 1
    return {
        "features": "pixels",
        "frames": data.frames - dropped,
        "first_frame": "dropped" if dropped else "kept",
        "fps": data.fps,
        "size": [data.height, data.width],
        "resize": data.resize.value,
        "better": better,
    }


def _net_facts(name: str, data: DataConfig, score: ScoreConfig, marks: Mapping[str, str]) -> dict[str, Any]:
    inside = name.partition("[")[2].removesuffix("]") or name
    if inside in FLOWS:
        return {"flow": FLOWS[inside]}
    if inside not in WEIGHTS:
        return {}
    net = WEIGHTS[inside]
    per = {"video": "clip", "frame": "frame", "pair": "pair of frames"}[net.kind]
    facts: dict[str, Any] = {
        "features": f"{net.name}, {net.dimension} per {per}",
        "network_size": list(net.size) if net.size else "as given",
        "network_resize": net.resize,
        "weights_sha256": net.sha256 if net.packaged else net.hashes(marks),
    }
    if net.most_frames is not None:
        scored = data.frames - (0 if score.keep_first_frame else 1)
        facts["frames"] = min(scored, net.most_frames)  # the first of them: more it cannot see
    if family(name) in SCALED_BY:
        by = f"{SCALED_BY[family(name)]} mean and standard deviation"
        facts |= {"standardised": by if net.standardised else "no"}
    return facts


ABSDIFF = "absdiff"
