"""Which scores exist, which way they point, and the value of each for one trial.

In: a `Study`. Out: `TrialScores`: one number per (trial, score) on the clips that ALL finished trials
have, since only the same clips can be compared; what a trial lacks is told in `gaps`.
Pure: no files. A score without weights is absent here and has its reason in `unavailable`.
N clips, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.load import Study, Trial
from cinelora.config import Method, TrialConfig
from cinelora.distances import fit_gaussian, frechet_between, kernel_distance, polynomial_mmd, standardise
from cinelora.errors import UserError
from cinelora.protocol import directions, family
from cinelora.records import reference_key
from cinelora.weights import WEIGHTS

LOWER, HIGHER, NONE = "lower", "higher", "none"
CORE: Mapping[str, str] = {  # always in the files, n/a where it is not there
    "heldout_loss": LOWER,
    "other_loss": LOWER,  # on the dataset's second domain: what was forgotten
    "kvd[tnv2]": LOWER,
    "fvd[tnv2]": LOWER,
    "consistency[mnv2]": HIGHER,
    "motion[absdiff]": NONE,  # neither: to be compared with the real clips
    "psnr": HIGHER,
    "ssim": HIGHER,
    "image_similarity[mnv2]": HIGHER,
}
OPTIONAL: Mapping[str, str] = {  # of the nets whose weights a user brings: shown only where a trial has them
    name: way for name, way in directions(WEIGHTS).items() if name not in CORE
}
DIRECTIONS: Mapping[str, str] = {**CORE, **OPTIONAL}
OTHER_LOSS = "other_loss"  # a column only where a dataset has a second domain
TABLE_SCORES = tuple(name for name in CORE if name not in (OTHER_LOSS, "image_similarity[mnv2]"))
MOTION = "motion[absdiff]"

Array = NDArray[np.float64]
DISTANCES: Mapping[str, Callable[[Array, Array], float]] = {
    "kvd": lambda real, made: float(polynomial_mmd(real, made, degree=3, matched=True)),
    "fvd": lambda real, made: frechet_between(fit_gaussian(real), fit_gaussian(made)),
    "jedi": lambda real, made: kernel_distance(made, real, "jedi"),
}
SET_SCORES: Mapping[str, tuple[str, Callable[[Array, Array], float]]] = {
    name: (name.partition("[")[2].removesuffix("]"), DISTANCES[family(name)])
    for name in DIRECTIONS
    if family(name) in DISTANCES
}
CLIP_SCORES = tuple(name for name in DIRECTIONS if name not in SET_SCORES and name != OTHER_LOSS)


@dataclass(frozen=True)
class TrialScores:
    """`values[trial_id][score]`: mean over `clips`, set score or loss; `real[score]`: mean."""

    values: Mapping[str, Mapping[str, float]]
    real: Mapping[str, float]  # of the true clips, where the score has a meaning for them
    clips: tuple[str, ...]  # the ids every finished trial has, sorted
    reference_clips: int  # real clips behind the set scores
    unavailable: Mapping[str, str]  # score that no trial has -> reason
    gaps: tuple[str, ...]  # one sentence for each thing a trial lacks


def trial_scores(study: Study) -> TrialScores:
    """Every score of every finished trial, on the clips common to all of them."""
    clips, gaps = common_clips(study.trials)
    values = {trial.result.trial_id: _of_trial(study, trial, clips) for trial in study.trials}
    known = {score for scores in values.values() for score in scores}
    real = {
        score: _mean([found[clip] for clip in clips if clip in found])
        for score, found in study.reference.scores.items()
        if score in DIRECTIONS and any(clip in found for clip in clips)
    }
    reference = next(iter(study.reference.features.values()), None)
    reasons = _reasons(study, known)
    gaps += _holes(study, values, known) + _unknown_numbers(study)
    return TrialScores(values, real, clips, len(reference.ids) if reference else 0, reasons, tuple(gaps))


def common_clips(trials: tuple[Trial, ...]) -> tuple[tuple[str, ...], list[str]]:
    """The clip ids that every score and feature of every trial has, and a sentence per trial lacking some."""
    sources = [(trial, name, ids) for trial in trials for name, ids in _clip_ids(trial).items()]
    every = sorted({clip for _, _, ids in sources for clip in ids})
    common = tuple(clip for clip in every if all(clip in ids for _, _, ids in sources))
    if not common:
        raise UserError(f"no clip is scored in all {len(trials)} finished trials, so they cannot be compared")
    gaps = []
    for trial, name, ids in sources:
        absent = [clip for clip in every if clip not in ids]
        if absent:
            shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            gaps.append(
                f"{label(trial)} lacks {name} of {len(absent)} of {len(every)} clips ({shown}); "
                f"all trials are compared on the {len(common)} clips that every trial has."
            )
    return common, gaps


def set_score(score: str, reference: Array, made: Array) -> float:
    """A set score of made (N, D) against the reference of the same clips (N, D); NaN in, NaN out."""
    if not (np.isfinite(reference).all() and np.isfinite(made).all()):
        return math.nan
    net, distance = SET_SCORES[score]
    real, other = standardise(reference, made) if WEIGHTS[net].standardised else (reference, made)
    return distance(real, other)


def shown_optional(scores: TrialScores) -> tuple[str, ...]:
    """The optional scores that some trial has."""
    return tuple(name for name in OPTIONAL if any(name in found for found in scores.values.values()))


def label(trial: Trial) -> str:
    """How a sentence names a trial."""
    config = trial.spec.config
    return f"trial {trial.spec.trial_id} ({spec_name(config)}, seed {config.seed})"


def spec_name(config: TrialConfig) -> str:
    """base, rank 8, full fine-tune; with its arm before it where it is a control."""
    names = {Method.base: name_of(0), Method.lora: name_of(config.lora.rank), Method.full: "full fine-tune"}
    return ", ".join(part for part in (config.arm, names[config.method]) if part)


def name_of(rank: int) -> str:
    return f"rank {rank}" if rank else "base"


def _clip_ids(trial: Trial) -> dict[str, frozenset[str]]:
    ids = {name: frozenset(found) for name, found in trial.scores.items() if name in DIRECTIONS}
    used = {features for features, _ in SET_SCORES.values()}
    features = {f"{name} features": each for name, each in trial.features.items() if name in used}
    return ids | {name: frozenset(each.ids) for name, each in features.items()}


def _of_trial(study: Study, trial: Trial, clips: tuple[str, ...]) -> dict[str, float]:
    other = trial.result.other_loss
    out = {} if other is None else {OTHER_LOSS: other}
    for score, (features, _) in SET_SCORES.items():
        true = study.references[reference_key(trial.spec)]
        reference, made = true.features.get(features), trial.features.get(features)
        if reference and made and set(clips) <= set(reference.ids) and len(clips) > 1:
            out[score] = set_score(score, reference.of(clips), made.of(clips))
    for score in CLIP_SCORES:
        if score in trial.scores:
            out[score] = _mean([trial.scores[score][clip] for clip in clips])
    return out


def _mean(values: list[float]) -> float:
    """NaN or infinity stays in sight: a broken clip makes a broken mean."""
    return float(np.mean(values)) if values else math.nan


def _reasons(study: Study, known: set[str]) -> dict[str, str]:
    """Why a score has no number in any trial, in the words the trials recorded."""
    recorded: dict[str, set[str]] = {}
    for trial in study.trials:
        for score, reason in trial.result.unavailable.items():
            recorded.setdefault(score, set()).add(reason)
    reasons = {score: "; ".join(sorted(said)) for score, said in recorded.items() if score not in known}
    for score in TABLE_SCORES:
        if score not in known and score not in reasons:
            reasons[score] = _guess(study, score)
    return dict(sorted(reasons.items()))


def _guess(study: Study, score: str) -> str:
    if score in SET_SCORES:
        features = SET_SCORES[score][0]
        if features not in study.reference.features:
            return f"reference/features/{features}.npz is missing"
        return "needs 2 clips or more" if study.trials[0].features else f"no trial has {features} features"
    return "no trial recorded it"


def _holes(study: Study, values: Mapping[str, Mapping[str, float]], known: set[str]) -> list[str]:
    """A sentence for each score that some trials have and this one has not."""
    return [
        f"{label(trial)} has no {score}: {trial.result.unavailable.get(score, 'not recorded')}."
        for trial in study.trials
        for score in DIRECTIONS
        if score in known and score not in values[trial.result.trial_id]
    ]


def _unknown_numbers(study: Study) -> list[str]:
    """A sentence for each trial and score with values that are no finite number."""
    out = []
    for trial in study.trials:
        for score, found in sorted(trial.scores.items()):
            bad = sorted(clip for clip, value in found.items() if not math.isfinite(value))
            if bad:
                out.append(f"{label(trial)}: {score} of {len(bad)} clips is not finite (first: {bad[0]}).")
    return out
