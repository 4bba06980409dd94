"""Which scores a trial has, which way they point, how each is measured, and why another is not there.

In: the score and data settings, and the content hashes of the weights. Out: JSON-ready facts. Standard library only.
A score is named after the net it rests on: `fvd[i3d]`. Nets and their files: `cinelora/weights.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cinelora.config import DataConfig, ScoreConfig
from cinelora.weights import CLIP_NETS, WEIGHTS, configured

PSNR_CAP_DB = 100.0  # an exact frame has infinite PSNR, which JSON cannot hold; one level off is 48 dB
OF_KIND: dict[str, dict[str, str]] = {
    "video": {"fvd": "lower", "kvd": "lower"},
    "frame": {"consistency": "higher", "image_similarity": "higher"},
}
OF_PIXELS = {
    "motion[absdiff]": "none",  # a guard: a frozen clip is perfectly consistent
    "psnr": "higher",
    "ssim": "higher",
}
LPIPS, CLIP_SIM = "lpips", "clip_sim"
WHOLE = ("consistency", "motion")  # families that see frame 0 though it is given: their anchor, their start
OF_REAL_CLIPS = ("consistency", "motion", CLIP_SIM)  # what a true clip can be asked without a rival

_SCALED = {"standardised": "reference mean and standard deviation"}
_KERNEL = {"form": "polynomial", "gamma": "1/D"}
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
}


def family(name: str) -> str:
    """fvd[i3d] -> fvd."""
    return name.partition("[")[0]


def directions(nets: Iterable[str]) -> dict[str, str]:
    """The scores that `nets` and the pixels give: name -> "higher", "lower" or "none"."""
    found: dict[str, str] = {}
    for net in nets:
        found |= {f"{name}[{net}]": way for name, way in OF_KIND.get(WEIGHTS[net].kind, {}).items()}
        found |= {"jedi[vjepa]": "lower"} if net == "vjepa" else {}
        found |= {LPIPS: "lower"} if net == LPIPS else {}
        found |= {f"{CLIP_SIM}[{net}]": "higher"} if net in CLIP_NETS else {}
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


def protocol(score: ScoreConfig, data: DataConfig, marks: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """How each available score is measured: score name -> JSON-ready facts, equal for comparable trials.

    `marks` are the trial's fingerprints, for the hashes of weights that the user brought.
    Always: features, frames scored, first_frame ("dropped" or "kept"), fps, size [height, width] in
    pixels, the clips' resize rule, better ("higher", "lower" or "none"). A net adds its input size,
    resize rule and weight hash; a distance adds its divisor or kernel and how features are scaled.
    """
    return {
        name: _clip_facts(name, better, score, data)
        | _net_facts(name, data, score, marks)
        | PARAMETERS.get(family(name), {})
        for name, better in directions(configured(score)).items()
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
    if family(name) in ("fvd", "kvd", "jedi"):
        facts |= _SCALED if net.standardised else {"standardised": "no"}
    return facts
