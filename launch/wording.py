"""How trials, their progress and their counts are written for a person. Standard library only.

In: trial specs, progress records, counts. Out: short texts for the plan, the progress lines and the status.
"""

from __future__ import annotations

from typing import Any

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


def settings(spec: TrialSpec) -> str:
    """The settings of a trial that a sweep usually varies."""
    config, lora, rate = spec.config, spec.config.lora, f"lr {spec.config.train.learning_rate:g}"
    if config.method is Method.base:
        text = "base model, no adapter"
    elif config.method is Method.full:
        text = f"full fine-tune, {rate}, seed {config.seed}"
    else:
        text = (
            f"rank {lora.rank:<4} alpha {lora.effective_alpha:<6g} {lora.scaling.value:<18} {lora.targets.value:<10} "
        )
        text += f"{rate:<11} seed {config.seed}"
    return f"{text} {config.arm}".rstrip()


def counts(failed: int = 0, pruned: int = 0, **states: int) -> str:
    """e.g. `3 done, 2 queued`; failed and pruned trials only where there are any."""
    rare = {name: count for name, count in (("failed", failed), ("pruned", pruned)) if count}
    return ", ".join(f"{count} {name}" for name, count in (states | rare).items())


def plan_counts(plan: Plan, ledger: Ledger, keep_pruned: bool) -> str:
    """e.g. `5 trials: 3 done, 2 to run`; `keep_pruned`: pruned trials are not run again."""
    done, pending = sum(ledger.is_done(spec.trial_id) for spec in plan.trials), len(ledger.pending(plan, keep_pruned))
    states = {"done": done, "to run": pending, "pruned": len(plan.trials) - done - pending}
    return f"{len(plan.trials)} trials: {counts(**states)}"


def activity(progress: dict[str, Any] | None, restarts: int) -> list[str]:
    """What a running trial does, e.g. `train 3/6`, `loss 0.2500`, `restart 1`; `progress`: its progress.json."""
    if progress is None:
        parts = ["starting"]
    else:
        loss = progress["loss"]
        parts = [f"{progress['stage']} {progress['done']}/{progress['total']}"]
        parts += [] if loss is None else [f"loss {loss:.4f}"]
    return parts + ([f"restart {restarts}"] if restarts else [])
