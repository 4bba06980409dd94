"""Self-tests on footage: which faults a feature net and a clip metric must respond to, and in which order.

In: `Evidence` of one set of clips, measured in `cinelora/score/selftest/__main__.py`. Out: findings; pure, no files,
no nets. Numbers 5 to 15, 17 and 18. A distance is kvd between the clips with a fault and the same clips without, as a
study compares generated with reference clips; so the clean clips are at 0 and nothing else differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cinelora.score.selftest.distortions import CRFS, FLICKER_PERCENT, SWAPS
from cinelora.score.selftest.exact import Check, Finding

BLIND = 0.03  # a content net may move by this share of its move under a static warp
SAME = 0.15  # content nets: static and per-frame warp this close (Ge et al. 2024)
SHIFT_RATIO, WARP_RATIO = 1.3, 2.0  # temporal nets: per-frame over static fault, at least
STATIC_SHARE = 0.25  # static noise may move a temporal metric by this share of its move under fresh noise
DOUBLE, HALF = (1.5, 2.5), (0.4, 0.6)  # motion at twice and half the speed over motion
ONE_CLIP_FAULTS = ("shuffle", f"swap {SWAPS[-1]}", "freeze", "hold 4", "reverse", "jitter")


@dataclass(frozen=True)
class Evidence:
    """What was measured on one set of clips; every inner mapping has the faults of `DISTORTIONS` as keys, but
    a distance to the clean clip, frame by frame, has none at double speed."""

    footage: str
    sees_time: Mapping[str, bool]  # net -> does its feature depend on the order of frames
    distance: Mapping[str, Mapping[str, float]]  # net -> fault -> kvd to the same clips without it
    between: Mapping[str, float]  # net -> kvd of clean clips of other shots, for scale
    scores: Mapping[str, Mapping[str, float]]  # clip score -> fault -> mean over clips

    @property
    def temporal(self) -> list[str]:
        return [net for net in self.distance if self.sees_time[net]]

    @property
    def content(self) -> list[str]:
        return [net for net in self.distance if not self.sees_time[net]]

    def scored(self, *names: str) -> dict[str, Mapping[str, float]]:
        """Scores of these names with any net or flow in their brackets: full name -> fault -> mean."""
        return {key: values for key, values in self.scores.items() if key.split("[")[0] in names}


def shuffled_content(seen: Evidence) -> list[Finding]:
    return [_blind(seen, net, "shuffle") for net in seen.content]


def disorder(seen: Evidence) -> list[Finding]:
    order = ("clean", *(f"swap {pairs}" for pairs in SWAPS), "shuffle")
    return [_rising(net, seen.distance[net], order) for net in seen.temporal]


def standstill(seen: Evidence) -> list[Finding]:
    """A frozen clip that gains in consistency must lose in motion."""
    out = [_rising(net, seen.distance[net], ("clean", "hold 2", "hold 4", "freeze")) for net in seen.temporal]
    gains = seen.scored("temporal_flickering", "consistency")
    out += [_rising(name, score, ("clean", "freeze")) for name, score in gains.items()]
    for name, score in seen.scored("motion").items():
        out.append(Finding(name, score["freeze"] == 0 < score["clean"], f"frozen {score['freeze']:.3g}: must be 0"))
    return out


def shifts(seen: Evidence) -> list[Finding]:
    return [_apart(seen, net, "static shift", "jitter", SHIFT_RATIO) for net in seen.temporal]


def warps(seen: Evidence) -> list[Finding]:
    out = [_apart(seen, net, "static warp", "warp per frame", WARP_RATIO) for net in seen.temporal]
    for net in seen.content:
        static, fresh = seen.distance[net]["static warp"], seen.distance[net]["warp per frame"]
        within = max(static, fresh) <= (1 + SAME) * min(static, fresh)
        out.append(Finding(net, within, f"{fresh:.3g} per frame, {static:.3g} static: within {SAME:.0%}"))
    return out


def grain(seen: Evidence) -> list[Finding]:
    out = []
    for name, score in seen.scored("temporal_flickering", "tdelta").items():
        static, fresh = (abs(score[fault] - score["clean"]) for fault in ("static noise", "fresh noise"))
        text = f"moves by {fresh:.3g} under fresh noise, {static:.3g} under static noise"
        out.append(Finding(name, static <= STATIC_SHARE * fresh, text))
    return out


def flickers(seen: Evidence) -> list[Finding]:
    order = ("clean", *(f"flicker {percent:g} %" for percent in FLICKER_PERCENT))
    out = [_rising(net, seen.distance[net], order) for net in seen.temporal]
    out += [_rising(name, score, order) for name, score in seen.scored("warp_error").items()]
    return out + [_rising(name, score, order[::-1]) for name, score in seen.scored("temporal_flickering").items()]


def arrow_of_time(seen: Evidence) -> list[Finding]:
    out = [_blind(seen, net, "reverse") for net in seen.content]
    for net in seen.temporal:
        backward, per_frame = seen.distance[net]["reverse"], seen.distance[net]["warp per frame"]
        share = backward / per_frame
        out.append(Finding(net, None, f"reversed play is {share:+.3f} of a warp per frame"))
    return out


def speed(seen: Evidence) -> list[Finding]:
    out = []
    for name, motion in seen.scored("motion").items():
        for fault, (low, high) in (("double speed", DOUBLE), ("half speed", HALF)):
            ratio = motion[fault] / motion["clean"]
            out.append(Finding(name, low <= ratio <= high, f"{fault}: x{ratio:.2f}, expected {low} to {high}"))
    return out


def protocol_effects(seen: Evidence) -> list[Finding]:
    out = []
    for net, distance in seen.distance.items():
        out.append(_rising(net, distance, ("clean", *(f"crf {crf}" for crf in CRFS))))
        out.append(Finding(net, None, f"cropped {distance['cropped']:.3g}, squashed {distance['squashed']:.3g}"))
    return out


def mixtures(seen: Evidence) -> list[Finding]:
    """Two clips in one: no fault of a single clip may score worse than a change of picture at every frame."""
    out = []
    for net in seen.temporal:
        out.append(_rising(net, seen.distance[net], ("clean", "switch", "interleave")))
        out.append(_worst(net, seen.distance[net], ONE_CLIP_FAULTS, "interleave"))
    for name, score in seen.scored("warp_error", "tdelta").items():
        out.append(_worst(name, score, (*ONE_CLIP_FAULTS, "switch"), "interleave"))
        out.append(_rising(name, score, ("clean", "switch")))
    return out


def gaps_to_real(seen: Evidence) -> list[Finding]:
    """Neither stillness nor disorder is near the real clip. Warp excess sees disorder alone."""
    out = []
    for name, score in seen.scored("consistency_gap", "profile_gap").items():
        out.append(Finding(name, score["clean"] == 0, f"the clean clip itself {score['clean']:.3g}: must be 0"))
        out.append(_rising(name, score, ("clean", "hold 2", "hold 4", "freeze")))
        out.append(_rising(name, score, ("clean", *(f"swap {pairs}" for pairs in SWAPS))))
    for name, score in seen.scored("warp_excess").items():
        out.append(_rising(name, score, ("clean", "warp per frame", "interleave")))
        out.append(Finding(name, score["clean"] == 0, f"the clean clip itself {score['clean']:.3g}: must be 0"))
        out.append(Finding(name, None, f"frozen {score['freeze']:.3g}: below the clean clip, not above"))
    return out


def perceptual(seen: Evidence) -> list[Finding]:
    """The distance to the real clip sees each frame alone; that of neighbouring frames knows no real clip."""
    disorder = ("clean", *(f"swap {pairs}" for pairs in SWAPS), "shuffle")
    flicker = ("clean", *(f"flicker {percent:g} %" for percent in FLICKER_PERCENT))
    codec, still = ("clean", *(f"crf {crf}" for crf in CRFS)), ("clean", "hold 2", "hold 4", "freeze")
    damage, mixed = ("static shift", "static warp", "static noise"), ("clean", "warp per frame", "interleave")
    out = []
    for name, score in seen.scored("stlpips").items():
        out.append(Finding(name, score["clean"] == 0, f"the clean clip itself {score['clean']:.3g}: must be 0"))
        out += [_rising(name, score, order) for order in (still, disorder, flicker, codec, damage)]
        static, fresh = score["static warp"], score["warp per frame"]
        out.append(Finding(name, None, f"warped: {fresh:.3g} per frame, {static:.3g} static"))
    for name, score in seen.scored("neighbours").items():
        out.append(Finding(name, score["freeze"] == 0, f"frozen {score['freeze']:.3g}: must be 0"))
        out += [_rising(name, score, order) for order in (disorder, flicker, mixed)]
    return out


FOOTAGE_CHECKS: tuple[Check, ...] = (
    Check(5, "content net, shuffled", "a net of single frames does not depend on their order", shuffled_content),
    Check(6, "disorder", "clean < 1 < 2 < 4 < 8 swapped pairs < shuffled", disorder),
    Check(7, "standstill", "clean < hold 2 < hold 4 < frozen; consistency rises and motion falls", standstill),
    Check(8, "jitter or shift", "a new shift per frame is above 1.3 x one shift for all", shifts),
    Check(9, "warp per frame or one", "temporal nets 2 x apart, content nets within 15 %", warps),
    Check(10, "fresh or static noise", "flicker and tdelta respond to fresh noise only", grain),
    Check(11, "flicker", "clean < 2 % < 5 % < 10 %", flickers),
    Check(12, "reversed play", "content nets do not depend on it; the others are recorded", arrow_of_time),
    Check(13, "speed", "motion doubles and halves with the speed", speed),
    Check(14, "codec and resize", "clean < crf 18 < 28 < 38; what crop and squash do is recorded", protocol_effects),
    Check(15, "two clips in one", "changing the clip every frame is the worst; one cut is noticed", mixtures),
    Check(17, "gap to the real clip", "0 for the clip itself; rises with stillness and with disorder", gaps_to_real),
    Check(
        18, "perceptual distance", "0 for the clip itself, and a frozen one's frames; rises with the dose", perceptual
    ),
)


def sensitivity(seen: Evidence, net: str) -> float | None:
    """Distance under a new warp per frame over distance under one static warp; 1: the net does not depend on time.

    The experiment of Ge et al. 2024. None where the static distance is not above 0, as an unbiased estimate may be.
    """
    static, fresh = seen.distance[net]["static warp"], seen.distance[net]["warp per frame"]
    return fresh / static if static > 0 else None


def _rising(subject: str, values: Mapping[str, float], order: Sequence[str]) -> Finding:
    ok = all(values[a] < values[b] for a, b in pairwise(order))
    return Finding(subject, ok, " < ".join(f"{fault} {values[fault]:.3g}" for fault in order))


def _worst(subject: str, values: Mapping[str, float], others: Sequence[str], worst: str) -> Finding:
    second = max(others, key=values.__getitem__)
    text = f"{worst} {values[worst]:.3g} above {second} {values[second]:.3g}"
    return Finding(subject, values[worst] > values[second], text)


def _blind(seen: Evidence, net: str, fault: str) -> Finding:
    moved, allowed = abs(seen.distance[net][fault]), BLIND * seen.distance[net]["static warp"]
    return Finding(net, moved <= allowed, f"{fault} {moved:.3g}, at most {allowed:.3g} allowed")


def _apart(seen: Evidence, net: str, static: str, fresh: str, ratio: float) -> Finding:
    low, high = seen.distance[net][static], seen.distance[net][fresh]
    return Finding(net, high > max(0.0, ratio * low), f"{fresh} {high:.3g} above {ratio} x {static} {low:.3g}")
