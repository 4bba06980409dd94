"""The learning rate of each rank, chosen on held-out clips that no other study reports.

In: a finished study that varies `train.learning_rate`. Out: a table and the line for a study's YAML, printed and
written to `report/rates.md`. The lowest held-out loss (mean over seeds) wins; a rate at the edge of its list is named,
since a better one may lie beyond.
Run:  python -m analysis.rates studies/rates
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.study.load import Study, load_study
from cinelora.core.cli import UserError
from cinelora.core.config import Method
from cinelora.core.files import whole_file

FULL = "full fine-tune"


@dataclass(frozen=True)
class Search:
    """Mean held-out loss of each learning rate, lowest rate first, for one rank or the full fine-tune."""

    name: str
    rank: int  # 0 for the full fine-tune
    losses: dict[float, float]
    pruned: tuple[float, ...] = ()  # rates that were ended early

    @property
    def best(self) -> float:
        return min(self.losses, key=self.losses.__getitem__)

    @property
    def at_edge(self) -> bool:
        tried = (*self.losses, *self.pruned)
        return self.best in (min(tried), max(tried))


def searches(study: Study) -> tuple[Search, ...]:
    """One per rank, then the full fine-tune. UserError where the adapters differ in more than rank and rate."""
    found: dict[int, dict[float, list[float]]] = {}
    kinds = {
        (spec.config.lora.targets, spec.config.lora.scaling)
        for spec in study.specs
        if spec.config.method is Method.lora
    }
    if len(kinds) > 1:
        raise UserError(f"{study.name}: varies targets or alpha rule beside the rate; search one combination a study")
    for trial in study.trials:
        config, loss = trial.spec.config, trial.result.heldout_loss
        if config.method is Method.base or config.arm or loss is None:
            continue
        rank = config.lora.rank if config.method is Method.lora else 0
        found.setdefault(rank, {}).setdefault(config.train.learning_rate, []).append(loss)
    pruned: dict[int, set[float]] = {}
    for config in (each.spec.config for each in study.pruned if not each.spec.config.arm):
        rank = config.lora.rank if config.method is Method.lora else 0
        pruned.setdefault(rank, set()).add(config.train.learning_rate)
    ranks = sorted(found, key=lambda rank: (rank == 0, rank))
    return tuple(
        Search(
            f"rank {rank}" if rank else FULL,
            rank,
            {rate: float(np.mean(losses)) for rate, losses in sorted(found[rank].items())},
            tuple(sorted(pruned.get(rank, ()))),
        )
        for rank in ranks
    )


def markdown(study: Study, found: tuple[Search, ...]) -> str:
    """The table, the chosen rates as YAML, what lies at an edge."""
    rates = sorted({rate for each in found for rate in (*each.losses, *each.pruned)})
    lines = [
        "| | " + " | ".join(f"{rate:g}" for rate in rates) + " | chosen |",
        "|:--" + "|--:" * (len(rates) + 1) + "|",
    ]
    for each in found:
        cells = [_cell(each, rate) for rate in rates]
        lines.append(f"| {each.name} | " + " | ".join(cells) + f" | {each.best:g} |")
    chosen = ", ".join(f"{each.rank}: {each.best:g}" for each in found if each.rank)
    edges = [
        f"- {each.name}: {each.best:g} is at the edge of what was tried; a better one may lie beyond."
        for each in found
        if each.at_edge
    ]
    head = f"Held-out loss by learning rate, study {study.name}, {len(study.trials)} of {len(study.specs)} trials."
    return "\n\n".join([head, "\n".join(lines), f"    learning_rate_by_rank: {{{chosen}}}", *edges]) + "\n"


def _cell(search: Search, rate: float) -> str:
    if rate not in search.losses:
        return "pruned" if rate in search.pruned else "-"
    text = f"{search.losses[rate]:.4f}"
    return f"**{text}**" if rate == search.best else text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.rates", description="Choose the learning rate per rank.")
    parser.add_argument("study", type=Path, help="a study that varies train.learning_rate")
    options = parser.parse_args()
    try:
        study = load_study(options.study)
        found = searches(study)
        if not any(len(each.losses) + len(each.pruned) > 1 for each in found):
            raise UserError(f"{options.study}: no rank was trained at two learning rates; vary train.learning_rate")
    except UserError as error:
        print(f"cinelora: {error}", file=sys.stderr)
        return 2
    text = markdown(study, found)
    with whole_file(study.folder.report / "rates.md") as path:
        path.write_text(text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
