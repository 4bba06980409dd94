"""The scores that the report of a study is about. Whatever names a score, a sentence or a W&B view, reads them here.

In: the names of the scores of each trial, and those that the user chose. Out: `PrimaryScores`. Names alone, no numbers.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cinelora.metrics.catalogue import ABSDIFF, FAMILIES, FLOWS, family, metric, study_metrics
from cinelora.metrics.feature_nets import WEIGHTS

LOSS = "heldout_loss"
OTHER_LOSS = "other_loss"  # a column only where a dataset has a second domain
STEADINESS = "consistency[mnv2]"
MOTION = ABSDIFF
PICTURE = "psnr"
NETS = ("vjepa", "i3d", "videomae", "tnv2")  # whose distance is taken, the best judge of video first
GAPS = tuple(f"consistency_gap[{net}]" for net in ("dino", "clip_l14", "clip_b32", "mnv2"))  # the best judge first
PROFILES = tuple(f"profile_gap[{metric(gap).net}]" for gap in GAPS)
DISTANCES = tuple(f"{of}[{net}]" for net in NETS for of in ("kvd", "jedi", "fvd"))  # kvd first: it has no bias
STANDARD = "kvd[tnv2]"  # where no trial has a distance


PLAIN_NAMES = {  # by family, for sentences
    LOSS: "held-out loss",
    "kvd": "distance to real clips",
    "jedi": "distance to real clips",
    "fvd": "Fr\u00e9chet distance to real clips",
    "consistency": "steadiness",
    "consistency_gap": "gap in steadiness to the real clip",
    PICTURE: "likeness to the real clip",
    "ssim": "likeness to the real clip",
    "lpips": "visible difference from the real clip",
    "image_similarity": "likeness to the first frame",
    "clip_sim": "likeness to the caption",
}


@dataclass(frozen=True)
class PrimaryScores:
    """`answered`: the rank is chosen by these. `distance`: the first between sets, or else the best there is.

    `gap`, `profile`: consistency, and the curve of similarity over time, against those of the same real clip,
    of the best net that is there, whether answered or not; "" where there is none.
    """

    answered: tuple[str, ...]
    distance: str
    gap: str = ""
    profile: str = ""

    @property
    def net(self) -> str:
        """That of the distance."""
        return metric(self.distance).net

    @property
    def against_real(self) -> tuple[str, ...]:
        """What compares a clip's consistency with that of the same real clip."""
        return tuple(filter(None, (self.gap, self.profile)))

    @property
    def distances(self) -> tuple[str, ...]:
        """The distance, and the Frechet distance of its net."""
        return tuple(dict.fromkeys((self.distance, f"fvd[{self.net}]")))

    @property
    def loss_first(self) -> tuple[str, ...]:
        return tuple(sorted(self.answered, key=lambda score: score != LOSS))

    @property
    def compared(self) -> tuple[str, ...]:
        """The scores of the lines to read; the CSV files have all."""
        return tuple(dict.fromkeys((*self.answered, PICTURE)))

    @property
    def sampled(self) -> tuple[str, ...]:
        """Those of `compared` that change with the sampling noise."""
        return tuple(score for score in self.compared if score != LOSS)

    @property
    def of_clips(self) -> tuple[str, ...]:
        """Scores that a single clip has."""
        own = (score for score in self.loss_first if score == LOSS or metric(score).kind != "set")
        return tuple(dict.fromkeys((*own, self.gap or STEADINESS, PICTURE)))


def primary_scores(trials: Collection[Collection[str]], chosen: Sequence[str] = ()) -> PrimaryScores:
    """`chosen`, or the gap in consistency, if any trial has it, the best distance and the held-out loss; of trials
    without clips the loss alone."""
    gap, best = _best(GAPS, trials), _best(DISTANCES, trials) or STANDARD
    losses = bool(trials) and all(set(known) <= {LOSS, OTHER_LOSS} for known in trials)
    answered = tuple(chosen) or tuple(filter(None, (gap, "" if losses else best, LOSS)))
    distance = next((score for score in answered if is_distance(score)), best)
    return PrimaryScores(
        answered, distance, next((score for score in answered if score in GAPS), gap), _best(PROFILES, trials)
    )


def _best(scores: Sequence[str], trials: Collection[Collection[str]]) -> str:
    """The first that every trial has, or else that some trial has; "" where there is none."""
    shared = (score for score in scores if trials and all(score in known for known in trials))
    return next(shared, next((score for score in scores if any(score in known for known in trials)), ""))


def answerable(nets: Iterable[str], flow: str = "") -> tuple[str, ...]:
    """The scores that can decide in a study with these nets and this optical flow: those with a value per clip and a
    direction that is better."""
    measured = study_metrics(nets, flow)
    known = (each for each in measured if each.entry.better != "none" and each.kind != "trial")
    return (LOSS, *(each.name for each in known if each.kind != "set" or each.distance.clip_values is not None))


def not_answerable(score: str, nets: Iterable[str], flow: str) -> str:
    """Why this score cannot decide in such a study, and the remedy; "" if it can."""
    own, known = answerable(nets, flow), {name for each in FLOWS for name in answerable(WEIGHTS, each)}
    if score in own:
        return ""
    if score in known:
        base = metric(score).base
        remedy = f"score.flow={base}" if base in FLOWS else f"score.{base}"
        return f"this study does not measure it; set {remedy}, or take of {', '.join(own)}"
    near = difflib.get_close_matches(score, own, n=1)
    hint = f"did you mean {near[0]}?" if near else f"take of {', '.join(own)}"
    return f"no score that has a value per clip and a better direction; {hint}"


def plain_name(score: str) -> str:
    """What a score measures, with its name where that differs: distance to real clips (kvd[i3d])."""
    name = PLAIN_NAMES.get(family(score))
    return score if name is None else name if score == LOSS else f"{name} ({score})"


def is_distance(score: str) -> bool:
    return family(score) in FAMILIES and metric(score).kind == "set"
