"""The learning rate of each rank: which one is chosen, from which losses, at what cost. Standard library only.

In: the trials of a study that varies `train.learning_rate`. Out: one `Search` per target set and rank, and one for the
full fine-tune: the rate with the lowest held-out loss (mean over seeds) is chosen. `record` is what rates.json of the
study that uses the rates holds.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import ClusterConfig, Method, StudyConfig, TrialConfig
from cinelora.core.files import read_json
from cinelora.core.records import TrialSpec
from sweeps.ledger import Ledger, wall_seconds
from sweeps.plan import Plan

PRUNED, DIVERGED = "pruned", "diverged"
Key = tuple[str, int]  # target set, rank; ("", 0): the full fine-tune


@dataclass(frozen=True)
class Search:
    """Mean held-out loss of each learning rate, for one rank or the full fine-tune."""

    rank: int  # 0 for the full fine-tune
    losses: Mapping[float, float]
    lost: Mapping[float, str] = field(default_factory=dict)  # rates without a loss: PRUNED or DIVERGED
    targets: str = ""  # of the adapter
    several: bool = False  # target sets are searched, so a name says which

    @property
    def name(self) -> str:
        return f"rank {self.rank}" + f" {self.targets}" * self.several if self.rank else "full fine-tune"

    @property
    def best(self) -> float:
        return min(self.losses, key=self.losses.__getitem__)

    @property
    def at_edge(self) -> bool:
        tried = {*self.losses, *self.lost}
        return self.best in (min(tried), max(tried))

    @property
    def edge(self) -> str:
        """A warning, where the choice is the lowest or the highest rate that was tried."""
        text = f"{self.name}: {self.best:g} is at the edge of the rates tried; a better one may lie beyond."
        return text if self.at_edge else ""


def key(config: TrialConfig) -> Key:
    return (config.lora.targets.value, config.lora.rank) if config.method is Method.lora else ("", 0)


def searches(finished: Iterable[tuple[TrialConfig, float]], lost: Iterable[tuple[TrialConfig, str]]) -> list[Search]:
    """By target set and rank, then the full fine-tune; `finished`: trials with their held-out loss."""
    losses: dict[Key, dict[float, list[float]]] = {}
    for config, loss in finished:
        losses.setdefault(key(config), {}).setdefault(config.train.learning_rate, []).append(loss)
    without: dict[Key, dict[float, str]] = {}
    for config, why in lost:
        without.setdefault(key(config), {})[config.train.learning_rate] = why
    several = len({targets for targets, rank in losses if rank}) > 1
    found = []
    for own in sorted(losses, key=lambda each: (each[1] == 0, each)):
        means = {rate: fmean(values) for rate, values in losses[own].items()}
        found.append(Search(own[1], means, without.get(own, {}), own[0], several))
    return found


def diverged(ledger: Ledger, spec: TrialSpec) -> bool:
    """Whether its learning rate was too high to train at: an answer, not a fault."""
    path = ledger.folder.trial(spec.trial_id).failed
    return path.exists() and not ledger.is_done(spec.trial_id) and read_json(path).get("kind") == DIVERGED


def chosen(ledger: Ledger, plan: Plan) -> list[Search] | None:
    """Of a search whose trials are over; None while one is still to run. UserError: a rank without any loss."""
    trained = [spec for spec in plan.trials if _searched(spec)]
    lost = [(spec.config, DIVERGED) for spec in trained if diverged(ledger, spec)]
    lost += [(spec.config, PRUNED) for spec in trained if ledger.pruned(spec.trial_id)]
    results = [(spec.config, ledger.result(spec.trial_id)) for spec in trained]
    finished = [
        (config, each.heldout_loss) for config, each in results if each is not None and each.heldout_loss is not None
    ]
    if len(finished) + len(lost) < len(trained):
        return None
    if without := {key(config) for config, _ in lost} - {key(config) for config, _ in finished}:
        targets, rank = min(without)
        name, grid = (f"rank {rank} on {targets}", "grid") if rank else ("the full fine-tune", "full_grid")
        raise UserError(f"rates.{grid}: training of {name} diverged at every rate; add lower ones")
    return searches(finished, lost)


def _searched(spec: TrialSpec) -> bool:
    return spec.config.method.trains and not spec.config.arm


def record(search: StudyConfig, ledger: Ledger, plan: Plan, found: Iterable[Search]) -> dict[str, Any]:
    """What the study keeps of the search. The same search gives the same record."""
    specs = [spec for spec in plan.trials if _searched(spec)]
    lora = [spec.config.lora for spec in specs if spec.config.method is Method.lora]
    results = [result for spec in specs if (result := ledger.result(spec.trial_id)) is not None]
    return {
        "folder": str(ledger.folder.root),
        "data": search.data.path,
        "clips": results[0].clips,  # on which the loss was judged
        "scaling": lora[0].scaling.value if lora else "",
        "prune": search.prune.value,
        "commits": sorted({commit for spec in specs for commit in _commits(ledger, spec)}),
        "wall_seconds": wall_seconds(ledger.events()),
        "worker_seconds": [_spent(search.cluster, ledger, spec) for spec in plan.trials],  # of each trial, by phase
        "chosen": [
            {
                "targets": each.targets,
                "rank": each.rank,
                "learning_rate": each.best,
                "at_edge": each.at_edge,
                "losses": {f"{rate:g}": loss for rate, loss in each.losses.items()},
                "lost": {f"{rate:g}": why for rate, why in each.lost.items()},
            }
            for each in found
        ],
    }


def _commits(ledger: Ledger, spec: TrialSpec) -> set[str]:
    path = ledger.folder.trial(spec.trial_id).provenance
    runs = read_json(path)["runs"] if path.exists() else []
    return {worker["code"]["commit"] for run in runs for worker in run["workers"] if worker["code"]["commit"]}


def _spent(cluster: ClusterConfig, ledger: Ledger, spec: TrialSpec) -> dict[str, float]:
    """Seconds times workers; of a trial that was ended early, its steps."""
    if (result := ledger.result(spec.trial_id)) is not None:
        return {phase: seconds * result.world_size for phase, seconds in result.seconds.items()}
    path = ledger.folder.trial(spec.trial_id).train_csv
    if not path.exists():
        return {}
    with open(path, newline="") as stream:
        steps = sum(float(row["seconds"] or 0) for row in csv.DictReader(stream))
    return {"train": round(steps * cluster.workers(key(spec.config)[1]), 3)}


def total_hours(record: Mapping[str, Any]) -> float:
    """Worker-hours of a search, of `record`."""
    return float(sum(seconds for trial in record["worker_seconds"] for seconds in trial.values())) / 3600
