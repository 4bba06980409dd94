"""Weights & Biases as a mirror of the ledger, never its owner: broken or absent, the trial goes on.

In: a TrialSpec and numbers by step. Out: one run per trial, id = trial id, group = study, flat config keys.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cinelora.config import Method
from cinelora.records import TrialResult, TrialSpec
from cinelora.studyconfig import TrackingConfig, Wandb


def flat_config(spec: TrialSpec) -> dict[str, Any]:
    """Config keys that dashboards group by."""
    config = spec.config
    base = config.method is Method.base
    return {
        "trial_id": spec.trial_id,
        "method": config.method.value,
        "rank": 0 if base else config.lora.rank,
        "alpha": 0.0 if base else config.lora.effective_alpha,
        "scaling": config.lora.scaling.value,
        "targets": config.lora.targets.value,
        "seed": config.seed,
        "learning_rate": config.train.learning_rate,
        "steps": 0 if base else config.train.steps,
        "model": config.model.name,
    }


class Tracker:
    """A W&B run that switches itself off at its first error and says so once on stderr."""

    def __init__(self, spec: TrialSpec, tracking: TrackingConfig, study: str, folder: Path, active: bool) -> None:
        self._run: Any = None
        if active and tracking.wandb is not Wandb.off:
            self._guard(lambda: self._start(spec, tracking, study, folder))

    def _start(self, spec: TrialSpec, tracking: TrackingConfig, study: str, folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=tracking.project,
            id=spec.trial_id,
            name=f"r{flat_config(spec)['rank']}-s{spec.config.seed}-{spec.trial_id[:6]}",
            group=study,
            job_type=spec.config.method.value,
            config={**flat_config(spec), "study": study},
            dir=str(folder.parent),
            mode="online" if tracking.wandb is Wandb.online else "offline",
            resume="allow",
            settings=wandb.Settings(console="off", x_disable_stats=True, init_timeout=30),
        )

    def _guard(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # whatever the tracker does, the trial is worth more
            print(f"W&B switched off for this trial: {type(error).__name__}: {error}", file=sys.stderr)
            self._run = None

    def log(self, values: dict[str, float | None], step: int) -> None:
        """Numbers of one optimiser step; None is left out."""
        known = {f"train/{key}": value for key, value in values.items() if value is not None}
        if self._run is not None and known:
            self._guard(lambda: self._run.log(known, step=step))

    def scores(self, rows: Iterable[tuple[str, str, float]], videos: list[Path]) -> None:
        """Mean of each clip metric, and some of the clips, at the end of a trial. `rows`: clip, metric, value."""
        values: dict[str, list[float]] = {}
        for _, metric, value in rows:
            values.setdefault(metric, []).append(value)
        means = {f"score/{metric}": sum(found) / len(found) for metric, found in values.items()}

        def upload() -> None:
            import wandb

            clips = {f"clip/{path.stem}": wandb.Video(str(path), format="mp4") for path in videos}
            self._run.log({**means, **clips})

        if self._run is not None:
            self._guard(upload)

    def finish(self, result: TrialResult | None) -> None:
        """Close the run, with the result's figures as its summary when there is one."""
        if self._run is None:
            return
        if result is not None:
            summary = {"heldout_loss": result.heldout_loss, "trainable_parameters": result.trainable_parameters}
            self._guard(lambda: self._run.summary.update(summary))
        if self._run is not None:
            self._guard(lambda: self._run.finish(exit_code=0 if result is not None else 1))
