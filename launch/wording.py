"""What a person sees while a sweep runs: trials done, running, queued; step, loss, time left.

In: the schedule and the ledger. Out: a live table on a terminal, a line every few seconds elsewhere.
"""

from __future__ import annotations

from cinelora.core.config import Method
from cinelora.core.records import TrialSpec
from sweeps.ledger import Ledger
from sweeps.plan import Plan


def label(spec: TrialSpec) -> str:
    """e.g. `rank 8 seed 1` or `base`."""
    config = spec.config
    if config.method is Method.base:
        return "base"
    what = "full" if config.method is Method.full else f"rank {config.lora.rank}"
    return f"{what} seed {config.seed} {config.arm}".rstrip()


def axes(spec: TrialSpec) -> str:
    """The settings of a trial that a sweep usually varies."""
    config = spec.config
    if config.method is Method.base:
        return f"base model, no adapter {config.arm}".rstrip()
    if config.method is Method.full:
        return f"full fine-tune, lr {config.train.learning_rate:g}, seed {config.seed} {config.arm}".rstrip()
    lora = config.lora
    return (
        f"rank {lora.rank:<4} alpha {lora.effective_alpha:<6g} {lora.scaling.value:<18} {lora.targets.value:<10} "
        f"lr {config.train.learning_rate:<8g} seed {config.seed} {config.arm}"
    ).rstrip()


def print_plan(plan: Plan, ledger: Ledger, keep_pruned: bool = False) -> None:
    """One line per trial with its state on disk, then the counts."""
    for spec in plan.trials:
        print(f"  {spec.trial_id}  {axes(spec):<78} {_state(ledger, spec.trial_id, keep_pruned)}")
    done, waiting = sum(ledger.is_done(spec.trial_id) for spec in plan.trials), len(ledger.pending(plan, keep_pruned))
    pruned = len(plan.trials) - done - waiting
    print(f"{len(plan.trials)} trials: {done} done, {f'{pruned} pruned, ' if pruned else ''}{waiting} to run")


def _state(ledger: Ledger, trial_id: str, keep_pruned: bool) -> str:
    if ledger.is_done(trial_id):
        return "done"
    if (record := ledger.pruned(trial_id)) is not None:
        return f"pruned ({record['why']})" if keep_pruned else "pruned, to run again"
    return "failed, to run again" if ledger.folder.trial(trial_id).failed.exists() else "to run"


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
