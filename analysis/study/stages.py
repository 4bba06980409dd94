"""What a two-stage study stands on: the adapters that were trained first and lie frozen under its rows.

In: a plan, the finished trials of the first stage. Out: their ids; one line about each for the notes. They are rows of
no table: their windows may be others, and with them the protocol of their scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cinelora.core.records import TrialSpec

if TYPE_CHECKING:
    from analysis.study.load import Trial


def first_stages(specs: Iterable[TrialSpec]) -> set[str]:
    """Ids of the trials that others of the plan start from."""
    return {spec.config.first for spec in specs} - {""}


def sentence(trial: Trial) -> str:
    """Rank, targets, windows and what the stage gained on its own held-out windows."""
    config, result = trial.spec.config, trial.result
    stills = f", {config.train.stills:.0%} of its steps on stills" if config.train.stills else ""
    start = trial.curve["heldout_loss"].iloc[0]
    return (
        f"under every row but those of other arms lies the adapter of {result.trial_id} (rank {result.rank}, "
        f"{result.targets}, {result.steps} steps on windows of {config.data.frames} frames{stills}), which took the "
        f"held-out loss of its own windows from {start:.4f} to {result.heldout_loss:.4f}"
    )
