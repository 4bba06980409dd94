"""The learning rate of each rank, chosen on held-out clips that no other study reports.

In: a finished study that varies `train.learning_rate`. Out: a table and the line for a study's YAML, printed and
written to `report/rates.md`. The rate with the lowest held-out loss (mean over seeds) is chosen. If it is the lowest
or highest of its list, the report says so, since a better one may lie beyond.
Run:  python -m analysis.rates studies/rates
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.study.load import Study, load_study
from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.config import Method
from cinelora.core.files import whole_file
from sweeps import rates
from sweeps.rates import Search


def main(arguments: Sequence[str] | None = None) -> int:
    def command() -> None:
        parser = Parser(prog="python -m analysis.rates", description="Choose the learning rate per rank.")
        parser.add_argument("study", type=Path, help="a study that varies train.learning_rate")
        root = parser.parse_args(arguments).study
        study = load_study(root)
        found = searches(study)
        if all(len(each.losses) + len(each.lost) < 2 for each in found):
            raise UserError(f"{root}: no rank was trained at two learning rates; vary train.learning_rate")
        text = markdown(study, found)
        with whole_file(study.folder.report / "rates.md") as path:
            path.write_text(text, "utf-8", "backslashreplace")
        print(text, end="")

    return exit_status(command)


def searches(study: Study) -> list[Search]:
    """By target set and rank, then the full fine-tune. UserError where the alpha rule varies."""
    adapters = [spec.config.lora for spec in study.specs if spec.config.method is Method.lora]
    if len({lora.scaling for lora in adapters}) > 1:
        raise UserError(f"{study.name}: the alpha rule varies besides the rate; use one study per rule")
    trained = [(trial.spec.config, trial.result.heldout_loss) for trial in study.trials]
    finished = [(each, loss) for each, loss in trained if each.method.trains and not each.arm and loss is not None]
    pruned = [each.spec.config for each in study.pruned if not each.spec.config.arm]
    return rates.searches(finished, [(each, rates.PRUNED) for each in pruned])


def markdown(study: Study, found: Sequence[Search]) -> str:
    """The table, the chosen rates as YAML, the rates at an end of their list."""
    tried = sorted({rate for each in found for rate in (*each.losses, *each.lost)})
    sets = {each.targets: [one for one in found if one.targets == each.targets] for each in found if each.rank}
    rows = [["", *(f"{rate:g}" for rate in tried), "chosen"]]
    rows += [[each.name, *(_cell(each, rate) for rate in tried), f"{each.best:g}"] for each in found]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|:--" + "|--:" * (len(tried) + 1) + "|")
    yaml = {name: ", ".join(f"{each.rank}: {each.best:g}" for each in of) for name, of in sets.items()}
    chosen = f"learning_rate_by_rank: {{{next(iter(yaml.values()), '')}}}"
    if len(sets) > 1:
        by_targets = ", ".join(f"{name}: {{{text}}}" for name, text in yaml.items())
        chosen = f"learning_rate_by_targets: {{{by_targets}}}"
    edges = [f"- {each.edge}" for each in found if each.edge]
    head = f"Held-out loss by learning rate, study {study.name}, {len(study.trials)} of {len(study.specs)} trials."
    return "\n\n".join([head, "\n".join(lines), f"    {chosen}", *edges]) + "\n"


def _cell(search: Search, rate: float) -> str:
    if rate not in search.losses:
        return search.lost.get(rate, "-")
    text = f"{search.losses[rate]:.4f}"
    return f"**{text}**" if rate == search.best else text


if __name__ == "__main__":
    raise SystemExit(main())
