"""The learning rate of each rank, chosen on held-out clips that no other study reports.

In: a finished study that varies `train.learning_rate`. Out: a table and the line for a study's YAML, printed and
written to `report/rates.md`. The rate with the lowest held-out loss (mean over seeds) is chosen. If it is the lowest
or highest of its list, the report says so, since a better one may lie beyond.
Run:  python -m analysis.rates studies/rates
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.study.load import Study, load_study
from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.config import Method, TrialConfig
from cinelora.core.files import whole_file


@dataclass(frozen=True)
class Search:
    """Mean held-out loss of each learning rate, for one rank or the full fine-tune."""

    rank: int  # 0 for the full fine-tune
    losses: dict[float, float]
    pruned: frozenset[float] = frozenset()  # rates that were ended early

    @property
    def name(self) -> str:
        return f"rank {self.rank}" if self.rank else "full fine-tune"

    @property
    def best(self) -> float:
        return min(self.losses, key=self.losses.__getitem__)

    @property
    def at_edge(self) -> bool:
        tried = self.pruned.union(self.losses)
        return self.best in (min(tried), max(tried))


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = Parser(prog="python -m analysis.rates", description="Choose the learning rate per rank.")
        parser.add_argument("study", type=Path, help="a study that varies train.learning_rate")
        root = parser.parse_args(arguments).study
        study = load_study(root)
        found = searches(study)
        if all(len(each.losses) + len(each.pruned) < 2 for each in found):
            raise UserError(f"{root}: no rank was trained at two learning rates; vary train.learning_rate")
        text = markdown(study, found)
        with whole_file(study.folder.report / "rates.md") as path:
            path.write_text(text, "utf-8", "backslashreplace")
        print(text, end="")

    return exit_status(command)


def searches(study: Study) -> tuple[Search, ...]:
    """One per rank, then the full fine-tune. UserError where the adapters differ in more than rank and rate."""
    adapters = [spec.config.lora for spec in study.specs if spec.config.method is Method.lora]
    if len({(lora.targets, lora.scaling) for lora in adapters}) > 1:
        raise UserError(f"{study.name}: targets or alpha rule vary besides the rate; use one study per combination")
    losses: dict[int, dict[float, list[float]]] = {}
    for trial in study.trials:
        config, loss = trial.spec.config, trial.result.heldout_loss
        if config.method.trains and not config.arm and loss is not None:
            losses.setdefault(_rank(config), {}).setdefault(config.train.learning_rate, []).append(loss)
    pruned = [each.spec.config for each in study.pruned if not each.spec.config.arm]
    return tuple(
        Search(
            rank,
            {rate: float(np.mean(values)) for rate, values in losses[rank].items()},
            frozenset(config.train.learning_rate for config in pruned if _rank(config) == rank),
        )
        for rank in sorted(losses, key=lambda rank: (rank == 0, rank))
    )


def _rank(config: TrialConfig) -> int:
    return config.lora.rank if config.method is Method.lora else 0


def markdown(study: Study, found: Sequence[Search]) -> str:
    """The table, the chosen rates as YAML, the rates at an end of their list."""
    rates = sorted({rate for each in found for rate in (*each.losses, *each.pruned)})
    rows = [["", *(f"{rate:g}" for rate in rates), "chosen"]]
    rows += [[each.name, *(_cell(each, rate) for rate in rates), f"{each.best:g}"] for each in found]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|:--" + "|--:" * (len(rates) + 1) + "|")
    chosen = ", ".join(f"{each.rank}: {each.best:g}" for each in found if each.rank)
    edges = [
        f"- {each.name}: {each.best:g} is at the edge of the rates tried; a better one may lie beyond."
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


if __name__ == "__main__":
    raise SystemExit(main())
