"""From a plan to results: connect to Ray, encode, run what is missing.

In: a study's settings, its ledger, its plan. Out: results on disk and the reasons of what failed. Loads neither Ray nor
torch unless something is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cinelora.core.cli import UserError
from cinelora.core.config import Prune, StudyConfig
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from cinelora.trial.job import Job
from launch.engine.display import Display
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.prune import Pruner
from sweeps.scheduling.scheduler import Infeasible, Scheduler
from sweeps.scheduling.tasks import shape, task_for, workers

if TYPE_CHECKING:
    from launch.engine.loop import Engine


def run_missing(study: StudyConfig, ledger: Ledger, plan: Plan, seconds: Mapping[str, float]) -> dict[str, str]:
    """Run every trial without a result; returns {trial_id: reason} of those that failed. `seconds`: estimates.

    Raises UserError for a trial that the cluster can never hold, before anything is started, and KeyboardInterrupt when
    the sweep was stopped before its end.
    """
    keep_pruned = study.prune is not Prune.off
    pending = ledger.pending(plan, keep_pruned)
    if not pending:
        return {}
    import ray

    from launch.engine.encoding import encode_all
    from launch.engine.loop import run_all, stopped_by_signal
    from launch.engine.pool import connect

    done = sum(ledger.is_done(spec.trial_id) for spec in plan.trials)
    pruned = len(plan.trials) - done - len(pending)
    say(f"study {study.name}: {done} trials done, {f'{pruned} pruned, ' if pruned else ''}{len(pending)} to run")
    ledger.folder.stop.unlink(missing_ok=True)
    connect(study.cluster.address)
    engine = engine_for(study, ledger)
    try:
        queue_trials(engine, study, pending, seconds)
        encode_all(engine.pool, shape(study.cluster, 1), list(engine.jobs.values()), study.cluster.max_restarts, say)
        with stopped_by_signal(engine), Display(ledger, done + len(pending), done) as display:
            errors = run_all(engine, display.tick)
        if engine.stopping and engine.jobs:
            raise KeyboardInterrupt
        return errors
    finally:
        engine.pool.close()
        ledger.folder.stop.unlink(missing_ok=True)
        ray.shutdown()


def engine_for(study: StudyConfig, ledger: Ledger) -> Engine:
    """An engine that knows the connected cluster's nodes."""
    from launch.engine.loop import Engine
    from launch.engine.pool import Pool

    pruner = Pruner(ledger, study.prune) if study.prune is not Prune.off else None
    if pruner and not pruner.compares:
        say(f"prune={study.prune.value}: no two trials differ in train.learning_rate alone, so none will be pruned")
    engine = Engine(ledger, study.cluster, Scheduler(), Pool(), pruner=pruner, fail_fast=study.fail_fast, say=say)
    engine.pool.refresh()
    engine.meet_nodes()
    return engine


def queue_trials(engine: Engine, study: StudyConfig, specs: list[TrialSpec], seconds: Mapping[str, float]) -> None:
    """Raises UserError for the first trial that no cluster of this size can hold."""
    for spec in specs:
        try:
            task = task_for(study.cluster, spec, seconds.get(spec.trial_id, 1.0))
            engine.add(job_for(study, engine.ledger, spec), task)
        except Infeasible as error:
            raise UserError(f"cluster.workers_per_trial={workers(study.cluster, spec)}: {error}") from error


def job_for(study: StudyConfig, ledger: Ledger, spec: TrialSpec) -> Job:
    folder = StudyFolder(ledger.folder.root.resolve())
    place = ledger.folder.trial(spec.trial_id)
    for left in (place.failed, place.progress, place.pruned, place.stop):
        left.unlink(missing_ok=True)
    return Job(spec, folder, study.name, Path(study.cache_dir).resolve(), study.tracking)


def say(text: str) -> None:
    print(text, flush=True)
