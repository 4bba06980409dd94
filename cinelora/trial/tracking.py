"""One Weights & Biases run per trial. W&B only mirrors the study: where it fails or is absent, the trial goes on.

In: a TrialSpec, numbers by step, scores, the result. Out: a run in the group of its study, with flat config keys.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cinelora.core.config import UNKNOWN_SEED, Method, Scaling, TrackingConfig, TrialConfig, Wandb
from cinelora.core.records import TrialResult, TrialSpec

TRAIN, SCORE, COST, CLIP = "train/", "score/", "cost/", "clip/"  # prefixes of a run's keys


UNREACHABLE = "unreachable.txt"  # in the study's W&B folder: why its runs are offline although they should be online


class Tracker:
    """A W&B run that switches itself off at its first error, with one line on stderr.

    Where the server cannot be reached, this run and the later ones of the sweep are offline, and UNREACHABLE says why.
    """

    def __init__(self, spec: TrialSpec, tracking: TrackingConfig, study: str, folder: Path, active: bool) -> None:
        self._run: Any = None
        if not active or tracking.wandb is Wandb.off:
            return
        with self._guard():
            os.environ.setdefault("WANDB_SILENT", "true")
            import wandb

            folder.mkdir(parents=True, exist_ok=True)

            def init(mode: Literal["online", "offline"]) -> Any:
                return wandb.init(
                    project=tracking.project,
                    id=run_id(spec.trial_id, study),
                    **labels(spec, study),
                    dir=str(folder.parent),
                    mode=mode,
                    resume="allow",
                    settings=wandb.Settings(console="off", x_disable_stats=True, init_timeout=30),
                )

            if tracking.wandb is Wandb.online and not (folder / UNREACHABLE).exists():
                try:
                    self._run = init("online")
                    return
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    (folder / UNREACHABLE).write_text(reason)
            self._run = init("offline")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the trial goes on, whatever fails here
            print(f"W&B switched off for this trial: {type(error).__name__}: {error}", file=sys.stderr)
            self._run = None

    def log(self, values: dict[str, float | None], step: int) -> None:
        """Numbers of one optimiser step; None is left out."""
        known = {TRAIN + key: value for key, value in values.items() if value is not None}
        if self._run is not None and known:
            with self._guard():
                self._run.log(known, step=step)

    def scores(self, values: Mapping[str, NDArray[np.float64]], videos: list[Path]) -> None:
        """The mean of each clip metric and some of the clips, at the end of a trial. `values`: metric -> (N,)."""
        if self._run is None:
            return
        means = {score_key(metric): float(found.mean()) for metric, found in values.items()}
        with self._guard():
            import wandb

            clips = {CLIP + path.stem: wandb.Video(str(path), format="mp4") for path in videos}
            self._run.log({**means, **clips})

    def finish(self, result: TrialResult | None) -> None:
        """Close the run, with the result as its summary, or as failed without one."""
        if self._run is None:
            return
        with self._guard():
            if result is not None:
                self._run.summary.update(result_summary(result))
            self._run.finish(exit_code=0 if result is not None else 1)


def run_id(trial_id: str, study: str) -> str:
    """One run per trial and study, since studies may share trials. Up to the first dash it is the trial's id."""
    return f"{trial_id}-{re.sub(r'[^A-Za-z0-9_-]+', '-', study)}"[:64]


def labels(spec: TrialSpec, study: str) -> dict[str, Any]:
    """What W&B finds, groups and filters runs by, as arguments of `wandb.init`."""
    return {
        "name": run_name(spec),
        "group": study,
        "job_type": spec.config.method.value,
        "tags": [study[:64], row_name(spec.config)[:64]],
        "config": {**flat_config(spec), "study": study},
    }


def run_name(spec: TrialSpec) -> str:
    """The name in W&B's list of runs: r8-cross-s0-4d980d, r8-rslora16-block-s0-..., full-s0-..., base-..."""
    config, lora = spec.config, spec.config.lora
    parts = [config.arm, config.method.value]
    if config.method.adapts:
        rule = "" if lora.scaling is Scaling.alpha_equals_rank else f"{lora.scaling.value}{lora.alpha:g}"
        parts = [config.arm, f"r{lora.rank}", rule, lora.targets.value, config.trainer, config.label]
    if config.method is Method.clips:
        parts += [f"r{config.rank}" if config.clips_rank >= 0 else "", config.trainer, config.label]
    seed = "" if config.method in (Method.base, Method.frozen) or config.seed == UNKNOWN_SEED else f"s{config.seed}"
    return "-".join(part for part in (*parts, seed, spec.trial_id[:6]) if part)


def row_name(config: TrialConfig) -> str:
    """The row of the rank table that a trial belongs to: base, rank 8, full, or a control such as `frozen, rank 8`."""
    rank = f"rank {config.rank}" if config.rank else ""
    title = "" if config.method is Method.clips and config.clips_rank else config.method.title
    name = config.arm or ("" if rank else title)
    return ", ".join(part for part in (name, rank, config.trainer, config.label) if part)


def flat_config(spec: TrialSpec) -> dict[str, Any]:
    """Config keys that dashboards group by. Only an adapter has a rank, an alpha and targets."""
    config = spec.config
    adapter, trains = config.method.adapts, config.method.trains
    return {
        "trial_id": spec.trial_id,
        "row": row_name(config),
        "method": config.method.value,
        "arm": config.arm,
        "rank": config.rank,
        "alpha": config.lora.effective_alpha if adapter else 0.0,
        "scaling": config.lora.scaling.value if adapter else "none",
        "targets": config.lora.targets.value if adapter else "none",
        "seed": config.seed,
        "learning_rate": config.train.learning_rate if trains else 0.0,
        "steps": config.train.steps if trains else 0,
        "model": config.model.name,
    }


def score_key(metric: str) -> str:
    """kvd[tnv2] -> score/kvd_tnv2: W&B cannot sort or plot by a name with brackets."""
    return SCORE + re.sub(r"\W+", "_", metric).strip("_")


def result_summary(result: TrialResult) -> dict[str, float]:
    """A run's summary: the loss, and what the trial cost (seconds, GiB, MB). None is left out."""
    found = {
        "heldout_loss": result.heldout_loss,
        "trainable_parameters": result.trainable_parameters,
        f"{COST}seconds": sum(result.seconds.values()),
        f"{COST}seconds_per_step": result.seconds_per_step,
        f"{COST}peak_memory_gib": result.peak_memory_gib,
        f"{COST}adapter_megabytes": result.adapter_bytes / 1e6,
        f"{COST}restarts": result.restarts,
    }
    return {key: value for key, value in found.items() if value is not None}
