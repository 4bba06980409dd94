"""Which trials to end early: learning rates that have fallen behind the others of their cell. Off by default.

In: the held-out losses in the train.csv of a study's trials. Out: why a trial is to end, "" while it may go on.
Standard library only. A cell is all that differs in learning rate and seed alone: ranks are never compared, since to
stop the worse ones would censor the curve that is measured. If one seed is pruned, so are all seeds of its learning
rate: a mean over the seeds that are left would be biased.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from cinelora.core.config import Prune
from cinelora.core.files import content_hash
from cinelora.core.records import TrialSpec
from sweeps.ledger import Ledger
from sweeps.plan import identity

Curve = Mapping[int, float]  # optimiser step -> held-out loss
Rule = Callable[[Curve, Sequence[Curve], int], str]  # its curve, those of other learning rates, steps of a whole one
FEWEST = 2  # other trials that must have got as far before a rule applies
FIRST = 0.25  # of the steps: before that, no trial is pruned


def median(mine: Curve, others: Sequence[Curve], steps: int) -> str:
    """Its best loss by now is above the median of the mean losses of finished trials up to now.

    The median stopping rule of Golovin et al., "Google Vizier", KDD 2017.
    """
    now = max(mine)
    means = [statistics.fmean(curve[s] for s in curve if s <= now) for curve in others if max(curve) >= steps]
    if now < FIRST * steps or len(means) < FEWEST or min(mine.values()) <= (bar := statistics.median(means)):
        return ""
    return f"step {now}: held-out loss {min(mine.values()):.4g} at best, {len(means)} finished trials had {bar:.4g}"


def halving(mine: Curve, others: Sequence[Curve], steps: int) -> str:
    """At a quarter or at half of the steps it was not in the better half of those that have got there.

    Asynchronous successive halving, the kind that stops and never promotes: Li et al., MLSys 2020, arXiv 1810.05934.
    """
    for share in (FIRST, 2 * FIRST):
        if max(mine) < share * steps:
            break
        rung = min(step for step in mine if step >= share * steps)
        there = [curve[rung] for curve in others if rung in curve]
        better = sum(loss < mine[rung] for loss in there)
        if len(there) >= FEWEST and better >= (len(there) + 1) / 2:
            return f"step {rung}: held-out loss {mine[rung]:.4g}, {better} of {len(there)} others had less"
    return ""


RULES: dict[Prune, Rule] = {Prune.median: median, Prune.halving: halving}


def side_by_side(rule: Prune, count: int) -> list[float]:
    """Share of its steps that each of `count` learning rates trains if all keep pace and their order never changes."""
    steps, shares, curves = 100, [1.0] * count, [dict[int, float]() for _ in range(count)]
    for step in (int(FIRST * steps), int(2 * FIRST * steps)):
        running = [rate for rate in range(count) if shares[rate] == 1]
        for rate in running:
            curves[rate][step] = rate
        for rate in running:
            if RULES[rule](curves[rate], [*curves[:rate], *curves[rate + 1 :]], steps):
                shares[rate] = step / steps
    return shares


def cell(spec: TrialSpec) -> str:
    """Trials of one cell differ in learning rate and seed alone; "": nothing is trained, so nothing compared."""
    if not spec.config.method.trains:
        return ""
    facts = identity(spec.config, spec.fingerprints)
    del facts["config"]["seed"], facts["config"]["train"]["learning_rate"]
    return content_hash(facts)


class Pruner:
    """The rule on a study's plan. `leaving`: the running trials that have been stopped, and why."""

    def __init__(self, ledger: Ledger, rule: Prune) -> None:
        self.ledger, self.rule = ledger, RULES[rule]
        self.leaving: dict[str, str] = {}
        self.cells: dict[str, list[TrialSpec]] = {}
        for spec in ledger.plan().trials:
            self.cells.setdefault(cell(spec), []).append(spec)

    def verdict(self, spec: TrialSpec) -> str:
        """Why this trial is to end or not to begin."""
        rivals, rate = self.cells[cell(spec)] if cell(spec) else [], spec.config.train.learning_rate
        for twin in rivals:
            if twin.config.train.learning_rate == rate and (self.ledger.pruned(twin.trial_id) or self._leaves(twin)):
                return f"learning rate {rate:g} was pruned at seed {twin.config.seed}"
        others = [self._curve(other) for other in rivals if other.config.train.learning_rate != rate]
        mine, steps = self._curve(spec), spec.config.train.steps
        return self.rule(mine, [curve for curve in others if curve], steps) if mine and max(mine) < steps else ""

    def _leaves(self, spec: TrialSpec) -> bool:
        """Told to stop, and without a result. A trial that finished before it read the stop sign has one."""
        return spec.trial_id in self.leaving and not self.ledger.folder.trial(spec.trial_id).result.exists()

    def look(self, running: Iterable[TrialSpec]) -> None:
        """Stop the running trials that have fallen behind: write their stop files."""
        for spec in running:
            if spec.trial_id not in self.leaving and (why := self.verdict(spec)):
                self.leaving[spec.trial_id] = why
                self.ledger.folder.trial(spec.trial_id).stop.touch()

    def record(self, spec: TrialSpec, why: str) -> None:
        """The trial has left, or never began."""
        curve = self._curve(spec)
        step = max(curve, default=0)
        loss = curve.get(step)
        self.ledger.prune(spec.trial_id, step, loss if loss is not None and math.isfinite(loss) else None, why)

    @property
    def compares(self) -> bool:
        """Whether any two trials differ in their learning rate alone."""
        rates = [{spec.config.train.learning_rate for spec in specs} for name, specs in self.cells.items() if name]
        return any(len(found) > 1 for found in rates)

    def _curve(self, spec: TrialSpec) -> Curve:
        path = self.ledger.folder.trial(spec.trial_id).train_csv
        return _read(path, path.stat().st_size) if path.exists() else {}


@lru_cache(maxsize=4096)
def _read(path: Path, size: int) -> Curve:
    """The curve written so far; a loss that is not a number counts as infinite."""
    with open(path, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if None not in row.values() and row["heldout_loss"]]
    losses = {int(row["step"]): float(row["heldout_loss"]) for row in rows}
    return {step: math.inf if math.isnan(loss) else loss for step, loss in losses.items()}
