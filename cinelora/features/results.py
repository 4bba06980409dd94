"""What scoring found on some clips, and its files: clip scores, features, parts of a trial, set scores.

In: a `Scored` of some clips. Out: files that are whole or absent: `clip_scores.csv`, `features/NET.npz`, one part per
batch, so that a trial lost while it generates continues where it was, and `set_scores.json`, so that reading a study
computes no set score again. N clips, D feature dimensions.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from cinelora.core.files import whole_file, write_csv, write_json
from cinelora.core.paths import SampleFolder, TrialFolder
from cinelora.features.nets.frames import Floats
from cinelora.metrics.distances import Array
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.set_metrics import SetScores, definition, features_fingerprint, scores_of_net


@dataclass
class Scored:
    """Of N clips: features (N, D) by net, and values (N,) by clip metric, in the order of the ids.

    `seconds`: of generating and of scoring them.
    """

    clip_ids: list[str] = field(default_factory=list)
    features: dict[str, Floats] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)


def merged(parts: Sequence[Scored], order: Sequence[str]) -> Scored:
    """All parts in one, clips in `order`; every part with clips has the same nets and metrics."""
    parts = [part for part in parts if part.clip_ids]
    if not parts:
        return Scored()
    ids = [clip for part in parts for clip in part.clip_ids]
    place = {clip: index for index, clip in enumerate(order)}
    rows = sorted(range(len(ids)), key=lambda row: place[ids[row]])

    def joined(arrays: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: np.concatenate([each[name] for each in arrays])[rows] for name in arrays[0]}

    features, values = joined([part.features for part in parts]), joined([part.values for part in parts])
    return Scored([ids[row] for row in rows], features, values)


def write_clip_scores(path: Path, scored: Scored) -> None:
    """CSV with the columns clip_id, metric, value, clip by clip; a value reads back as the same float64."""
    rows = (
        (clip, metric, repr(float(values[row])))
        for row, clip in enumerate(scored.clip_ids)
        for metric, values in scored.values.items()
    )
    write_csv(path, ["clip_id", "metric", "value"], rows)


def write_features(path: Path, clip_ids: Sequence[str], features: Floats) -> None:
    """.npz with `ids` (N,) unicode and `features` (N, D) float32; no pickle; same input, same bytes.

    ValueError: as many ids as rows are needed.
    """
    if len(clip_ids) != len(features):
        raise ValueError(f"{len(clip_ids)} clip ids for {len(features)} rows of features")
    with whole_file(path) as temporary:
        np.savez(temporary, ids=np.array(clip_ids, np.str_), features=np.asarray(features, np.float32))


def read_features(path: Path) -> tuple[list[str], Floats]:
    """Clip ids and features (N, D) that `write_features` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["ids"].tolist(), np.asarray(arrays["features"], np.float32)


def write_scored(folder: SampleFolder, scored: Scored) -> None:
    """Its features, net by net, and its clip scores."""
    for net, rows in scored.features.items():
        write_features(folder.features(net), scored.clip_ids, rows)
    write_clip_scores(folder.clip_scores, scored)


def save_part(path: Path, adapter: str, scored: Scored) -> None:
    """Write the scores of a batch, as .npz without pickle; its clips must be on disk already. For one adapter only."""
    arrays: dict[str, Any] = {
        "adapter": np.array(adapter),
        "clip_ids": np.array(scored.clip_ids),
        "seconds": np.array(scored.seconds),
        "row_metric": np.tile(list(scored.values), len(scored.clip_ids)),
        "row_value": np.stack(list(scored.values.values()), axis=1).ravel(),
        **{f"net/{net}": rows for net, rows in scored.features.items()},
    }
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)


def load_part(path: Path, adapter: str) -> Scored | None:
    """The scores of a batch, equal to what was saved; None if there are none, or of another adapter."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as data:
        if str(data["adapter"]) != adapter:
            return None
        ids, metrics = data["clip_ids"].tolist(), data["row_metric"]
        features = {name.removeprefix("net/"): data[name] for name in data.files if name.startswith("net/")}
        values = {metric: data["row_value"][metrics == metric] for metric in dict.fromkeys(metrics.tolist())}
        seconds = tuple(data["seconds"].tolist()) if "seconds" in data.files else (0.0, 0.0)
        return Scored(ids, features, values, seconds)


def drop_parts(folder: TrialFolder) -> None:
    """Remove what the finished trial holds in one piece."""
    shutil.rmtree(folder.part(0).parent, ignore_errors=True)


def write_set_scores(place: TrialFolder, reference: SampleFolder) -> None:
    """Of every video net with features of both. Scores that are no finite number are left to analysis.

    The file only saves work: where it is missing or of other features, analysis computes the same
    numbers by the same functions (`cinelora/metrics/set_metrics.py`).
    """
    nets = [name for name, net in WEIGHTS.items() if net.kind == "video"]
    both = {net: (place.features(net), reference.features(net)) for net in nets}
    found = {net: _of_net(net, *paths) for net, paths in both.items() if all(path.exists() for path in paths)}
    write_json(place.set_scores, {net: asdict(scores) for net, scores in found.items() if scores is not None})


def _of_net(net: str, generated_path: Path, reference_path: Path) -> SetScores | None:
    """On the clips of the trial in the order of their ids, as in analysis; None for fewer than 2."""
    (ids, generated), (reference_ids, reference) = read_features(generated_path), read_features(reference_path)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    rows = {clip: row for row, clip in enumerate(reference_ids)}
    if len(ids) < 2 or not set(ids) <= set(rows):
        return None
    matching = reference[[rows[ids[row]] for row in order]].astype(np.float64)
    scores = scores_of_net(net, generated[order].astype(np.float64), matching)
    if not np.isfinite(list(scores.values())).all():
        return None
    return SetScores(definition(net), _fingerprint(generated_path), _fingerprint(reference_path), scores)


def _fingerprint(path: Path) -> str:
    with ZipFile(path) as archive:
        return features_fingerprint(archive)
