"""A sweep that goes on until it knows (`answer.until_decided`): look, drop ranks, add seeds, look again.

In: settings, ledger, plan. Out: looks.json (`sweeps/looks.py`), written whole after each look and before the trials
that follow from it, so that a sweep that was stopped anywhere goes on where it was. What a look sees is decided in
`analysis/power/rounds.py`. Loads no torch and no Ray.
"""

from __future__ import annotations

from dataclasses import replace

from omegaconf import DictConfig

from cinelora.core.cli import UserError
from cinelora.core.config import Method, Prune, StudyConfig
from cinelora.core.records import TrialSpec
from launch.engine.run import run_missing
from launch.estimate import estimate
from sweeps.ledger import Ledger
from sweeps.looks import Looks, row_id, schedule
from sweeps.plan import Plan, trial_spec

KEEP = "keep it, or take another study_dir"


def check_batches(sweeper: DictConfig, setting: str) -> None:
    """Raises UserError where Hydra would not give the whole grid at once, as this setting needs it."""
    name = sweeper._target_.rpartition(".")[2]
    if name != "BasicSweeper" or sweeper.get("max_batch_size"):
        raise UserError(f"{setting}=true: hydra.sweeper={name} gives the grid in parts; take the basic one")


def with_rounds(study: StudyConfig, ledger: Ledger, plan: Plan) -> Plan:
    """The plan of the grid and of all rounds so far. Raises UserError where a study cannot go on in rounds, or began in
    another way."""
    looks, answer = ledger.looks(), study.answer
    if not answer.until_decided:
        if looks is not None:
            raise UserError(f"answer.until_decided=false: this study began with true; {KEEP}")
        return plan
    if study.prune is not Prune.off:
        raise UserError(f"prune={study.prune.value}: not with answer.until_decided=true; search the rates first")
    rows = _rows(plan)
    seeds = {tuple(sorted(spec.config.seed for spec in own)) for own in rows.values()}
    first = len(next(iter(seeds), ()))
    if len(seeds) > 1 or first < 2 or len(rows) < 2:
        raise UserError("answer.until_decided=true: needs two ranks and the same two seeds of each; add seed=0,1,2")
    if answer.most_seeds <= first:
        raise UserError(f"answer.most_seeds={answer.most_seeds}: must exceed the {first} seeds of the grid")
    if looks is None:
        if any(ledger.is_done(spec.trial_id) for own in rows.values() for spec in own):
            raise UserError(f"answer.until_decided=true: this study began with false and has results; {KEEP}")
        return plan
    if set(rows) != set(looks.rows) or first != looks.schedule[0]:
        raise UserError(f"answer.until_decided=true: this study began with other ranks, seeds or settings; {KEEP}")
    if answer.most_seeds != looks.schedule[-1]:
        raise UserError(f"answer.most_seeds={answer.most_seeds}: this study began with {looks.schedule[-1]}; {KEEP}")
    return _extended(plan, replace(looks, budget=answer.budget_gpu_hours))


def _rows(plan: Plan) -> dict[str, list[TrialSpec]]:
    """Row id -> the trials of the grid that differ in their seed alone."""
    rows: dict[str, list[TrialSpec]] = {}
    for spec in plan.trials:
        if spec.config.method is Method.lora and not spec.config.arm:
            rows.setdefault(row_id(spec), []).append(spec)
    return rows


def _extended(plan: Plan, looks: Looks) -> Plan:
    """`plan` with the seeds that each row shall have; new ones are the next integers."""
    ended = {row: index for index, look in enumerate(looks.taken) for row in (*look.dropped, *look.settled)}
    added = []
    for row, own in _rows(plan).items():
        wanted = looks.schedule[ended[row]] if row in ended else looks.seeds
        first = max(spec.config.seed for spec in own) + 1
        for seed in range(first, first + wanted - len(own)):
            added.append(trial_spec(replace(own[0].config, seed=seed), own[0].fingerprints))
    added.sort(key=lambda spec: spec.config.seed)
    return plan.merged(Plan(tuple(added)))


def lines(study: StudyConfig, ledger: Ledger, plan: Plan) -> list[str]:
    """When it will look, under a plan."""
    if not study.answer.until_decided:
        return []
    looks = ledger.looks() or first_looks(study, plan)
    most = f"at most {len(looks.rows) * looks.schedule[-1]} trials of {len(looks.rows)} adapters"
    return [f"in rounds until decided: looks at {', '.join(map(str, looks.schedule))} seeds, {most}"]


def first_looks(study: StudyConfig, plan: Plan) -> Looks:
    """Schedule and levels of a study that begins."""
    from analysis.power.rounds import look_levels  # here, since it loads pandas and SciPy

    rows = _rows(plan)
    counts = schedule(min(len(own) for own in rows.values()), study.answer.most_seeds)
    most = max(len({spec.config.lora.rank for spec, *_ in rows.values()}), 2)
    return Looks(counts, look_levels(counts, most), tuple(rows), budget=study.answer.budget_gpu_hours)


def begin(study: StudyConfig, ledger: Ledger, plan: Plan) -> None:
    """Fix schedule and levels before the first result; the budget may change."""
    looks, budget = ledger.looks(), study.answer.budget_gpu_hours
    if looks is not None and looks.budget != budget:
        ledger.write_looks(replace(looks, budget=budget))
    if not study.answer.until_decided or looks is not None:
        return
    ledger.write_looks(first_looks(study, plan))


def go_on(study: StudyConfig, ledger: Ledger, plan: Plan) -> tuple[Plan, dict[str, str]]:
    """From a round whose trials are all done to the end, or to a trial that fails; (plan, what failed)."""
    from analysis.power.rounds import look

    unit = "GPU-hours" if study.cluster.gpus else "worker-hours"
    while (looks := ledger.looks()) is not None and not looks.end:
        seen = look(ledger.folder.root, study.cluster.gpus)
        looks = replace(looks, taken=(*looks.taken, seen))
        ledger.write_looks(looks)
        ledger.event("look", seeds=seen.seeds, dropped=list(seen.dropped.values()))
        number = f"look {len(looks.taken)} of {len(looks.schedule)}, {seen.seeds} seeds, {seen.hours:.3g} {unit}"
        print(*(f"{number}: {each}" for each in seen.sentences or ("no score has an answer",)), sep="\n")
        if seen.dropped:
            print(f"shown to be worse, no more seeds: {', '.join(seen.dropped.values())}")
        if looks.end:
            break
        plan = _extended(plan, looks)
        ledger.write_plan(plan)
        expected = estimate(study, ledger, plan)
        more = looks.seeds - seen.seeds
        names = ", ".join(seen.live.values())
        print(f"{more} more seed{'s' * (more > 1)} of {names}", *expected.lines, sep="\n", flush=True)
        if errors := run_missing(study, ledger, plan, expected.seconds, expected.silence):
            return plan, errors
    if looks is not None:
        print(*looks.ending, sep="\n")
    return plan, {}
