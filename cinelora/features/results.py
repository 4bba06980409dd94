"""What scoring found of some clips: the record that batches, workers and trials hand on."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from cinelora.core.files import whole_file, write_json
from cinelora.core.paths import SampleFolder, TrialFolder
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.set_metrics import SetScores, definition, distances_to, feature_mark


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


Floats = NDArray[np.float32]


class ClipScore(NamedTuple):
    """One value of one metric on one clip."""

    clip_id: str
    metric: str
    value: float


def write_clip_scores(path: Path, rows: Iterable[ClipScore]) -> None:
    """CSV with the columns clip_id, metric, value; the value reads back as the same float64."""
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(ClipScore._fields)
        writer.writerows((row.clip_id, row.metric, repr(float(row.value))) for row in rows)


def write_features(path: Path, clip_ids: Sequence[str], features: Floats) -> None:
    """.npz with `clip_ids` (N,) unicode and `features` (N, D) float32; no pickle; same input, same bytes.

    ValueError: as many ids as rows are needed.
    """
    if len(clip_ids) != len(features):
        raise ValueError(f"{len(clip_ids)} clip ids for {len(features)} rows of features")
    ids = np.array(list(clip_ids), dtype=np.str_)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, ids=ids, features=np.asarray(features, np.float32))


def read_features(path: Path) -> tuple[list[str], Floats]:
    """Clip ids and features (N, D) that `write_features` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["ids"].tolist(), np.asarray(arrays["features"], np.float32)


# ~ The scores of a trial batch by batch, so that a trial lost while it generates goes on where it was.
# ~
# ~ In: a Scored of one batch. Out: an .npz without pickle, whole or absent; it holds for one adapter only.


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


# ~ The set scores of a trial, written when it is scored, so that reading a study computes none of them again.
# ~
# ~ In: the feature files of the trial and of the true clips. Out: `set_scores.json`: net -> `SetScores`.
# ~ It holds no more than the features do: where it is missing or of other features, analysis computes the same numbers
# ~ by the same functions (`cinelora/metrics/set_metrics.py`).


def write_set_scores(place: TrialFolder, reference: SampleFolder) -> None:
    """Of every video net with features of both. Scores that are no finite number are left to analysis."""
    nets = [name for name, net in WEIGHTS.items() if net.kind == "video"]
    both = {net: (place.features(net), reference.features(net)) for net in nets}
    found = {net: _of_net(net, *paths) for net, paths in both.items() if all(path.exists() for path in paths)}
    write_json(place.set_scores, {net: asdict(scores) for net, scores in found.items() if scores is not None})


def _of_net(net: str, made_path: Path, real_path: Path) -> SetScores | None:
    """On the clips of the trial in the order of their ids, as in analysis; None for fewer than 2."""
    (ids, made), (real_ids, real) = read_features(made_path), read_features(real_path)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rows = {clip: row for row, clip in enumerate(real_ids)}
    if len(ids) < 2 or not set(ids) <= set(rows):
        return None
    truth = real[[rows[ids[row]] for row in order]].astype(np.float64)
    scores = distances_to(net, truth)(made[order].astype(np.float64))
    if not np.isfinite(list(scores.values())).all():
        return None
    return SetScores(definition(net), _mark(made_path), _mark(real_path), scores)


def _mark(path: Path) -> str:
    with ZipFile(path) as archive:
        return feature_mark(archive)
