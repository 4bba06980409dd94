"""What the protocol says of each score, and why another is not there."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass

from cinelora.core.config import DataConfig, ScoreConfig, TrialConfig
from cinelora.core.records import to_dict
from cinelora.features.extract import CLIP_METRICS
from cinelora.metrics.catalogue import (
    COLOURS,
    FAMILIES,
    USUAL,
    family,
    metric,
    protocol,
    study_metrics,
    unavailable,
)
from cinelora.metrics.distances import polynomial_mmd
from cinelora.metrics.feature_nets import WEIGHTS, configured
from cinelora.metrics.few_clips import CHANNELS
from cinelora.metrics.gaps import FORMULAS

WITH_WEIGHTS = ScoreConfig(tnv2="t.safetensors", mnv2="m.safetensors")


def test_every_score_is_available_or_has_its_reason() -> None:
    packaged = {each.name for each in study_metrics(["tnv2", "mnv2", "stlpips"]) if not each.entry.curve}
    for score in (ScoreConfig(), ScoreConfig(tnv2="t"), ScoreConfig(mnv2="m"), WITH_WEIGHTS):
        there, missing = protocol(score, DataConfig(), {}), unavailable(score)
        assert {name for name in there if not metric(name).entry.curve} | set(missing) == packaged | {
            "lpips",
            "clip_sim",
            "fvd[i3d]",
        }
        assert not set(there) & set(missing)
        assert all(reason.startswith("needs ") and "set score." in reason for reason in missing.values())


def test_a_net_of_the_users_brings_its_scores_and_takes_the_reason_away() -> None:
    score = ScoreConfig(i3d="i.pt", vjepa="folder", clip_l14="folder", lpips="alex.pth")
    fingerprints = {"i3d": "11", "vjepa.encoder": "22", "vjepa.probe": "33", "clip_l14": "44", "lpips": "55"}
    facts = protocol(score, DataConfig(frames=33), fingerprints)
    pixels = {"motion[absdiff]", "psnr", "ssim", "temporal_flickering"}
    pixels |= {f"style_distance[{channel}]" for channel in CHANNELS}
    of_clip = {
        f"{name}[clip_l14]"
        for name in ("consistency", "consistency_gap", "profile_gap", "image_similarity", "clip_sim", "tdelta")
    }
    of_clip |= {f"similarity_{apart}[clip_l14]" for apart in (1, 2, 4, 8, 16, 32)}  # 33 frames have none 64 apart
    few = ("fvd", "kvd", "memorisation_ratio", "memorisation_share", "diversity")
    of_sets = {f"{name}[{net}]" for name in few for net in ("i3d", "vjepa")} | {"jedi[vjepa]"}
    assert set(facts) == pixels | of_clip | of_sets | {"lpips"}
    assert not {"lpips", "clip_sim", "fvd[i3d]"} & set(unavailable(score))
    assert unavailable(score)["stlpips[alex]"] == "needs ST-LPIPS weights: set score.stlpips"
    assert facts["fvd[i3d]"]["weights_sha256"] == "11" and facts["fvd[i3d]"]["standardised"] == "no"
    assert facts["jedi[vjepa]"]["weights_sha256"] == {"encoder": "22", "probe": "33"}
    assert facts["fvd[i3d]"]["frames"] == 32 and facts["kvd[vjepa]"]["frames"] == 16  # it sees 16 and no more
    assert (facts["consistency[clip_l14]"]["frames"], facts["clip_sim[clip_l14]"]["frames"]) == (33, 32)
    json.dumps(facts, allow_nan=False)


def test_the_perceptual_score_is_a_further_one_and_says_what_it_rests_on() -> None:
    facts = protocol(ScoreConfig(stlpips="s.safetensors"), DataConfig(frames=17), {"stlpips": "66"})
    plain = protocol(ScoreConfig(), DataConfig(frames=17), {})
    assert set(facts) - set(plain) == {"stlpips[alex]", "neighbours[stlpips]"}
    paired, before = facts["stlpips[alex]"], facts["neighbours[stlpips]"]
    assert paired["weights_sha256"] == before["weights_sha256"] == WEIGHTS["stlpips"].sha256
    assert (paired["frames"], paired["better"]) == (16, "lower") and (before["frames"], before["better"]) == (
        17,
        "none",
    )
    assert paired["network_size"] == "as given" and "stlpips-pytorch 0.0.2, BSD-2-Clause" in paired["trunk"]
    assert FAMILIES["stlpips"].further and FAMILIES["neighbours[stlpips]"].further
    empty = to_dict(TrialConfig(score=ScoreConfig(stlpips="elsewhere")), identity_only=True)["score"]
    assert empty == {"keep_first_frame": False}  # its hash alone is part of a trial's id


def test_empty_paths_leave_no_trace_in_a_trial() -> None:
    plain = to_dict(TrialConfig(score=ScoreConfig()), identity_only=True)["score"]
    assert plain == {"keep_first_frame": False}
    assert configured(ScoreConfig()) == {} and configured(ScoreConfig(dino="d")) == {"dino": "d"}


def test_protocol_says_what_was_measured() -> None:
    facts = protocol(WITH_WEIGHTS, DataConfig(frames=17, fps=8.0, height=32, width=48), {})
    video = facts["fvd[tnv2]"]
    assert (video["frames"], video["first_frame"], video["fps"], video["size"]) == (
        16,
        "dropped",
        8.0,
        [32, 48],
    )
    assert video["weights_sha256"] == WEIGHTS["tnv2"].sha256 and video["network_size"] == [27, 48]
    assert video["covariance"] == "N-1" and video["resize"] == "crop" and video["better"] == "lower"
    assert (facts["consistency[mnv2]"]["frames"], facts["consistency[mnv2]"]["first_frame"]) == (17, "kept")
    kept = protocol(ScoreConfig(keep_first_frame=True), DataConfig(frames=17), {})["psnr"]
    assert (kept["frames"], kept["first_frame"], kept["features"]) == (17, "kept", "pixels")
    json.dumps(facts, allow_nan=False)


def test_a_flow_brings_its_scores() -> None:
    @dataclass
    class WithFlow(ScoreConfig):
        flow: str = "dis"

    facts = protocol(WithFlow(), DataConfig(frames=17), {})
    of_flow = {f"{name}[dis]" for name in ("motion", "warp_error", "warp_excess", "dynamic_degree")}
    assert set(facts) - set(protocol(ScoreConfig(), DataConfig(frames=17), {})) == of_flow
    assert (
        facts["motion[dis]"]["unit"] == "pixels per frame, mean flow length" and "unit" not in facts["motion[absdiff]"]
    )
    error = facts["warp_error[dis]"]
    assert (error["flow"], error["frames"], error["first_frame"]) == ("OpenCV DIS, preset medium", 17, "kept")


def test_every_family_can_be_computed_and_says_which_way_it_points() -> None:
    for name, each in FAMILIES.items():
        assert each.better in ("higher", "lower", "none") and each.kind in ("set", "clip", "paired", "trial"), name
        assert (each.distance is not None) == (each.kind == "set"), name
        measured = each.kind in ("clip", "paired") and each.needs != "training clips" and not each.derived
        assert (name in CLIP_METRICS) == measured and (name in FORMULAS) == bool(each.derived), name
        assert set(each.usual or ()) <= set(each.of), name
        for inside in each.of or ("",):
            found = metric(f"{name}[{inside}]" if inside else name)
            assert found.entry is each and found.net in {"", *WEIGHTS}, name
    assert FAMILIES["motion"].better == "none"  # neither a frozen nor a racing clip wins
    assert COLOURS not in WEIGHTS
    assert len({each.name for each in USUAL}) == len(USUAL)
    assert family("fvd[i3d]") == "fvd" and metric("lpips").base == metric("lpips").net == "lpips"
    assert metric("stlpips[alex]").base == metric("stlpips[alex]").net == "stlpips"


def test_memorisation_and_style_say_what_they_rest_on() -> None:
    facts = protocol(WITH_WEIGHTS, DataConfig(frames=17), {})
    ratio, style = facts["memorisation_ratio[tnv2]"], facts["style_distance[y]"]
    assert ratio["standardised"] == "training clips' mean and standard deviation" and ratio["frames"] == 16
    assert (style["features"], style["frames"], style["better"]) == ("pixels", 16, "lower")
    assert facts["tdelta[mnv2]"]["frames"] == facts["temporal_flickering"]["frames"] == 17


def test_protocol_kernel_is_the_default_of_the_distance() -> None:
    kernel = protocol(WITH_WEIGHTS, DataConfig(), {})["kvd[tnv2]"]["kernel"]
    defaults = inspect.signature(polynomial_mmd).parameters
    assert all(kernel[name] == defaults[name].default for name in ("degree", "coef0", "unbiased"))
    assert kernel["gamma"] == "1/D" and defaults["gamma"].default is None
