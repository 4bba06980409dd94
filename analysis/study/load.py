"""A study folder -> one `Study` record: what was planned, what is done, what is missing, every clip score.

In: the folder a sweep writes (`study.json, plan.json, trials/<trial_id>/..., reference/...`).
Out: `Study`, with the long ScoreTable (a DataFrame, columns COLUMNS, one row per trial, clip and metric).
Run: `load_study(Path("studies/tiny"))`. Reads only; the same folder gives the same record whatever the
order in which the file system or the plan lists its trials. Bad input raises UserError, one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.study.files import (
    Clips,
    ClipScores,
    Features,
    Run,
    json_of,
    read_clip_scores,
    read_curve,
    read_features,
    read_runs,
    read_set_scores,
    read_table,
)
from cinelora.core.cli import UserError
from cinelora.core.config import Method
from cinelora.core.paths import SampleFolder, StudyFolder, TrialFolder
from cinelora.core.records import TrialResult, TrialSpec, reference_key
from cinelora.metrics.set_metrics import SetScores
from sweeps.ledger import SHARE, check_schema
from sweeps.plan import Plan
from sweeps.prune import cell

# ~ What a two-stage study stands on: the adapters that were trained first and lie frozen under its rows.
# ~
# ~ In: a plan, the finished trials of the first stage. Out: their ids; one line about each for the notes. They are
# ~ rows of
# ~ no table: their windows may be others, and with them the protocol of their scores.


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
TEXTS = ("trial_id", "method", "arm", "scaling", "targets", "metric")
WAITING = "queued or running"


@dataclass(frozen=True, eq=False)
class Trial:
    """One finished trial."""

    spec: TrialSpec
    result: TrialResult
    features: Mapping[str, Features]  # by feature set; absent where its weights were absent
    scores: ClipScores
    read_curve: Callable[[], pd.DataFrame]
    runs: tuple[Run, ...] = ()  # not in older studies
    set_scores: Mapping[str, SetScores] = field(default_factory=dict)  # by net, as recorded; not in older studies

    @cached_property
    def curve(self) -> pd.DataFrame:
        """One row per optimiser step, columns CURVE_COLUMNS."""
        return self.read_curve()

    @property
    def head(self) -> tuple[str, str, str, int, float, str, str, float, int]:
        """The columns of the ScoreTable that all rows of this trial share."""
        r = self.result
        return (r.trial_id, r.method, r.arm, r.rank, r.alpha, r.scaling, r.targets, r.learning_rate, r.seed)


@dataclass(frozen=True)
class Missing:
    """A planned trial without result, or one that was pruned. `reason` is WAITING, or what was recorded."""

    spec: TrialSpec
    reason: str


@dataclass(frozen=True, eq=False)
class Reference:
    """The true held-out clips."""

    features: Mapping[str, Features]
    scores: ClipScores
    shots: Mapping[str, str]  # clip id -> its source shot
    captions: Mapping[str, str]
    train: Mapping[str, Features] = field(default_factory=dict)  # of the training clips; not in older studies


@dataclass(frozen=True, eq=False)
class Study:
    """All that analysis needs, in the fixed order of `order`. `folder` is read again for mp4 frames only."""

    name: str
    folder: StudyFolder
    specs: tuple[TrialSpec, ...]  # the current plan without what was pruned, base first
    trials: tuple[Trial, ...]  # the finished ones of the plan
    missing: tuple[Missing, ...]
    references: Mapping[str, Reference]  # by records.reference_key
    merged: Mapping[str, Study] = field(
        default_factory=dict
    )  # trial id -> the study it is from, where they are several
    remarks: tuple[str, ...] = ()  # of merging, and of a first stage
    share: float = SHARE  # of the best gain that counts as enough
    pruned: tuple[Missing, ...] = ()  # learning rates that were ended early, with all their seeds: in no mean

    @cached_property
    def by_id(self) -> Mapping[str, Trial]:
        """Trial id -> finished trial."""
        return {trial.spec.trial_id: trial for trial in self.trials}

    def home(self, trial_id: str) -> Study:
        """The study that a trial was read from."""
        return self.merged.get(trial_id, self)

    def trial_folder(self, trial_id: str) -> TrialFolder:
        return self.home(trial_id).folder.trial(trial_id)

    @property
    def reference(self) -> Reference:
        """The true clips of the first finished trial: of the base, where it has finished."""
        return self.reference_of(self.trials[0])

    def reference_of(self, trial: Trial) -> Reference:
        """The clips that this trial is scored against."""
        return self.references[reference_key(trial.spec)]

    def shots(self, clips: Clips) -> list[str]:
        """The source shot of each clip."""
        return [self.reference.shots[clip] for clip in clips]

    @property
    def reference_folder(self) -> SampleFolder:
        first = self.trials[0].spec
        return self.home(first.trial_id).folder.reference(reference_key(first))

    @property
    def trained(self) -> bool:
        """Whether every trial stands on a base that was really trained."""
        return all(spec.config.model.trained for spec in self.specs)


class TrialSortKey(NamedTuple):
    """How trials are sorted everywhere: the base, the ranks of the sweep, what stands beside it; then what varies."""

    kind: int  # 0 base, 1 adapter, 2 full fine-tune or control arm
    arm: str
    rank: int  # 0 without adapter; then the next three are blank
    scaling: str
    alpha: float
    targets: str
    learning_rate: float
    seed: int
    trial_id: str


def sort_key(spec: TrialSpec) -> TrialSortKey:
    config, lora = spec.config, spec.config.lora
    adapter = (0, "", 0.0, "")
    if config.method is Method.lora:
        adapter = (lora.rank, lora.scaling.value, lora.effective_alpha, lora.targets.value)
    kind = 2 if config.arm or config.method is Method.full else int(config.method is Method.lora)
    rate = 0.0 if config.method is Method.base else config.train.learning_rate
    return TrialSortKey(kind, config.arm, *adapter, rate, config.seed, spec.trial_id)


def load_study(root: Path) -> Study:
    """The whole study. Refuses a folder that is none, a plan of which nothing is done, mixed protocols."""
    folder = StudyFolder(root)
    name = _study_name(folder)
    planned = _planned(folder.plan)
    pruned = _pruned(planned, folder)
    firsts = _first_stages(planned, folder)
    left = {each.spec.trial_id for each in pruned} | {each.spec.trial_id for each in firsts}
    places = [(spec, folder.trial(spec.trial_id)) for spec in planned if spec.trial_id not in left]
    trials = tuple(_trial(spec, place) for spec, place in places if place.result.exists())
    missing = tuple(_missing(spec, place) for spec, place in places if not place.result.exists())
    if not trials:
        failed = sum(each.reason != WAITING for each in missing)
        raise UserError(f"{root}: none of {len(places)} planned trials has finished ({failed} failed)")
    check_protocols([trial.result for trial in trials])
    places_of = {reference_key(trial.spec): folder.reference(reference_key(trial.spec)) for trial in trials}
    references = {key: _reference(place) for key, place in sorted(places_of.items())}
    specs = tuple(spec for spec, _ in places)
    remarks = tuple(sentence(trial) for trial in firsts)
    share = _share(folder)
    return Study(name, folder, specs, trials, missing, references, remarks=remarks, share=share, pruned=pruned)


def score_table(study: Study) -> pd.DataFrame:
    """Every clip score of every finished trial, long, columns COLUMNS; texts are categories."""
    blocks = [(trial.head, metric, values) for trial in study.trials for metric, values in sorted(trial.scores.items())]
    table = pd.DataFrame([(*head, "", metric, 0.0) for head, metric, _ in blocks], columns=list(COLUMNS))
    table = table.astype({name: "category" for name in TEXTS})
    table = table.loc[np.repeat(table.index, [len(values) for *_, values in blocks])].reset_index(drop=True)
    lists = {values.ids for *_, values in blocks}  # mostly one: trials have the same clips
    names = sorted({clip for ids in lists for clip in ids})
    codes = {ids: np.searchsorted(names, ids) for ids in lists}
    if blocks:
        clips = np.concatenate([codes[values.ids] for *_, values in blocks])
        table["clip_id"] = pd.Categorical.from_codes(clips, categories=pd.Index(names))
        table["value"] = np.concatenate([values.numbers for *_, values in blocks])
    return table


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
        specs = Plan.from_json(json_of(path)).trials
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a plan this program reads ({type(error).__name__}: {error})") from error
    if not specs:
        raise UserError(f"{path}: plans no trial")
    return tuple(sorted(specs, key=sort_key))


def _missing(spec: TrialSpec, place: TrialFolder) -> Missing:
    if not place.failed.exists():
        return Missing(spec, WAITING)
    failure = json_of(place.failed)
    lines = str(failure.get("error", "")).strip().splitlines() or ["no message"]
    return Missing(spec, f"failed ({failure.get('kind', 'unknown')}): {lines[-1].strip()}")


def _first_stages(specs: tuple[TrialSpec, ...], folder: StudyFolder) -> tuple[Trial, ...]:
    """The finished trials that others start from."""
    ids = first_stages(specs)
    places = [(spec, folder.trial(spec.trial_id)) for spec in specs if spec.trial_id in ids]
    return tuple(_trial(spec, place) for spec, place in places if place.result.exists())


def _pruned(specs: tuple[TrialSpec, ...], folder: StudyFolder) -> tuple[Missing, ...]:
    """Trials that were ended early, and those, finished or not, that differ from one of them in the seed alone."""
    places = {spec.trial_id: folder.trial(spec.trial_id) for spec in specs}
    records = {name: at.pruned for name, at in places.items() if at.pruned.exists() and not at.result.exists()}
    rates = {(cell(spec), spec.config.train.learning_rate) for spec in specs if spec.trial_id in records}
    whys = {name: str(json_of(record)["why"]) for name, record in records.items()}
    return tuple(
        Missing(spec, f"pruned, learning rate {rate:g}: {whys.get(spec.trial_id, 'another seed of it was')}")
        for spec in specs
        if rates and (cell(spec), rate := spec.config.train.learning_rate) in rates
    )


def _trial(spec: TrialSpec, place: TrialFolder) -> Trial:
    try:
        result = TrialResult.from_json(json_of(place.result))
    except TypeError as error:
        raise UserError(f"{place.result}: not a result this program reads ({error})") from error
    if result.trial_id != spec.trial_id:
        raise UserError(f"{place.result}: is of trial {result.trial_id}; was the folder renamed?")
    scores, curve = read_clip_scores(place.clip_scores), partial(read_curve, place.train_csv)
    return Trial(spec, result, read_features(place), scores, curve, read_runs(place), read_set_scores(place))


def _reference(place: SampleFolder) -> Reference:
    clips = read_table(place.clips, {"clip_id": str, "shot": str, "caption": str})
    shots, captions = (dict(zip(clips["clip_id"], clips[column], strict=True)) for column in ("shot", "caption"))
    train = read_features(place.train)
    return Reference(read_features(place), read_clip_scores(place.clip_scores), shots, captions, train)


def _share(folder: StudyFolder) -> float:
    return float(check_schema(folder).get("share", SHARE))
