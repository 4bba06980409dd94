"""The words under the rank table: protocol, alpha rule, what is not available, what was not compared.

In: `Estimates`. Out: plain sentences. Pure: no files. Every number stated comes from the plan
or from what was read, none is assumed; a setting that differs between trials is given as a/b.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.study.load import Study
from analysis.study.rows import Estimates
from analysis.study.scores import FROZEN_WINS, FURTHER_TEXTS, SET_SCORES, spec_name
from cinelora.core.config import UNKNOWN_SEED, LoraConfig, Method, Resize, Scaling, TargetSet, TrialConfig
from cinelora.metrics.catalogue import family, step_cache_of
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.influence import too_few_clips
from cinelora.metrics.set_metrics import scaled
from sweeps.rates import total_hours

TRAINING_CLIPS = {"memorisation_ratio", "memorisation_share", "style_distance"}  # scores that compare with them
BANNER = "untrained base: plumbing only"
RESIZE = {Resize.crop: "shorter side to size, then centre crop", Resize.squash: "both sides to size"}
NO_CLIPS = "All scores but the held-out loss: n/a (sample.clips=false, so no clip was generated)."


def caption(estimates: Estimates) -> str:
    """The protocol in a few sentences."""
    study = estimates.study
    return " ".join(
        (
            _clips(estimates) + _step_cache(study),
            _set_scores(estimates),
            "Scores are means over clips, then over seeds; behind a mean, the smallest and the largest seed."
            + " Motion is to be compared with the real clips, more is not better." * study.generated,
            _scaling(study),
            _looks(study),
        )
    ).strip()


def _looks(study: Study) -> str:
    """Of a study that went on until it knew: when it looked, at which levels, and which ranks were dropped."""
    looks = study.looks
    if looks is None or not looks.taken:
        return ""
    counts, levels = looks.schedule[: len(looks.taken)], looks.levels
    gone = [f"{name} after {look.seeds}" for look in looks.taken for name in look.dropped.values()]
    return (
        f"Seeds were added in rounds: looks at {', '.join(map(str, counts))} seeds, {looks.schedule[-1]} at most, at "
        f"one-sided levels of {', '.join(f'{each.enough:.2%}' for each in levels[: len(counts)])}, so that all looks "
        f"together have 5 %{'; no more seeds of ' + ', '.join(gone) if gone else ''}. Trend and comparisons with the "
        "best rank take the seeds that all ranks have, at 5 %."
    )


def further_caption(estimates: Estimates) -> str:
    """What the further scores are, of those that some trial has."""
    study = estimates.study
    known = {family(score) for found in estimates.scores.values.values() for score in found}
    texts = [text for name, text in FURTHER_TEXTS.items() if name in known]
    if "memorisation_share" in known and study.reference.train:
        train = len(next(iter(study.reference.train.values())).ids)
        others = len(next(iter(study.reference.features.values())).ids) - 1
        texts.append(
            f"memorisation_ratio: distance to the nearest of {train} training clips (a control's: its own) over that "
            f"to the nearest of {others} other held-out clips, mean over clips; memorisation_share: clips nearer to a "
            f"training clip, {train / (train + others):.2f} by chance if both sets are alike. Compare with the base."
        )
    methods = {spec.config.method for spec in study.specs}
    if known & TRAINING_CLIPS and methods & {Method.adapter, Method.clips}:
        texts.append("Rows trained elsewhere are held against the training clips of this study, not against their own.")
    return " ".join(texts)


def notes(estimates: Estimates, styled: bool) -> tuple[str, ...]:
    """Reasons for every n/a, gaps between trials, what is never set in bold (`styled`: other cells are)."""
    study, scores = estimates.study, estimates.scores
    reasons = [f"{score}: n/a ({reason})." for score, reason in scores.unavailable.items()]
    reasons += [NO_CLIPS] * (not study.generated)
    still = ", ".join(score for score in FROZEN_WINS if any(score in found for found in scores.values.values()))
    guard = [f"Never bold, because a frozen clip would be best: {still}."] if styled and still else []
    restarted = {trial.result.trial_id for trial in study.trials if trial.result.restarts}
    resumed = [f"Restarted after a fault and resumed: trial {trial_id}." for trial_id in sorted(restarted)]
    chosen = study.rates["chosen"] if study.rates else []
    edges = [_edge(each) for each in chosen if each["at_edge"]]
    return (*reasons, *scores.gaps, *study.remarks, *guard, *resumed, *edges, *_pruned(study))


def _edge(chosen: Mapping[str, Any]) -> str:
    name = f"rank {chosen['rank']} on {chosen['targets']}" if chosen["rank"] else "the full fine-tune"
    return (
        f"Learning rate of {name}: {chosen['learning_rate']:g} is at the edge of those tried; a better one may "
        "lie beyond."
    )


def _pruned(study: Study) -> tuple[str, ...]:
    """The learning rates that were ended early, by row."""
    found: dict[str, dict[str, None]] = {}
    for config in (each.spec.config for each in study.pruned):
        found.setdefault(spec_name(config), {})[f"{config.train.learning_rate:g}"] = None
    rows = "; ".join(f"{name} at learning rate {', '.join(rates)}" for name, rates in found.items())
    return (f"Pruned, and in no mean with any of its seeds: {rows}.",) if rows else ()


def protocol_lines(study: Study) -> tuple[str, ...]:
    """What the trials recorded of each score's protocol, one line per score."""
    recorded: dict[str, str] = {}
    for trial in study.trials:
        for score, protocol in trial.result.protocol.items():
            recorded[score] = ", ".join(f"{key} {value}" for key, value in sorted(protocol.items()))
    return tuple(f"{score}: {text}" for score, text in sorted(recorded.items()))


