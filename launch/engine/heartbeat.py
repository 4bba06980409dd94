"""Is a running trial alive? A stuck collective raises nothing, so the driver watches what the trial says of itself.

In: progress.json of each trial, whenever the driver looks. Out: how long it has not changed, by the driver's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Heartbeats:
    """Last word of each trial and when it was first heard, in the driver's seconds."""

    heard: dict[str, tuple[Any, float]] = field(default_factory=dict)

    def silent(self, trial_id: str, note: Any, now: float) -> float:
        """Seconds since the note last changed; a trial seen for the first time has just spoken."""
        last = self.heard.get(trial_id)
        if last is None or last[0] != note:
            self.heard[trial_id] = (note, now)
            return 0.0
        return now - last[1]

    def forget(self, trial_id: str) -> None:
        self.heard.pop(trial_id, None)
