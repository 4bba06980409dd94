"""A study folder -> one `Study` record: what was planned, what is done, what is missing, every clip score.

In: the folder a sweep writes (`study.json, plan.json, trials/<trial_id>/..., reference/...`).
Out: `Study`, with the long ScoreTable (a DataFrame, columns COLUMNS, one row per trial, clip and metric).
Run: `load_study(Path("studies/tiny"))`. Reads only; the same folder gives the same record whatever the
order in which the file system or the plan lists its trials. Bad input raises UserError, one line.
N clips, D features.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cinelora.config import Method
from cinelora.errors import UserError
from cinelora.layout import SampleFolder, StudyFolder, TrialFolder
from cinelora.records import TrialResult, TrialSpec, read_json, reference_key
from cinelora.weights import WEIGHTS
from sweeps.ledger import check_schema
from sweeps.plan import Plan

COLUMNS = (
    "trial_id",
    "method",
    "arm",
    "rank",
    "alpha",
    "scaling",
    "targets",
    "learning_rate",
    "seed",
    "clip_id",
    "metric",
    "value",
)
WAITING = "queued or running"
FEATURE_SETS = tuple(name for name, net in WEIGHTS.items() if net.kind != "pair")
CURVE_COLUMNS = ("step", "loss", "heldout_loss")
ClipScores = dict[str, dict[str, float]]  # metric -> clip id -> value


@dataclass(frozen=True, eq=False)
class Features:
    """Features of N clips, sorted by clip id; `values` float64 (N, D)."""

    ids: tuple[str, ...]
    values: NDArray[np.float64]

    def of(self, clips: tuple[str, ...]) -> NDArray[np.float64]:
        """The rows of `clips` in that order, (len(clips), D)."""
        position = {clip: index for index, clip in enumerate(self.ids)}
        return self.values[[position[clip] for clip in clips]]


@dataclass(frozen=True, eq=False)
class Trial:
    """One finished trial. `curve` has one row per optimiser step, columns CURVE_COLUMNS."""

    spec: TrialSpec
    result: TrialResult
    features: Mapping[str, Features]  # by feature set; absent where its weights were absent
    scores: ClipScores
    curve: pd.DataFrame

    @property
    def head(self) -> tuple[str, str, str, int, float, str, str, float, int]:
        """The columns of the ScoreTable that all rows of this trial share."""
        r = self.result
        return (r.trial_id, r.method, r.arm, r.rank, r.alpha, r.scaling, r.targets, r.learning_rate, r.seed)


@dataclass(frozen=True)
class Missing:
    """A planned trial without result. `reason` is WAITING, or the recorded failure."""

    spec: TrialSpec
    reason: str


@dataclass(frozen=True, eq=False)
class Reference:
    """The true held-out clips."""

    features: Mapping[str, Features]
    scores: ClipScores
    shots: Mapping[str, str]  # clip id -> its source shot
    captions: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Study:
    """All that analysis needs, in the fixed order of `order`. `folder` is read again for mp4 frames only."""

    name: str
    folder: StudyFolder
    specs: tuple[TrialSpec, ...]  # the current plan, base first
    trials: tuple[Trial, ...]  # the finished ones of the plan
    missing: tuple[Missing, ...]
    references: Mapping[str, Reference]  # by records.reference_key

    @property
    def reference(self) -> Reference:
        """The true clips of the first finished trial: of the base, where it has finished."""
        return self.references[reference_key(self.trials[0].spec)]

    @property
    def reference_folder(self) -> SampleFolder:
        return self.folder.reference(reference_key(self.trials[0].spec))

    @property
    def trained(self) -> bool:
        """Whether every trial stands on a base that was really trained."""
        return all(spec.config.model.trained for spec in self.specs)


class Order(NamedTuple):
    """How trials are sorted everywhere: the base, the ranks of the sweep, what stands beside it; then what varies."""

    beside: int  # 0 base, 1 adapter, 2 full fine-tune or control arm
    arm: str
    rank: int  # 0 without adapter; then the next three are blank
    scaling: str
    alpha: float
    targets: str
    learning_rate: float
    seed: int
    trial_id: str


def order(spec: TrialSpec) -> Order:
    config, lora = spec.config, spec.config.lora
    adapter = (0, "", 0.0, "")
    if config.method is Method.lora:
        adapter = (lora.rank, lora.scaling.value, lora.effective_alpha, lora.targets.value)
    beside = 2 if config.arm or config.method is Method.full else int(config.method is Method.lora)
    rate = 0.0 if config.method is Method.base else config.train.learning_rate
    return Order(beside, config.arm, *adapter, rate, config.seed, spec.trial_id)


def load_study(root: Path) -> Study:
    """The whole study. Refuses a folder that is none, a plan of which nothing is done, mixed protocols."""
    folder = StudyFolder(root)
    name = _study_name(folder)
    places = [(spec, folder.trial(spec.trial_id)) for spec in _planned(folder.plan)]
    trials = tuple(_trial(spec, place) for spec, place in places if place.result.exists())
    missing = tuple(_missing(spec, place) for spec, place in places if not place.result.exists())
    if not trials:
        failed = sum(each.reason != WAITING for each in missing)
        raise UserError(f"{root}: none of {len(places)} planned trials has finished ({failed} failed)")
    check_protocols([trial.result for trial in trials])
    places_of = {reference_key(trial.spec): folder.reference(reference_key(trial.spec)) for trial in trials}
    references = {key: _reference(place) for key, place in sorted(places_of.items())}
    return Study(name, folder, tuple(spec for spec, _ in places), trials, missing, references)


def score_table(study: Study) -> pd.DataFrame:
    """Every clip score of every finished trial, long, columns COLUMNS."""
    rows: list[tuple[Any, ...]] = []
    for trial in study.trials:
        for metric, values in sorted(trial.scores.items()):
            rows += [(*trial.head, clip, metric, value) for clip, value in sorted(values.items())]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def check_protocols(results: list[TrialResult]) -> None:
    """Raise UserError where two trials computed a score of one name in different ways."""
    first: dict[str, TrialResult] = {}
    for result in results:
        for score, protocol in sorted(result.protocol.items()):
            other = first.setdefault(score, result)
            mine, theirs = protocol, other.protocol[score]
            keys = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
            if keys:
                raise UserError(
                    f"protocol of {score} differs: {keys[0]} is {theirs.get(keys[0])} "
                    f"in trial {other.trial_id} and {mine.get(keys[0])} "
                    f"in trial {result.trial_id}; report them as two studies"
                )


def _study_name(folder: StudyFolder) -> str:
    if not folder.root.is_dir():
        raise UserError(f"{folder.root}: no such folder")
    return str(check_schema(folder).get("name", folder.root.name))


def _planned(path: Path) -> tuple[TrialSpec, ...]:
    if not path.exists():
        raise UserError(f"{path}: missing; plan the study first")
    try:
        specs = Plan.from_json(_json(path)).trials
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a plan this program reads ({type(error).__name__}: {error})") from error
    if not specs:
        raise UserError(f"{path}: plans no trial")
    return tuple(sorted(specs, key=order))


def _missing(spec: TrialSpec, place: TrialFolder) -> Missing:
    if not place.failed.exists():
        return Missing(spec, WAITING)
    failure = _json(place.failed)
    lines = str(failure.get("error", "")).strip().splitlines() or ["no message"]
    return Missing(spec, f"failed ({failure.get('kind', 'unknown')}): {lines[-1].strip()}")


def _trial(spec: TrialSpec, place: TrialFolder) -> Trial:
    try:
        result = TrialResult.from_json(_json(place.result))
    except TypeError as error:
        raise UserError(f"{place.result}: not a result this program reads ({error})") from error
    if result.trial_id != spec.trial_id:
        raise UserError(f"{place.result}: is of trial {result.trial_id}; was the folder renamed?")
    return Trial(spec, result, _features(place), _clip_scores(place.clip_scores), _curve(place.train_csv))


def _features(place: SampleFolder) -> dict[str, Features]:
    return {name: _npz(place.features(name)) for name in FEATURE_SETS if place.features(name).exists()}


def _npz(path: Path) -> Features:
    with np.load(path, allow_pickle=False) as arrays:
        ids = [str(clip) for clip in arrays["ids"]]
        values = np.asarray(arrays["features"], dtype=np.float64)
    if values.ndim != 2 or len(values) != len(ids) or len(set(ids)) != len(ids):
        raise UserError(f"{path}: {len(ids)} ids ({len(set(ids))} different) for features of shape {values.shape}")
    ranking = sorted(range(len(ids)), key=ids.__getitem__)
    return Features(tuple(ids[index] for index in ranking), values[ranking])


def _clip_scores(path: Path) -> ClipScores:
    scores: ClipScores = {}
    for line in _csv(path, ("clip_id", "metric", "value")):
        values = scores.setdefault(line["metric"], {})
        if line["clip_id"] in values:
            raise UserError(f"{path}: {line['metric']} of {line['clip_id']} occurs twice")
        values[line["clip_id"]] = _number(path, line["value"])
    return scores


def _reference(place: SampleFolder) -> Reference:
    lines = _csv(place.clips, ("clip_id", "shot", "caption"))
    shots, captions = ({line["clip_id"]: line[column] for line in lines} for column in ("shot", "caption"))
    return Reference(_features(place), _clip_scores(place.clip_scores), shots, captions)


def _curve(path: Path) -> pd.DataFrame:
    """Losses by optimiser step; a step repeated after a resume counts once, as it was run last."""
    steps: dict[int, tuple[int, float, float]] = {}
    for line in _csv(path, CURVE_COLUMNS) if path.exists() else []:
        step = int(_number(path, line["step"]))
        steps[step] = (step, _number(path, line["loss"]), _number(path, line["heldout_loss"]))
    return pd.DataFrame([steps[step] for step in sorted(steps)], columns=list(CURVE_COLUMNS))


def _csv(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.exists():
        raise UserError(f"{path}: missing, although the study has results; restore it or run the study again")
    with open(path, newline="") as stream:
        reader = csv.DictReader(stream)
        absent = [name for name in needed if name not in (reader.fieldnames or ())]
        if absent:
            raise UserError(f"{path}: has no column {absent[0]}")
        return list(reader)


def _number(path: Path, text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError as error:
        raise UserError(f"{path}: {text!r} is not a number") from error


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
