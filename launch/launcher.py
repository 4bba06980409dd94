"""From Hydra's override lists to a finished study: compose all, check all, run what is missing, report.

In: Hydra's context and one list of overrides per job. Out: one JobReturn per job, read from the ledger.
"""

from __future__ import annotations

import difflib
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from cinelora.core.cli import UserError, clock
from cinelora.core.config import Method, Prune, StudyConfig
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from launch import rates, rounds
from launch.engine.run import run_missing
from launch.estimate import Estimate, best_fitted, cost_model, estimate, settle_checkpointing, settle_gpus
from launch.preflight import Fingerprints, make_plan, planning_cache, stages, trial_config
from launch.status import label, plan_counts
from sweeps.cost import CostModel
from sweeps.ledger import Ledger, check_schema
from sweeps.plan import Plan, trial_spec
from sweeps.rates import Search, chosen, diverged
from sweeps.rates import record as search_record

NO_CLIPS = "sample.clips=false: trials end after the held-out loss; no clip is generated, none is scored"


class PlanShown(Exception):
    """The plan was printed, and the sweeper cannot go on without results."""


class TrialsFailed(Exception):
    """Some trials ended without a result; the others are done."""


def launch_jobs(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> Sequence[JobReturn]:
    """Run one batch of Hydra jobs as trials. When a trial fails, the others still run to their end."""
    if not job_overrides:
        empty = " ".join(config.hydra.overrides.task)
        raise UserError(f"{empty}: no trial, since one of these choices is empty; write the values, e.g. lora.rank=4,8")
    jobs = [compose(context, config, item, initial_job_idx + i) for i, item in enumerate(job_overrides)]
    study = one_study(jobs)
    for setting, on in (("answer.until_decided", study.answer.until_decided), ("rates.search", study.rates.search)):
        if on:
            rounds.check_batches(config.hydra.sweeper, setting)
    grid = len(jobs)
    if initial_job_idx == 0:
        jobs += [compose(context, config, item, 0) for item in extra_overrides(study.extra, job_overrides)]
    cluster, gpus = settle_gpus(study.cluster, [job.config.model for job in jobs])
    jobs = [replace(job, config=replace(job.config, cluster=cluster)) for job in jobs]
    study = jobs[0].config
    if study.plan_only:
        with planning_cache(Path(study.cache_dir)) as cache:
            show_plan([replace(job.config, cache_dir=str(cache)) for job in jobs], gpus)
        if (sweeper := config.hydra.sweeper._target_.rpartition(".")[2]) != BasicSweeper.__name__:
            print(f"{sweeper} chooses further trials by the results of these")
            raise PlanShown
        return [_returned(job, JobStatus.COMPLETED, None) for job in jobs[:grid]]
    print(*gpus, sep="\n", end="\n" * bool(gpus))
    fingerprints, overrides = Fingerprints(Path(study.cache_dir)), [job.overrides for job in jobs]
    configs, record, model = [job.config for job in jobs], None, None
    if study.rates.search:
        configs, record, model = search_first(configs, overrides, fingerprints)
        jobs = [replace(job, config=own) for job, own in zip(jobs, configs, strict=True)]
    ready = prepared(configs, fingerprints, model)
    errors = run_study(ready, overrides, initial_job_idx > 0, record)
    outcomes = [_outcome(job, fingerprints, ready.ledger, errors) for job in jobs[:grid]]
    if errors and all(outcome.status is JobStatus.COMPLETED for outcome in outcomes):
        raise TrialsFailed(f"{len(errors)} trials outside the grid failed")  # the sweeper does not see those
    return outcomes


@dataclass(frozen=True)
class Prepared:
    """A study that was checked and can be run; `head`, `tail`: lines to print before and behind its price."""

    study: StudyConfig
    ledger: Ledger
    plan: Plan
    expected: Estimate
    head: tuple[str, ...]
    tail: tuple[str, ...]


def prepared(
    configs: list[StudyConfig], fingerprints: Fingerprints, other: CostModel | None = None, final: bool = True
) -> Prepared:
    """Check all of a study. `other`: cost model where it has none; not `final`: learning rates may change before it is
    run. Raises UserError."""
    study, ledger = configs[0], Ledger(StudyFolder(Path(configs[0].study_dir)))
    fingerprints.clips = {}
    plan, settled = settle_checkpointing(study, make_plan(configs, fingerprints))
    plan = rounds.with_rounds(study, ledger, plan) if final or ledger.looks() is None else plan
    expected = estimate(study, ledger, plan, other)
    head = (*fingerprints.clips.values(), *settled, *[NO_CLIPS] * (not study.sample.clips))
    return Prepared(study, ledger, plan, expected, head, (plan.equal_again(), *fingerprints.remarks))


def run_study(
    ready: Prepared,
    overrides: list[list[str]],
    later: bool = False,
    record: dict[str, Any] | None = None,
    search: bool = False,
) -> dict[str, str]:
    """Run what is missing and report; returns {trial id: reason} of what failed. `later`: of a sweeper that works in
    batches; `record`: of the search for its learning rates; `search`: it is one, and rates that diverged are over."""
    study, ledger, plan, expected = ready.study, ready.ledger, ready.plan, ready.expected
    with ledger.locked():
        ledger.open(study.name, study.answer.share, study.answer.chosen)
        if record:
            ledger.write_rates(record)
        if later:  # one study all the same
            plan = ledger.plan().merged(plan)
        rounds.begin(study, ledger, plan)
        ledger.write_plan(plan)
        ledger.event("sweep", overrides=overrides)
        print(*ready.head, *expected.lines, *ready.tail, sep="\n")
        started = time.monotonic()
        wanted = tuple(spec for spec in plan.trials if not (search and diverged(ledger, spec)))
        errors = run_missing(study, ledger, replace(plan, trials=wanted), expected.seconds, expected.silence)
        took = time.monotonic() - started
        if study.answer.until_decided and not errors:
            plan, errors = rounds.go_on(study, ledger, plan)
    report(plan, ledger, errors)
    if expected.makespan and not errors:
        print(f"estimated {clock(expected.makespan)}, took {clock(took)} including start-up and encoding")
    return errors


def prepared_search(
    configs: list[StudyConfig], fingerprints: Fingerprints, other: CostModel | None = None
) -> tuple[Prepared, list[Search] | None, list[StudyConfig]]:
    """The search; what it has found, None while it is not finished; the jobs of the study at the rates found or, as
    long as there are none, at others that can be checked and priced. Raises UserError."""
    jobs = rates.search_jobs(configs)
    search = prepared(jobs, fingerprints, other)
    if configs[0].rates.data:
        rates.check_folder(trial_config(configs[0]).data, trial_config(jobs[0]).data, fingerprints)
    found = chosen(search.ledger, search.plan)
    return search, found, [rates.at_rates(config, found or rates.stand_in(jobs)) for config in configs]


def search_first(
    configs: list[StudyConfig], overrides: list[list[str]], fingerprints: Fingerprints
) -> tuple[list[StudyConfig], dict[str, Any], CostModel | None]:
    """Search the learning rates; (the jobs of the study at the chosen ones, what is recorded of the search, its cost
    model). Raises TrialsFailed where the search cannot be finished, UserError where it finds nothing."""
    search, found, standing = prepared_search(configs, fingerprints)
    prepared(standing, fingerprints, final=found is not None)  # what is wrong with the study shows before the search
    print(f"search for the learning rates of {configs[0].name}:")
    run_study(search, overrides, search=True)
    found = chosen(search.ledger, search.plan)
    if found is None:
        raise TrialsFailed("the search for learning rates is not finished")
    record = search_record(search.study, search.ledger, search.plan, found)
    print(*rates.choice_lines(record, found), f"study {configs[0].name} at these rates:", sep="\n")
    model = cost_model(search.study, search.ledger, search.plan)
    return [rates.at_rates(config, found) for config in configs], record, model


@dataclass(frozen=True)
class ComposedJob:
    overrides: list[str]
    tree: DictConfig
    config: StudyConfig


def compose(context: HydraContext, config: DictConfig, overrides: Sequence[str], index: int) -> ComposedJob:
    """One job's config as a dataclass, every range checked. Raises UserError."""
    tree = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(tree):
        tree.hydra.job.id = tree.hydra.job.num = index
        hydra_part = tree.pop("hydra")
    _check_keys(tree)
    try:
        study = OmegaConf.to_object(tree)
    except ValueError as error:
        raise UserError(str(error).splitlines()[0]) from error
    assert isinstance(study, StudyConfig)
    with open_dict(tree):
        tree.hydra = hydra_part
    return ComposedJob(list(overrides), tree, study)


def known_keys(owner: Any = None, prefix: str = "") -> list[str]:
    """Dotted names of every setting."""
    owner = StudyConfig() if owner is None else owner
    names = []
    for item in fields(owner):
        value = getattr(owner, item.name)
        nested = is_dataclass(value)
        names += known_keys(value, f"{prefix}{item.name}.") if nested else [f"{prefix}{item.name}"]
    return names


def unknown_setting(key: str) -> str:
    """What to say of a key that is no setting."""
    rooms = {name.rpartition(".")[0] for name in known_keys()} - {""}
    near = difflib.get_close_matches(key, [*known_keys(), *rooms], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"settings are {', '.join(known_keys())}"
    return f"{key}: unknown setting; {hint}"


def _check_keys(tree: DictConfig, prefix: str = "") -> None:
    """Raises UserError for a key that is no setting, which `+` and `++` would let through in silence."""
    kind = OmegaConf.get_type(tree)
    assert is_dataclass(kind)
    names = {item.name for item in fields(kind)}
    for key in map(str, tree):
        if key not in names:
            raise UserError(unknown_setting(prefix + key))
        if is_dataclass(OmegaConf.get_type(tree, key)):
            _check_keys(tree[key], f"{prefix}{key}.")


def one_study(jobs: list[ComposedJob]) -> StudyConfig:
    """The study that all jobs belong to. Raises UserError if the sweep varies where or how it runs."""
    one = (
        "name",
        "study_dir",
        "cache_dir",
        "plan_only",
        "prune",
        "frozen_row",
        "cluster",
        "tracking",
        "answer",
        "rates",
    )
    for name in (*one, "fail_fast"):
        values = {str(getattr(job.config, name)) for job in jobs}
        if len(values) > 1:
            raise UserError(f"{name}: a sweep cannot vary it (found {len(values)} values); run one sweep for each")
    return jobs[0].config


def extra_overrides(extra: list[str], jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Overrides of the trials outside the grid: what all jobs share, then each line of `extra`, lists expanded."""
    shared = [item for item in jobs[0] if all(item in job for job in jobs)]
    lines = []
    for line in extra:
        try:
            parsed = OverridesParser.create().parse_overrides(shlex.split(line))
        except ValueError as error:
            raise UserError(f"extra: {line!r}: {error}; close the quote") from error
        own = {override.key_or_group for override in parsed}
        kept = [item for item in shared if item.lstrip("+~").split("=")[0] not in own]
        (expanded,) = BasicSweeper.split_arguments(parsed, None)
        lines += [kept + item for item in expanded]
    return lines


def settings(spec: TrialSpec) -> str:
    """The trial's label and the settings that a sweep usually varies."""
    config, lora = spec.config, spec.config.lora
    if config.method is Method.base:
        return f"{label(spec)} model, no adapter"
    if config.method is Method.frozen:
        return f"{label(spec)}, repeated; no model"
    if config.method is Method.clips:
        return f"{label(spec):<26} clips of {config.clips_folder}"
    adapter = f"alpha {lora.effective_alpha:<6g} {lora.scaling.value:<18} {lora.targets.value:<10} "
    origin = f"lr {config.train.learning_rate:g}" if config.method.trains else Path(config.adapter).name
    return f"{label(spec):<26} {adapter if config.method.adapts else ''}{origin}"


def show_plan(configs: list[StudyConfig], gpus: tuple[str, ...]) -> None:
    """Check everything and print what a sweep would run, its cost, the line on `gpus`, remarks. Raises UserError."""
    study, fingerprints = configs[0], Fingerprints(Path(configs[0].cache_dir), plan_only=True)
    if not study.rates.search:
        print_study(prepared(configs, fingerprints), gpus)
        if study.learning_rate_by_rank or study.learning_rate_by_targets:
            print(rates.NOT_PRICED)
        return
    search, found, standing = prepared_search(configs, fingerprints)
    ready = prepared(standing, fingerprints, final=found is not None)
    own = ready.plan if found else make_plan(configs, fingerprints)  # finished trials at other rates show the pace too
    models = (cost_model(each.study, each.ledger, plan) for each, plan in ((search, search.plan), (ready, own)))
    model = best_fitted(*models)
    both = [estimate(each.study, each.ledger, each.plan, model) for each in (search, ready)]
    search, ready = (replace(each, expected=cost) for each, cost in zip((search, ready), both, strict=True))
    print("search for the learning rates:")
    print_plan(search.plan, search.ledger, study.prune is not Prune.off)
    print(*search.head, *search.expected.lines, sep="\n")
    if found:
        record = search_record(search.study, search.ledger, search.plan, found)
        print(*rates.choice_lines(record, found), sep="\n")
    print("study at the chosen rates:")
    print_study(ready, gpus, found is not None, model)
    print(*rates.price_lines(search.study, search.ledger, search.plan, model, both), sep="\n")


def print_study(ready: Prepared, gpus: tuple[str, ...], searched: bool = True, other: CostModel | None = None) -> None:
    """`searched`: its learning rates are known, and so are the ids of its trials; `other`: as in `estimate`."""
    study, ledger, plan = ready.study, ready.ledger, ready.plan
    if ledger.folder.study.exists():
        check_schema(ledger.folder)
    print_plan(plan, ledger, study.prune is not Prune.off, searched)
    from launch.price import chance_lines  # here, since it loads pandas and matplotlib, which a sweep does not need

    chances = chance_lines(study, ledger, plan, other)
    notes = [*gpus, *ready.expected.lines, *chances, *rounds.lines(study, ledger, plan), *ready.tail]
    print(*ready.head, *notes, sep="\n")


def print_plan(plan: Plan, ledger: Ledger, keep_pruned: bool, searched: bool = True) -> None:
    """One line per trial with its state on disk, then the counts. Not `searched`: rates and ids are not known yet."""
    for spec in plan.trials:
        if spec.config.method.trains and not searched:
            text = settings(spec).rpartition("lr ")[0] + "lr to be searched"
            print(f"  {'-' * len(spec.trial_id)}  {text:<84} to run")
            continue
        if ledger.is_done(spec.trial_id):
            state = "done"
        elif (record := ledger.pruned(spec.trial_id)) is not None:
            state = f"pruned ({record['why']})" if keep_pruned else "pruned, to run again"
        else:
            state = "failed, to run again" if ledger.folder.trial(spec.trial_id).failed.exists() else "to run"
        print(f"  {spec.trial_id}  {settings(spec):<84} {state}")
    print(plan_counts(plan, ledger, keep_pruned))


def report(plan: Plan, ledger: Ledger, errors: dict[str, str]) -> None:
    """Print how the sweep ended and what to type next."""
    if not errors:
        done = sum(ledger.is_done(spec.trial_id) for spec in plan.trials)
        pruned = sum(ledger.pruned(spec.trial_id) is not None for spec in plan.trials)
        print(
            f"nothing left to do: {done} of {len(plan.trials)} trials done" + (f", {pruned} pruned" if pruned else "")
        )
    for spec in plan.trials:
        if spec.trial_id in errors:
            print(f"FAILED {spec.trial_id} {settings(spec)}: {errors[spec.trial_id]}")
            print(f"       trace: {ledger.folder.trial(spec.trial_id).log(0)}")
    print(f"tables and figures: make figures STUDY={ledger.folder.typed}")


def _outcome(job: ComposedJob, fingerprints: Fingerprints, ledger: Ledger, errors: dict[str, str]) -> JobReturn:
    """What Hydra's sweeper sees of a job: its held-out loss, or the error that it will raise."""
    config = stages(job.config, fingerprints)[-1]
    trial_id = trial_spec(config, fingerprints.of(config)).trial_id
    if (result := ledger.result(trial_id)) is not None:
        return _returned(job, JobStatus.COMPLETED, result.heldout_loss)
    if (record := ledger.pruned(trial_id)) is not None:
        loss = record["heldout_loss"]
        return _returned(job, JobStatus.COMPLETED, math.inf if loss is None else loss)
    return _returned(job, JobStatus.FAILED, TrialsFailed(f"{trial_id}: {errors.get(trial_id, 'no result')}"))


def _returned(job: ComposedJob, status: JobStatus, value: Any) -> JobReturn:
    result = JobReturn()
    result.overrides, result.cfg, result.status = job.overrides, job.tree, status
    result.return_value = value
    return result
