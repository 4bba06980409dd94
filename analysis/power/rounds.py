"""A study that goes on until it knows: the levels of its looks, and what a look sees.

In: a study folder with its looks.json. Out: `Look`; the sweep drops ranks, adds seeds or stops by it. No files written.

Error is spent over the looks (Lan, DeMets 1983): of alpha, alpha * t^1.5 by the look at the share t of the most seeds
(the power family of Kim, DeMets 1987; Jennison, Turnbull: Group Sequential Methods, 2000, chapter 7), so that all looks
together have the error of a single one. The level of each look follows from Brownian motion, which a sum over seeds is
at these times, by the recursion of Armitage, McPherson, Rowe (1969), and is applied to the p-values of the t intervals
(ibid., section 3.8). Clips are the same at all looks: these are then more alike than Brownian motion and their levels
stricter than need be.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from analysis.statistics.answer import WORSE, Answer, answers
from analysis.statistics.decision import WINNER, decisions, sentence, worse_ranks
from analysis.study.files import Array
from analysis.study.load import Study, Trial, load_study
from analysis.study.rows import Estimates, estimate
from sweeps.looks import Level, Look, Looks, row_id

ALPHA, POWER = 0.05, 1.5
NODES = 200  # of the quadrature; 100 give the same six digits
FAR = 8.0  # standard deviations


def look_levels(schedule: Sequence[int], ranks: int) -> tuple[Level, ...]:
    """Of each look; "worse" is corrected for the number of rivals, as in a study with one look."""
    share = np.asarray(schedule) / schedule[-1]
    both = (nominal_levels(share, error * share**POWER) for error in (ALPHA, ALPHA / max(1, ranks - 1)))
    return tuple(Level(*each) for each in zip(*both, strict=True))


def nominal_levels(share: Array, spent: Array) -> list[float]:
    """One-sided level of each look at `share` (0..1, rising) of the information, such that a true null hypothesis is
    rejected by then with the probability `spent`."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    bounds = [float(norm.isf(spent[0]) * np.sqrt(share[0]))]
    below, mass = np.empty(0), np.empty(0)  # where the sum may be that was never above a bound, and how probably
    for now in range(1, len(share)):
        low, high = -FAR * np.sqrt(share[now - 1]), bounds[-1]
        points = low + (high - low) * (nodes + 1) / 2
        if now == 1:
            density = norm.pdf(points, scale=np.sqrt(share[0]))
        else:
            step = np.sqrt(share[now - 1] - share[now - 2])
            density = norm.pdf(points[:, None], below, step) @ mass
        below, mass = points, density * weights * (high - low) / 2
        step, more = np.sqrt(share[now] - share[now - 1]), spent[now] - spent[now - 1]
        far = FAR * np.sqrt(share[now])
        bounds.append(float(brentq(lambda bound: norm.sf(bound, below, step) @ mass - more, -far, far)))  # noqa: B023
    return [float(norm.sf(bound / np.sqrt(each))) for bound, each in zip(bounds, share, strict=True)]


def look(root: Path, gpus: float) -> Look:
    """The look that is due in the study at `root`. `gpus`: of a worker."""
    return see(load_study(root), gpus)


def see(study: Study, gpus: float) -> Look:
    """The next look at a study of which every rank that goes on has the seeds."""
    assert study.looks is not None
    looks = study.looks
    going = dict.fromkeys((row for row in looks.rows if row not in looks.over), "")
    seen = Look(time.time(), looks.schedule[len(looks.taken)], {}, {}, (), going, (), 0.0, 0.0)
    estimates = estimate(replace(study, looks=replace(looks, taken=(*looks.taken, seen))))
    found = answers(estimates)
    of_series = {each.series: each for each in decisions(estimates, found)}
    verdicts: dict[str, dict[str, dict[str, str]]] = {}
    dropped: dict[str, str] = {}
    live: dict[str, str] = {}
    settled: list[str] = []
    for series in estimates.series:
        rows = {row: rank for rank, row in estimates.row_ids(series).items() if row in going}
        if not rows:
            continue
        own = [each for each in found if each.series == series]
        verdicts[series] = {each.score: _verdicts(each) for each in own}
        names = {row: ", ".join(filter(None, (f"rank {rank}", series))) for row, rank in rows.items()}
        useless = without_use(own)
        gone = {row: names[row] for row, rank in rows.items() if rank in useless}
        left = {row: name for row, name in names.items() if row not in gone}
        decision = of_series.get(series)
        over = decision is not None and (decision.word == WINNER or decision.provisional is None)
        dropped, live, settled = dropped | gone, live | ({} if over else left), settled + list(left if over else ())
    return replace(
        seen,
        verdicts=verdicts,
        dropped=dropped,
        settled=tuple(settled),
        live=live,
        sentences=tuple(sentence(of_series[series]) for series in verdicts if series in of_series),
        hours=sum(_hours(trial, gpus) for trial in study.trials),
        next_hours=_next_hours(estimates, looks, live, gpus),
    )


def without_use(found: Sequence[Answer]) -> set[int]:
    """The ranks that need no more seeds: WORSE on a score with a gain, and no rival any more. On every such score a
    rival is WORSE itself, so that another rank's gain asks for more, or all that may be enough are shown to keep its
    share, which a later look need not show again. `found`: of one series."""
    gained = [each for each in found if each.gained]
    ranks = {rank for each in found for rank in each.by_rank} - set(worse_ranks(found))

    def beaten(rank: int, answer: Answer) -> bool:
        own = answer.by_rank.get(rank)
        return own is None or own.verdict == WORSE or all(rank in answer.by_rank[each].keeps for each in ranks)

    return {rank for rank in worse_ranks(gained) if all(beaten(rank, answer) for answer in gained)}


def _verdicts(answer: Answer) -> dict[str, str]:
    return {str(each.rank): each.verdict for each in answer.ranks if each.look is None}


def _hours(trial: Trial, gpus: float) -> float:
    return sum(trial.result.seconds.values()) * trial.result.world_size * (gpus or 1) / 3600


def _next_hours(estimates: Estimates, looks: Looks, live: Mapping[str, str], gpus: float) -> float:
    """Of the seeds that the next look adds, at the cost of the finished ones; 0 after the last look."""
    at = len(looks.taken)
    if at + 1 == len(looks.schedule):
        return 0.0
    rows = [estimates.trials(row) for row in estimates.rows if row.in_grid and row.done]
    own = [np.mean([_hours(trial, gpus) for trial in trials]) for trials in rows if row_id(trials[0].spec) in live]
    return float(sum(own)) * (looks.schedule[at + 1] - looks.schedule[at])
