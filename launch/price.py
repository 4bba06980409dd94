"""The chance of an answer beside its price: what each design of seeds x held-out clips would cost and decide.

In: settings, ledger, plan. Out: lines to print under a plan, and files of the study folder
(`analysis/power/designs.py`). Training a seed and sampling a clip are priced apart, trials
outside the grid once; a study in rounds by the seeds that it takes in simulation. Loads no torch and no Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from analysis.power.chances import Design
from analysis.power.designs import Offer, measured, power_lines, power_table, rounds_lines, write_power
from cinelora.core.cli import UserError
from cinelora.core.config import Method, StudyConfig, TrialConfig
from cinelora.core.files import check_writable
from launch.estimate import Demand, best_fitted, cost_model, demand_of, sweep_seconds
from launch.rounds import first_looks
from sweeps.cost import CostModel, gpu_hours
from sweeps.ledger import Ledger
from sweeps.looks import row_id
from sweeps.plan import Plan

SEEDS, CLIPS = {2, 3, 5, 8, 12}, (24, 48, 96, 192, 384, 768)


def chance_lines(study: StudyConfig, ledger: Ledger, plan: Plan, other: CostModel | None = None) -> list[str]:
    """Empty for a study without clips or without two ranks; `other`: as in `estimate`. Raises UserError for an
    `answer.pilot` that cannot be read as one."""
    grid = [spec.config for spec in plan.trials if _in_grid(spec.config)]
    ranks, seeds = {config.lora.rank for config in grid}, len({config.seed for config in grid})
    if len(ranks) < 2 or not study.sample.clips:
        return []
    known, source = measured(study.answer.pilot)
    demands = {spec.trial_id: demand_of(study, spec) for spec in plan.trials}
    planned = Design(seeds, max(each.heldout for each in demands.values() if _in_grid(each.config)))
    model = best_fitted(cost_model(study, ledger, plan), other)
    offers = _offers(study, plan, demands, planned, model)
    table = power_table(offers, len(ranks), known, study.answer.share)
    if not table:
        return [f"chance of an answer: unknown, since no rank gains in {source}"]
    unit, price = ("GPU-hours", study.cluster.price_per_gpu_hour) if study.cluster.gpus else ("worker-hours", 0.0)
    series = len({row_id(spec) for spec in plan.trials if _in_grid(spec.config)}) // len(ranks)
    lines = [
        f"chance of an answer{f' for each of {series} adapter series' if series > 1 else ''}: to name the smallest "
        "sufficient rank / to show that two neighbouring ranks differ",
        "the least over three ways in which the gain may depend on rank; gains and spreads of " + source,
        *power_lines(table, unit, price, study.answer.power),
    ]
    if study.answer.until_decided and not ((begun := ledger.looks()) and begun.taken):

        def hours(seeds: float) -> float | None:
            if model is None:
                return None
            return _hours(study.cluster.gpus, demands, model, planned.clips, seeds / planned.seeds)

        looks, share = begun or first_looks(study, plan), study.answer.share
        lines += rounds_lines(known, len(ranks), looks, share, planned.clips, hours, unit, price)
    try:
        check_writable("study_dir", ledger.folder.root)
    except UserError:
        return lines  # a plan can be made where nothing can be written
    return lines + [f"chance against price: {write_power(table, unit, study.answer.power, ledger.folder.root)[-1]}"]


def _offers(
    study: StudyConfig, plan: Plan, demands: Mapping[str, Demand], planned: Design, model: CostModel | None
) -> list[Offer]:
    """In order of clips and seeds; a planned design of one seed is left out, since that says nothing of the next."""
    seeds = sorted(SEEDS | ({planned.seeds} - {1}))
    fewer, more = ([each for each in CLIPS if each < planned.clips], [each for each in CLIPS if each > planned.clips])
    clips = [*fewer[-1:], planned.clips, *more[:2]]
    designs = [Design(each, number) for number in clips for each in seeds]
    if model is None:
        return [Offer(design, None, None, design == planned) for design in designs]
    hours = {
        design: _hours(study.cluster.gpus, demands, model, design.clips, design.seeds / planned.seeds)
        for design in (planned, *designs)
    }
    seconds = {name: model.rates.seconds(each.work()) for name, each in demands.items()}
    wall = sweep_seconds(study.cluster, list(plan.trials), seconds)[0]
    return [
        Offer(design, hours[design], wall * hours[design] / hours[planned] if wall else None, design == planned)
        for design in designs
    ]


def _hours(gpus: float, demands: Mapping[str, Demand], model: CostModel, clips: int, seeds: float) -> float:
    """GPU-hours with so many held-out clips and so many times the seeds of the plan."""
    work = {name: replace(each, heldout=clips).work() for name, each in demands.items()}
    times = {name: seeds if _in_grid(each.config) else 1.0 for name, each in demands.items()}
    return gpu_hours({name: model.rates.seconds(each) * times[name] for name, each in work.items()}, work, gpus)


def _in_grid(config: TrialConfig) -> bool:
    return config.method is Method.lora and not config.arm
