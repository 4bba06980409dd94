"""The scores, the direction in which each is better, and the value of each for every trial.

In: a `Study`. Out: `TrialScores`: one number per (trial, score) on the clips that all finished trials have, so that the
same clips are compared; `gaps` lists what a trial lacks. Pure: no files. A score that no trial has is in `unavailable`
with the reason. Definitions of the scores of small training sets: `cinelora/metrics/few_clips.py`. N clips, M training
clips, D features.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np

from analysis.study.files import Array, Clips, Features
from analysis.study.load import Reference, Study, Trial
from cinelora.core.cli import UserError
from cinelora.core.config import Method, TrialConfig, seed_text
from cinelora.core.records import reference_key
from cinelora.metrics.catalogue import COLOURS, FAMILIES, FLOWS, study_metrics
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.few_clips import CHANNELS, LEVELS, style_distance
from cinelora.metrics.gaps import sources
from cinelora.metrics.primary import LOSS, MOTION, OTHER_LOSS, PICTURE, STEADINESS
from cinelora.metrics.set_metrics import definition, scaled, scores_of_net

Item = TypeVar("Item")
Found = TypeVar("Found")


def threaded(work: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """work(item) of every item, in their order, one thread per core.

    NumPy's products, powers and sums let other threads run meanwhile; its singular values do not.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))


def style_to(train: Array) -> Callable[[Array], dict[str, float]]:
    """Colour histograms of clips (N, 3 x 256) -> distance in levels of their mean from that of `train` (M, 3 x 256)."""
    target = train.reshape(-1, len(CHANNELS), LEVELS)

    def measure(generated: Array) -> dict[str, float]:
        levels = style_distance(generated.reshape(-1, len(CHANNELS), LEVELS).mean(axis=0), target)
        return {f"style_distance[{channel}]": float(each) for channel, each in zip(CHANNELS, levels, strict=True)}

    return measure


