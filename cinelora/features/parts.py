"""The scores of a trial batch by batch, so that a trial lost while it generates goes on where it was.

In: a Scored of one batch. Out: an .npz without pickle, whole or absent; it holds for one adapter only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cinelora.core.paths import TrialFolder
from cinelora.core.records import whole_file
from cinelora.features.clip_scores import ClipScore
from cinelora.features.results import Scored


def save_part(path: Path, adapter: str, scored: Scored) -> None:
    """Write the scores of a batch; its clips must be on disk already."""
    columns = zip(*scored.rows, strict=True)
    names = ("row_clip", "row_metric", "row_value")
    arrays: dict[str, Any] = {name: np.array(column) for name, column in zip(names, columns, strict=True)}
    arrays |= {f"net/{net}": np.stack(rows) for net, rows in scored.features.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, adapter=np.array(adapter), clip_ids=np.array(scored.clip_ids), **arrays)


def load_part(path: Path, adapter: str) -> Scored | None:
    """The scores of a batch, equal to what was saved; None if there are none, or of another adapter."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as data:
        if str(data["adapter"]) != adapter:
            return None
        rows = zip(data["row_clip"].tolist(), data["row_metric"].tolist(), data["row_value"].tolist(), strict=True)
        features = {name.removeprefix("net/"): list(data[name]) for name in data.files if name.startswith("net/")}
        return Scored(data["clip_ids"].tolist(), features, [ClipScore(*row) for row in rows])


def drop_parts(folder: TrialFolder) -> None:
    """Remove what the finished trial holds in one piece."""
    parts = folder.part(0).parent
    for path in parts.glob("*.npz"):
        path.unlink(missing_ok=True)
    if parts.exists():
        parts.rmdir()