def _clips(estimates: Estimates) -> str:
    specs = estimates.study.specs
    data = [spec.config.data for spec in specs]
    frames = _either(str(each.frames) for each in data)
    fps = _either(f"{each.fps:g}" for each in data)
    size = _either(f"{each.width}x{each.height}" for each in data)
    resize = _either(RESIZE[each.resize] for each in data)
    kept = {spec.config.score.keep_first_frame for spec in specs}
    first = {
        frozenset({True}): "the first frame is scored too, though the model was given it",
        frozenset({False}): "the first frame, given to the model, is not scored (consistency and motion start from it)",
    }.get(frozenset(kept), "the first frame is scored in some trials only")
    return (
        f"{len(estimates.scores.clips)} held-out clips of {frames} frames at {fps} fps, {size} pixels "
        f"(resize: {resize}){f'; {first}' * estimates.study.generated}."
    )


def _step_cache(study: Study) -> str:
    used = {step_cache_of(spec.config.sample) for spec in study.specs}
    return f" Passes of the sampler are cut short ({_either(sorted(used))})." if any(used) else ""


def _set_scores(estimates: Estimates) -> str:
    known = {score for found in estimates.scores.values.values() for score in found}
    nets = dict.fromkeys(net for score, net in SET_SCORES.items() if score in known)
    return " ".join(_of_net(net, estimates) for net in nets)


def _of_net(net: str, estimates: Estimates) -> str:
    scores = estimates.scores
    dimensions = estimates.study.reference.features[net].values.shape[1]
    doubt = ""
    if len(scores.clips) <= dimensions:
        doubt = f" With {len(scores.clips)} clips for {dimensions} dimensions fvd is mostly bias: rank by kvd."
    real = estimates.study.reference.features[net].of(scores.clips)
    if np.isfinite(real).all() and (few := too_few_clips(scaled(net, real)[0])):
        doubt += f" fvd[{net}] has no values per clip, so no intervals: {few}."
    scale = "standardised by" if WEIGHTS[net].standardised else "as the net gives them, against"
    jedi = f" jedi[{net}]: polynomial MMD of degree 2, biased, times 100." if f"jedi[{net}]" in SET_SCORES else ""
    return (
        f"kvd[{net}]: unbiased polynomial MMD of degree 3, a clip never paired with its own truth, may be negative; "
        f"fvd[{net}]: Frechet distance, covariances divided by N-1; both on {dimensions} {WEIGHTS[net].title} features "
        f"{scale} the {scores.reference_clips} real clips of the reference.{doubt}{jedi}"
    )


def _scaling(study: Study) -> str:
    grid = [spec.config for spec in study.specs if not spec.config.arm]
    of = {method: [config for config in grid if config.method is method] for method in Method}
    others = (_adopted(of[Method.adapter]), _finished_clips(of[Method.clips]))
    name = "Adapters trained here" if any(others) else "Adapters"
    parts = (*others, _trained(of[Method.lora], name, study.rates))
    return " ".join(part for part in parts if part)