def diversities(study: Study, rows: Iterable[Sequence[Trial]], clips: Clips) -> dict[str, dict[str, float]]:
    """trial id -> diversity[net] -> mean distance of its clips to those of the other seeds of its row.

    The mean over the trials of a row is the mean over all pairs of its seeds. Rows of one trial have none.
    """

    def of_row(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        shared = [net for net in WEIGHTS if all(net in trial.features for trial in trials)]
        for net in shared if len(trials) > 1 else []:
            apart = _apart(_features(study, trials, net, clips))
            for trial, value in zip(trials, apart.sum(axis=1) / (len(trials) - 1), strict=True):
                found.setdefault(trial.spec.trial_id, {})[f"diversity[{net}]"] = float(value)
        return found

    return {name: values for found in threaded(of_row, rows) for name, values in found.items()}


def _features(study: Study, trials: Sequence[Trial], net: str, clips: Clips) -> list[Array]:
    """Of every trial (N, D), scaled as for distances to the reference clips."""
    real = study.reference_of(trials[0]).features.get(net)
    made = [trial.features[net].of(clips) for trial in trials]
    return made if real is None or len(clips) < 2 else list(scaled(net, real.of(clips), *made)[1:])


def _apart(made: Sequence[Array]) -> Array:
    """Mean distance of the clips of each pair of seeds, (S, S); NaN where a feature is not finite."""
    out, known = np.zeros((len(made), len(made))), [np.isfinite(each).all() for each in made]
    for i, j in combinations(range(len(made)), 2):
        out[i, j] = out[j, i] = np.linalg.norm(made[i] - made[j], axis=1).mean() if known[i] and known[j] else np.nan
    return out


OLDER = "made before this score; score again"
LOWER, HIGHER, NONE = "lower", "higher", "none"
CORE: Mapping[str, str] = {  # always in the files, n/a where no trial has it
    LOSS: LOWER,
    OTHER_LOSS: LOWER,  # on the dataset's second domain: what was forgotten
    "kvd[tnv2]": LOWER,
    "fvd[tnv2]": LOWER,
    "consistency_gap[mnv2]": LOWER,  # to the same real clip
    "profile_gap[mnv2]": LOWER,  # of the curve of similarity over time
    STEADINESS: HIGHER,
    MOTION: NONE,  # no direction: to be compared with the real clips
    PICTURE: HIGHER,
    "ssim": HIGHER,
    "image_similarity[mnv2]": HIGHER,
}
METRICS = {each.name: each for flow in FLOWS for each in study_metrics(WEIGHTS, flow)}  # all of trials but losses
_OTHERS = [each for name, each in METRICS.items() if name not in CORE and not each.entry.curve]
FURTHER: Mapping[str, str] = {  # a table of their own, of those that a trial has
    each.name: each.entry.better for of in FAMILIES.values() if of.further for each in _OTHERS if each.entry is of
}
FURTHER_TEXTS = {  # by family, for captions
    "temporal_flickering": "temporal_flickering: VBench's, 1 for a frozen clip.",
    "tdelta": "tdelta: mean step between the features of neighbouring frames.",
    "warp_error": "warp_error: difference of a frame from the one before, moved along the optical flow, in levels; "
    "warp_excess: what exceeds that of the reference clip.",
    "stlpips": "stlpips: shift-tolerant LPIPS of each frame to that of the real clip; neighbours[stlpips]: to the one "
    "before.",
    "style_distance": "style_distance: by how many levels of luma and chroma the mean clip differs from that of "
    "the training clips; the real clips show how much of it other content alone explains.",
    "diversity": "diversity: mean distance between clips that differ in the training seed alone: variety where the "
    "clips are good, unstable training where they are not.",
}
OPTIONAL: Mapping[str, str] = {  # of the nets whose weights a user brings: shown only where a trial has them
    each.name: each.entry.better for each in _OTHERS if not each.entry.further
}
DIRECTIONS: Mapping[str, str] = {**CORE, **OPTIONAL, **FURTHER}
TABLE_SCORES = tuple(name for name in CORE if name not in (OTHER_LOSS, "image_similarity[mnv2]"))
FROZEN_WINS = tuple(name for name in DIRECTIONS if name in METRICS and METRICS[name].entry.frozen_wins)

SetScorer = Callable[[Trial], dict[str, float]]  # the scores of a trial that one feature set gives
SET_SCORES: Mapping[str, str] = {  # name -> its net
    name: METRICS[name].net for name in DIRECTIONS if name in METRICS and METRICS[name].kind == "set"
}
CLIP_SCORES = tuple(
    name for name in DIRECTIONS if (METRICS[name].kind in ("clip", "paired") if name in METRICS else name != OTHER_LOSS)
)


@dataclass(frozen=True)
class TrialScores:
    """`values[trial_id][score]`: mean over `clips`, set score or loss; `real[score]`: mean."""

    values: Mapping[str, Mapping[str, float]]
    real: Mapping[str, float]  # of the real clips, for scores defined on them
    clips: tuple[str, ...]  # the ids every finished trial has, sorted
    reference_clips: int  # real clips behind the set scores
    unavailable: Mapping[str, str]  # score that no trial has -> reason
    gaps: tuple[str, ...]  # one sentence for each thing a trial lacks


def trial_scores(study: Study) -> TrialScores:
    """Every score of every finished trial, on the clips common to all of them."""
    clips, gaps = common_clips(study.trials)
    train = study.reference.train.get(COLOURS)
    style = None if train is None else style_to(train.values)  # the sweep's, for its controls too
    scorers = {key: _set_scorers(reference, style, clips) for key, reference in study.references.items()}
    found = threaded(lambda trial: _of_trial(trial, scorers[reference_key(trial.spec)], clips), study.trials)
    values = {trial.result.trial_id: of_trial for trial, of_trial in zip(study.trials, found, strict=True)}
    known = {score for scores in values.values() for score in scores}
    real = {
        score: _mean(found.of(tuple(clip for clip in clips if clip in found)))
        for score, found in study.reference.scores.items()
        if score in DIRECTIONS and any(clip in found for clip in clips)
    }
    if COLOURS in study.reference.features and style is not None:
        real |= style(study.reference.features[COLOURS].of(clips))
    reference = next(iter(study.reference.features.values()), None)
    reasons = _reasons(study, known)
    gaps += _holes(study, values, known) + _unknown_numbers(study)
    return TrialScores(values, real, clips, len(reference.ids) if reference else 0, reasons, tuple(gaps))


def common_clips(trials: tuple[Trial, ...]) -> tuple[Clips, list[str]]:
    """The clip ids that every score and feature of every trial has, and a sentence per trial lacking some."""
    sources = [(trial, name, ids) for trial in trials for name, ids in _clip_ids(trial).items()]
    lists = {ids for _, _, ids in sources}  # mostly one
    every = sorted({clip for ids in lists for clip in ids})
    common = tuple(sorted(set(every).intersection(*lists)))
    if not common:
        raise UserError(f"no clip is scored in all {len(trials)} finished trials, so they cannot be compared")
    lacking = {ids: sorted(set(every).difference(ids)) for ids in lists}
    gaps = []
    for trial, name, ids in sources:
        if absent := lacking[ids]:
            shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            gaps.append(
                f"{label(trial)} lacks {name} of {len(absent)} of {len(every)} clips ({shown}); "
                f"all trials are compared on the {len(common)} clips that every trial has."
            )
    return common, gaps


def shown_optional(scores: TrialScores) -> tuple[str, ...]:
    """The optional scores that some trial has."""
    return tuple(name for name in OPTIONAL if any(name in found for found in scores.values.values()))


def shown_further(scores: TrialScores) -> tuple[str, ...]:
    """The further scores that some trial has."""
    return tuple(name for name in FURTHER if any(name in found for found in scores.values.values()))


def label(trial: Trial) -> str:
    """A trial, in a sentence."""
    config = trial.spec.config
    return f"trial {trial.spec.trial_id} ({spec_name(config)}, seed {seed_text(config.seed)})"


def spec_name(config: TrialConfig) -> str:
    """base, rank 8, full fine-tune; with its arm before it where it is a control."""
    names = {Method.full: "full fine-tune", Method.frozen: config.method.title}
    unknown = config.method is Method.clips and config.clips_rank < 0
    name = names.get(config.method) or ("" if unknown else name_of(config.rank))
    return ", ".join(part for part in (config.arm, name, config.trainer, config.label) if part)


def name_of(rank: int) -> str:
    return f"rank {rank}" if rank else "base"


def _clip_ids(trial: Trial) -> dict[str, Clips]:
    ids = {name: found.ids for name, found in trial.scores.items() if name in DIRECTIONS}
    used = {COLOURS, *SET_SCORES.values()}
    return ids | {f"{name} features": found.ids for name, found in trial.features.items() if name in used}


def _set_scorers(
    reference: Reference, style: Callable[[Array], dict[str, float]] | None, clips: Clips
) -> dict[str, SetScorer]:
    """Feature set -> its set scores against this reference; without those whose reference features are missing."""
    nets = {net: found for net, found in reference.features.items() if net in WEIGHTS}
    there = {net: found for net, found in nets.items() if set(clips) <= set(found.ids)}
    scorers = {net: _set_scorer(net, found, clips) for net, found in there.items()} if len(clips) > 1 else {}
    return scorers if style is None else scorers | {COLOURS: lambda trial: style(trial.features[COLOURS].of(clips))}


def _set_scorer(net: str, real: Features, clips: Clips) -> SetScorer:
    """The recorded scores, if they are of these clips, features and definition; else computed from the features."""
    reference = real.of(clips)

    def scores(trial: Trial) -> dict[str, float]:
        made, kept = trial.features[net], trial.set_scores.get(net)
        basis = None if kept is None else (kept.definition, kept.made, kept.real)
        if kept is not None and basis == (definition(net), made.fingerprint, real.fingerprint) and made.ids == clips:
            return dict(kept.scores)
        return scores_of_net(net, made.of(clips), reference)

    return scores


def _of_trial(trial: Trial, scorers: Mapping[str, SetScorer], clips: Clips) -> dict[str, float]:
    other = trial.result.other_loss
    out = {} if other is None else {OTHER_LOSS: other}
    for features, scores in scorers.items():
        if features in trial.features:
            out |= scores(trial)
    return out | {score: _mean(trial.scores[score].of(clips)) for score in CLIP_SCORES if score in trial.scores}


def _mean(values: Array) -> float:
    """NaN and infinity propagate: one such clip shows in the mean."""
    return float(np.mean(values)) if len(values) else math.nan


def _reasons(study: Study, known: set[str]) -> dict[str, str]:
    """Why a score has no number in any trial, in the words the trials recorded."""
    recorded: dict[str, set[str]] = {}
    for trial in study.trials:
        for score, reason in trial.result.unavailable.items():
            recorded.setdefault(score, set()).add(reason)
    reasons = {score: "; ".join(sorted(said)) for score, said in recorded.items() if score not in known}
    if not study.generated:  # one note says it of all scores
        return {}
    for score in TABLE_SCORES:
        if score not in known and score not in reasons:
            reasons[score] = _guess(study, score)
    return dict(sorted(reasons.items()))


def _guess(study: Study, score: str) -> str:
    if score == LOSS and all(not trial.spec.config.method.has_model for trial in study.trials):
        return "finished clips have no model to ask"
    if score in SET_SCORES:
        features = SET_SCORES[score]
        if features not in study.reference.features:
            return f"reference/features/{features}.npz is missing"
        return "needs 2 clips or more" if study.trials[0].features else f"no trial has {features} features"
    if score in METRICS and (derived := METRICS[score].entry.derived):
        needed = derived[0] if len(derived) == 1 else f"{derived[0]}, ..."
        net, known = METRICS[score].net, study.trials[0].scores
        own = any(each in METRICS and METRICS[each].net == net for each in known)
        return (
            OLDER
            if own and not sources(METRICS[score], known)
            else f"needs {needed} of the generated and of the real clips"
        )
    return "no trial recorded it"


def _holes(study: Study, values: Mapping[str, Mapping[str, float]], known: set[str]) -> list[str]:
    """A sentence for each score that some trials have and this one has not."""
    return [
        f"{label(trial)} has no {score}: {trial.result.unavailable.get(score, _not_recorded(score))}."
        for trial in study.trials
        for score in (*CORE, *OPTIONAL)
        if score in known and score not in values[trial.result.trial_id]
        if score not in (LOSS, OTHER_LOSS) or trial.spec.config.method.has_model
    ]


def _not_recorded(score: str) -> str:
    return OLDER if score in METRICS and METRICS[score].entry.derived else "not recorded"


def _unknown_numbers(study: Study) -> list[str]:
    """A sentence for each trial and score with values that are not finite."""
    out = []
    for trial in study.trials:
        for score, found in sorted(trial.scores.items()):
            bad = np.flatnonzero(~np.isfinite(found.numbers))
            if len(bad):
                out.append(f"{label(trial)}: {score} of {len(bad)} clips is not finite (first: {found.ids[bad[0]]}).")
    return out
