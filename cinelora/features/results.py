"""What scoring found of some clips: the record that batches, workers and trials hand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Scored:
    """Per-clip outcomes of one worker, then of the gang."""

    clip_ids: list[str] = field(default_factory=list)
    features: dict[str, list[np.ndarray]] = field(default_factory=dict)  # net -> rows (D,)
    rows: list[Any] = field(default_factory=list)

    def add(self, other: Scored) -> None:
        """Take in the outcomes of more clips, scored by the same nets."""
        self.clip_ids += other.clip_ids
        self.rows += other.rows
        for net, rows in other.features.items():
            self.features[net] += rows

    def merge(self, parts: list[Scored], order: list[str]) -> Scored:
        """All parts in one, clips in `order`."""
        place = {clip: index for index, clip in enumerate(order)}
        merged = Scored()
        ids = [clip for part in parts for clip in part.clip_ids]
        sequence = sorted(range(len(ids)), key=lambda i: place[ids[i]])
        merged.clip_ids = [ids[i] for i in sequence]
        for net in parts[0].features:
            rows = [row for part in parts for row in part.features[net]]
            merged.features[net] = [rows[i] for i in sequence]
        merged.rows = sorted((row for part in parts for row in part.rows), key=lambda row: place[row.clip_id])
        return merged