def _adopted(configs: Sequence[TrialConfig]) -> str:
    """What is known of adapters that other programs trained, and what is not."""
    if not configs:
        return ""
    said: dict[str, dict[str, None]] = {}
    for config in configs:
        if config.training:
            said.setdefault(config.training, {})[spec_name(config)] = None
    stated = "".join(f" The metadata of {'; '.join(names)} says: {text}." for text, names in said.items())
    silent = sum(not config.training for config in configs)
    unknown = f" The files of {silent} do not say how they were trained." * bool(silent)
    return (
        f"{len(configs)} adapters are files trained elsewhere, on clips that are unknown here.{stated}{unknown}"
        " What is not stated is unknown. Base, held-out windows and sampler are the same for all rows."
        f"{_seeds(configs)}"
    )


def _finished_clips(configs: Sequence[TrialConfig]) -> str:
    if not configs:
        return ""
    return (
        f"{len(configs)} trials are clips that were generated elsewhere: model, sampler and training are unknown here, "
        "and they have no held-out loss. Clips from lossy videos are scored with the losses of their codec."
        f"{_seeds([config for config in configs if config.clips_rank])}"
    )


def _seeds(configs: Sequence[TrialConfig]) -> str:
    unknown = sum(config.seed == UNKNOWN_SEED for config in configs)
    text = f" The training seed of {unknown} is not stated: intervals are over clips, and leave out how another would"
    return f"{text} differ." * bool(unknown)


def _trained(adapted: Sequence[TrialConfig], name: str, search: Mapping[str, Any] | None) -> str:
    if not adapted:
        return ""
    ranks = sorted({each.lora.rank for each in adapted})
    rules = "; or ".join(dict.fromkeys(_rule(each.lora, ranks) for each in adapted))
    targets = _either(each.lora.targets.value for each in adapted)
    steps = _either(str(each.train.steps) for each in adapted)
    return f"{name}: {rules}; targets {targets}; {_rates(adapted, search)}; {steps} optimiser steps."


def _rates(adapted: Sequence[TrialConfig], search: Mapping[str, Any] | None) -> str:
    """How learning rate and rank go together: what else than the rank may differ between two ranks. `search`: the
    record of `sweeps/rates.py`."""
    rates = sorted({each.train.learning_rate for each in adapted})
    if len(rates) == 1 and not search:
        return f"one learning rate for all ranks, {rates[0]:g}: what suits one rank may not suit another"
    own: dict[tuple[TargetSet, Scaling, float, int], set[float]] = {}
    for config in adapted:
        lora = config.lora
        key = (lora.targets, lora.scaling, lora.effective_alpha, lora.rank)
        own.setdefault(key, set()).add(config.train.learning_rate)
    if any(len(found) > 1 for found in own.values()):
        return f"learning rate {'/'.join(f'{rate:g}' for rate in rates)}, each a row of its own"
    by_targets: dict[str, dict[int, set[float]]] = {}
    for (targets, _, _, rank), found in own.items():
        by_targets.setdefault(targets.value, {}).setdefault(rank, set()).update(found)
    lists = {
        name: ", ".join(f"{rank}: {_either(f'{rate:g}' for rate in sorted(by_rank[rank]))}" for rank in sorted(by_rank))
        for name, by_rank in sorted(by_targets.items())
    }
    if len(set(lists.values())) == 1:
        lists = {"": next(iter(lists.values()))}
    text = "; ".join(f"{name} {rates}".strip() for name, rates in lists.items())
    if not search:
        return f"a learning rate for each rank, set before the study ({text}), so two ranks may differ by rate too"
    rules = {each.lora.scaling.value for each in adapted} - {search["scaling"]}
    other = f" at alpha rule {search['scaling']}, not at {', '.join(sorted(rules))}" * bool(rules)
    return (
        f"each rank's learning rate was searched{other} on {search['clips']} clips that no row here reports "
        f"({search['folder']}, {total_hours(search):.3g} worker-hours): {text}, so two ranks may differ by rate too"
    )


def _rule(lora: LoraConfig, ranks: Sequence[int]) -> str:
    """`ranks` of the study, sorted: where the scale depends on the rank, its range is given."""
    if lora.scaling is Scaling.alpha_equals_rank:
        return "alpha = rank, update scale 1"
    below = "r" if lora.scaling is Scaling.constant else "sqrt(r)"
    ends = [f"{replace(lora, rank=rank).scale:.3g} at rank {rank}" for rank in (ranks[0], ranks[-1])]
    span = f" ({' to '.join(ends)}: scale and rank change together)" if len(ranks) > 1 else ""
    return f"alpha = {lora.alpha:g}, update scale alpha/{below}{span}"


def _either(texts: Iterable[str]) -> str:
    return "/".join(dict.fromkeys(texts))
