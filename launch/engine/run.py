"""From a plan to results: connect to Ray, encode, run what is missing.

In: a study's settings, its ledger, its plan. Out: results on disk and the reasons of what failed. Loads neither Ray nor
torch unless something is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.config import Prune, StudyConfig
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from cinelora.trial.job import Job
from cinelora.trial.tracking import UNREACHABLE
from launch.engine.display import Display
from launch.status import plan_counts
from sweeps.ledger import Ledger
from sweeps.plan import Plan
from sweeps.prune import Pruner
from sweeps.scheduling.cluster import Infeasible
from sweeps.scheduling.tasks import shape, task_for

Seconds = Mapping[str, float]


def run_missing(study: StudyConfig, ledger: Ledger, plan: Plan, seconds: Seconds, silence: Seconds) -> dict[str, str]:
    """Run every trial without a result; returns {trial_id: reason} of those that failed. Estimates by trial id:
    `seconds` of the whole trial, `silence` at most between two of its reports.

    Raises UserError for a trial that the cluster can never hold, before anything is started, and KeyboardInterrupt when
    the sweep was stopped before its end.
    """
    pending = ledger.pending(plan, study.prune is not Prune.off)
    if not pending:
        return {}
    import ray

    from launch.engine.encoding import encode_all
    from launch.engine.loop import Engine, run_all, stopped_by_signal
    from launch.engine.pool import connect, wait_for_nodes

    print(f"study {study.name}, {plan_counts(plan, ledger, study.prune is not Prune.off)}", flush=True)
    pruner = Pruner(ledger, study.prune) if study.prune is not Prune.off else None
    if pruner and not pruner.compares:
        print(f"prune={study.prune.value}: no two trials differ in train.learning_rate alone, so none will be pruned")
    ledger.folder.stop.unlink(missing_ok=True)
    (ledger.folder.wandb / UNREACHABLE).unlink(missing_ok=True)
    connect(study.cluster.address)
    if study.cluster.address:
        wait_for_nodes(study.cluster.nodes)
    engine = Engine(ledger, study.cluster, pruner=pruner, fail_fast=study.fail_fast)
    try:
        with stopped_by_signal(engine):
            engine.update_nodes()
            for spec in pending:
                estimates = seconds.get(spec.trial_id, 1.0), silence.get(spec.trial_id, 0.0)
                task = task_for(study.cluster, spec, *estimates)
                try:
                    engine.add(_job(study, ledger, spec), task)
                except Infeasible as error:
                    raise UserError(f"cluster.workers_per_trial={task.shape.workers}: {error}") from error
            encode_all(engine.pool, shape(study.cluster, 1), list(engine.jobs.values()), study.cluster.max_restarts)
            with Display(ledger) as display:
                errors = run_all(engine, lambda _: display.tick())
        if engine.stopping and not errors and ledger.pending(plan, study.prune is not Prune.off):
            raise KeyboardInterrupt
        return errors
    finally:
        _report_tracking(ledger)
        engine.pool.close()
        ledger.folder.stop.unlink(missing_ok=True)
        ray.shutdown()


def _report_tracking(ledger: Ledger) -> None:
    """Say once that W&B could not be reached."""
    folder = ledger.folder
    if (folder.wandb / UNREACHABLE).exists():
        why = (folder.wandb / UNREACHABLE).read_text()
        ledger.event("wandb_unreachable", error=why)
        print(f"W&B could not be reached ({why}); the runs are in {folder.wandb}: make wandb-sync STUDY={folder.typed}")


def _job(study: StudyConfig, ledger: Ledger, spec: TrialSpec) -> Job:
    """The trial's job; files that an earlier run of it left are removed."""
    place = ledger.folder.trial(spec.trial_id)
    for left in (place.failed, place.progress, place.pruned, place.stop):
        left.unlink(missing_ok=True)
    folder = StudyFolder(ledger.folder.root.resolve())
    return Job(spec, folder, study.name, Path(study.cache_dir).resolve(), study.tracking)
