"""The files of one trial, or of the reference clips -> features, set scores, clip scores, loss curve; and CSV text.

In: a `SampleFolder`. Out: `Features`, `SetScores`, `ClipScores`, a DataFrame. Reads only. Features stay on disk until
they are used: those of a large study do not fit in memory. Bad input raises UserError, one line.
N clips, D features.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cinelora.core.cli import UserError
from cinelora.core.files import read_json
from cinelora.core.paths import SampleFolder, TrialFolder
from cinelora.metrics.catalogue import COLOURS
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.primary import LOSS
from cinelora.metrics.set_metrics import SetScores, features_fingerprint

FEATURE_SETS = (*(name for name, net in WEIGHTS.items() if net.kind == "video"), COLOURS)  # that set scores rest on
CURVE_COLUMNS = ("step", "loss", LOSS)
Array = NDArray[np.float64]
Clips = tuple[str, ...]
Run = Mapping[str, Any]  # one entry of provenance.json, as cinelora/trial/provenance.py writes it


@dataclass(frozen=True, eq=False)
class Features:
    """Features of N clips, sorted by clip id."""

    ids: Clips
    read: Callable[[], Array]  # gives `values`
    fingerprint: str = ""  # of the file's content, `cinelora.metrics.set_metrics.features_fingerprint`

    @property
    def values(self) -> Array:
        """float64 (N, D), read from disk each time."""
        return self.read()

    def of(self, clips: Clips) -> Array:
        """The rows of `clips`, in that order: (len(clips), D)."""
        return self.values if clips == self.ids else self.values[_rows(self.ids, clips)]


@dataclass(frozen=True, eq=False)
class ClipValues(Mapping[str, float]):
    """One score of N clips: clip id -> value, sorted by clip id. `numbers`: float64 (N,)."""

    ids: Clips
    numbers: Array

    def of(self, clips: Clips) -> Array:
        """The values of `clips`, in that order."""
        return self.numbers[_rows(self.ids, clips)]

    def __getitem__(self, clip: str) -> float:
        row = bisect_left(self.ids, clip)
        if row == len(self.ids) or self.ids[row] != clip:
            raise KeyError(clip)
        return float(self.numbers[row])

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


ClipScores = Mapping[str, ClipValues]  # by metric


def read_features(place: SampleFolder) -> dict[str, Features]:
    """The feature sets on disk, by name."""
    paths = {name: place.features(name) for name in FEATURE_SETS}
    return {name: _features(path) for name, path in paths.items() if path.exists()}


def read_set_scores(place: TrialFolder) -> dict[str, SetScores]:
    """As the trial recorded them, by net; none in older studies."""
    path = place.set_scores
    try:
        return {net: SetScores(**found) for net, found in read_json(path).items()} if path.exists() else {}
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"{path}: not a file of set scores ({error}); remove it, the scores are then computed from the features"
        ) from error


def read_clip_scores(path: Path) -> ClipScores:
    """By metric, in the order of the file."""
    table = read_table(path, {"clip_id": str, "metric": str, "value": float})
    try:
        layout = _layout(tuple(table["clip_id"].tolist()), tuple(table["metric"].tolist()))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    numbers = table["value"].to_numpy(np.float64)
    return {metric: ClipValues(ids, numbers[rows]) for metric, (ids, rows) in layout.items()}


def read_curve(path: Path) -> pd.DataFrame:
    """Losses by optimiser step, CURVE_COLUMNS. Of a step that was repeated after a resume, the last run counts."""
    if not path.exists():
        return pd.DataFrame(columns=list(CURVE_COLUMNS))
    table = read_table(path, {"step": int, "loss": float, LOSS: float})[list(CURVE_COLUMNS)]
    return table.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)


def read_runs(place: TrialFolder) -> tuple[Run, ...]:
    """Each time the trial was started or resumed; none where nothing was recorded."""
    return tuple(read_json(place.provenance)["runs"]) if place.provenance.exists() else ()


def read_table(path: Path, types: Mapping[str, type]) -> pd.DataFrame:
    """A CSV file that has these columns. An empty number is NaN, an empty text stays empty."""
    if not path.exists():
        raise UserError(f"{path}: missing, although the study has results; restore it or run the study again")
    blank = {name: ["", "nan"] for name, type_ in types.items() if type_ is float}
    kinds = {
        name: object if type_ is str else type_ for name, type_ in types.items()
    }  # faster than pandas' string type
    try:
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=blank, low_memory=False)
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
    absent = [name for name in types if name not in table]
    if absent:
        raise UserError(f"{path}: has no column {absent[0]}")
    return table


def csv_text(columns: Sequence[str], lines: Iterable[Mapping[str, object]], digits: int = 9) -> str:
    """Lines by column name -> CSV; what a line lacks, or has as None, is empty.

    Floats have `digits` significant digits: fewer than differ between machines.
    """

    def text(value: object) -> object:
        return f"{value:.{digits}g}" if isinstance(value, float) else value

    table = [{name: text(value) for name, value in line.items()} for line in lines]
    return pd.DataFrame(table, columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\n")


def _features(path: Path) -> Features:
    try:
        with ZipFile(path) as archive:
            stored, fingerprint = archive.read("ids.npy"), features_fingerprint(archive)
        ids, ranking = _sorted_ids(stored)
    except (BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a feature file ({error})") from error
    return Features(ids, partial(_feature_values, path, ranking), fingerprint)


def _feature_values(path: Path, ranking: NDArray[np.intp]) -> Array:
    with np.load(path, allow_pickle=False) as arrays:
        values = np.asarray(arrays["features"], dtype=np.float64)
    if values.ndim != 2 or len(values) != len(ranking):
        raise UserError(f"{path}: {len(ranking)} ids for features of shape {values.shape}")
    return values if (ranking[:-1] < ranking[1:]).all() else values[ranking]


# Trials of a study have the same clips: their ids, and what follows from them, are kept in memory once.


@lru_cache(maxsize=256)
def _shared(ids: Clips) -> Clips:
    return ids


@lru_cache(maxsize=16)
def _sorted_ids(stored: bytes) -> tuple[Clips, NDArray[np.intp]]:
    """An array file of N clip ids -> the ids, sorted, and their rows in the file. ValueError: one occurs twice."""
    ids = np.lib.format.read_array(BytesIO(stored), allow_pickle=False).tolist()
    if twice := len(ids) - len(set(ids)):
        raise ValueError(f"{twice} of {len(ids)} ids occur twice")
    ranking = sorted(range(len(ids)), key=ids.__getitem__)
    return _shared(tuple(ids[row] for row in ranking)), np.array(ranking, dtype=np.intp)


@lru_cache(maxsize=256)
def _rows(ids: Clips, clips: Clips) -> NDArray[np.intp]:
    """The positions of `clips` in `ids`."""
    position = {clip: row for row, clip in enumerate(ids)}
    return np.array([position[clip] for clip in clips], dtype=np.intp)


@lru_cache(maxsize=256)
def _layout(clips: Clips, metrics: tuple[str, ...]) -> dict[str, tuple[Clips, NDArray[np.intp]]]:
    """Metric -> its clips, sorted, and their rows in the file. ValueError: a clip has a metric twice."""
    found: dict[str, dict[str, int]] = {}
    for row, (clip, metric) in enumerate(zip(clips, metrics, strict=True)):
        of_metric = found.setdefault(metric, {})
        if clip in of_metric:
            raise ValueError(f"{metric} of {clip} occurs twice")
        of_metric[clip] = row
    ids = {metric: _shared(tuple(sorted(rows))) for metric, rows in found.items()}
    return {
        metric: (ids[metric], np.array([rows[clip] for clip in ids[metric]], dtype=np.intp))
        for metric, rows in found.items()
    }
