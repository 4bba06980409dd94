"""A study folder -> one `Study` record: what was planned, what has finished, what is missing, and every score.

In: the folder that a sweep writes (`study.json`, `plan.json`, `trials/<trial_id>/...`, `reference/...`).
Out: `Study`, in which the rest of the analysis looks up trials, references and clips.
Run: `load_study(Path("studies/tiny"))`. Reads only. The record does not depend on the order in which the file system or
the plan lists the trials. Bad input raises UserError, one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.study.files import (
    Clips,
    ClipScores,
    ClipValues,
    Features,
    Run,
    read_clip_scores,
    read_curve,
    read_features,
    read_runs,
    read_set_scores,
    read_table,
)
from cinelora.core.cli import UserError
from cinelora.core.config import Method, TrialConfig
from cinelora.core.files import read_json
from cinelora.core.paths import SampleFolder, StudyFolder, TrialFolder
from cinelora.core.records import TrialResult, TrialSpec, reference_key
from cinelora.metrics.catalogue import FAMILIES, family
from cinelora.metrics.gaps import FORMULAS, gaps
from cinelora.metrics.primary import LOSS
from cinelora.metrics.set_metrics import SetScores
from sweeps.ledger import SHARE, Ledger, check_schema, chosen_scores
from sweeps.looks import Looks
from sweeps.plan import Plan
from sweeps.prune import cell
from sweeps.rates import key as rank_of

WAITING = "queued or running"
BASE, GRID, CONTROL = range(3)  # kinds of trials: the base, the adapters of the sweep, all others
TRIAL_COLUMNS = ("trial_id", "method", "arm", "rank", "alpha", "scaling", "targets", "learning_rate", "seed")
COLUMNS = (*TRIAL_COLUMNS, "clip_id", "metric", "value")  # of scores.csv


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
    def head(self) -> tuple[object, ...]:
        """TRIAL_COLUMNS, which all lines of this trial in scores.csv share."""
        return tuple(getattr(self.result, name) for name in TRIAL_COLUMNS)


@dataclass(frozen=True)
class Missing:
    """A planned trial without a result, or one that was pruned. `reason` is WAITING, or what was recorded."""

    spec: TrialSpec
    reason: str


@dataclass(frozen=True, eq=False)
class Reference:
    """The real held-out clips that trials are scored against."""

    features: Mapping[str, Features]
    scores: ClipScores
    shots: Mapping[str, str]  # clip id -> its source shot
    captions: Mapping[str, str]
    train: Mapping[str, Features] = field(default_factory=dict)  # of the training clips; not in older studies


@dataclass(frozen=True, eq=False)
class Study:
    """Trials, results and references, sorted by `sort_key`. Files are read again for frames and adapters only."""

    name: str
    folder: StudyFolder
    specs: tuple[TrialSpec, ...]  # the current plan without pruned trials and first stages, base first
    trials: tuple[Trial, ...]  # those of `specs` that have finished
    missing: tuple[Missing, ...]
    references: Mapping[str, Reference]  # by records.reference_key
    merged: Mapping[str, Study] = field(default_factory=dict)  # trial id -> its own study, where several were merged
    remarks: tuple[str, ...] = ()  # on merging and on first stages, for the notes of the rank table
    share: float = SHARE  # of the best gain that counts as enough
    chosen: tuple[str, ...] = ()  # the scores that decide, listed before the first result; (): the best there are
    pruned: tuple[Missing, ...] = ()  # all seeds of learning rates that were stopped early; they enter no mean
    clips: tuple[str, ...] = ()  # what became of the files of each data set, a line each
    looks: Looks | None = None  # of a study that goes on until it knows
    rates: Mapping[str, Any] | None = None  # of the search that its learning rates come from (`sweeps/rates.py:record`)

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
        """That of the first finished trial: of the base, where it has finished."""
        return self.reference_of(self.trials[0])

    def reference_of(self, trial: Trial) -> Reference:
        """The clips that this trial is scored against."""
        return self.references[reference_key(trial.spec)]

    def shots(self, clips: Clips) -> list[str]:
        """The source shot of each clip."""
        return [self.reference.shots[clip] for clip in clips]

    @property
    def reference_folder(self) -> SampleFolder:
        """The folder of `reference`."""
        first = self.trials[0].spec
        return self.home(first.trial_id).folder.reference(reference_key(first))

    @property
    def generated(self) -> bool:
        """Whether there are clips, and scores besides the losses."""
        return any(spec.config.sample.clips for spec in self.specs)

    @property
    def trained(self) -> bool:
        """Whether every base model has trained weights, not random ones."""
        return all(spec.config.model.trained for spec in self.specs)


class TrialSortKey(NamedTuple):
    """How trials are sorted everywhere."""

    kind: int  # BASE, GRID or CONTROL
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
    adapter, alone = (0, "", 0.0, ""), config.arm or standalone(config)
    if config.method.adapts:
        adapter = (lora.rank, lora.scaling.value, lora.effective_alpha, lora.targets.value)
    elif config.rank:
        adapter = (config.rank, "", 0.0, "")
    kind = CONTROL if alone else GRID if config.rank else BASE
    rate = config.train.learning_rate if config.method.trains else 0.0
    return TrialSortKey(kind, config.arm, *adapter, rate, config.seed, spec.trial_id)


def standalone(config: TrialConfig) -> str:
    """The name of a trial that is neither base nor adapter; "" for these. Of clips of unknown rank, their label."""
    if config.method is Method.clips:
        return config.label if config.clips_rank < 0 else ""
    return config.method.title if config.method in (Method.full, Method.frozen) else ""


def load_study(root: Path) -> Study:
    """The whole study. UserError: no study folder, a plan of which nothing has finished, mixed protocols."""
    folder = StudyFolder(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    header = check_schema(folder)
    plan = _plan(folder.plan)
    planned = tuple(sorted(plan.trials, key=sort_key))
    pruned, first_stages = _pruned(planned, folder), _first_stages(planned, folder)
    left_out = {each.spec.trial_id for each in pruned} | {each.spec.trial_id for each in first_stages}
    places = [(spec, folder.trial(spec.trial_id)) for spec in planned if spec.trial_id not in left_out]
    trials = tuple(_trial(spec, place) for spec, place in places if place.result.exists())
    missing = tuple(_missing(spec, place) for spec, place in places if not place.result.exists())
    if not trials:
        failed = sum(each.reason != WAITING for each in missing)
        raise UserError(f"{root}: none of {len(places)} planned trials has finished ({failed} failed)")
    _check_protocols([trial.result for trial in trials])
    keys = sorted({reference_key(trial.spec) for trial in trials})
    scored = {reference_key(trial.spec) for trial in trials if trial.spec.config.sample.clips}
    references = {key: _reference(folder.reference(key), key in scored) for key in keys}
    return Study(
        name=str(header.get("name", root.name)),
        folder=folder,
        specs=tuple(spec for spec, _ in places),
        trials=tuple(_against_real(trial, references[reference_key(trial.spec)]) for trial in trials),
        missing=missing,
        references=references,
        remarks=tuple(map(_first_stage_remark, first_stages)),
        share=float(header.get("share", SHARE)),
        chosen=chosen_scores(header),
        pruned=pruned,
        clips=plan.clips,
        looks=Ledger(folder).looks(),
        rates=_rates(Ledger(folder), planned),
    )


def _rates(ledger: Ledger, planned: tuple[TrialSpec, ...]) -> dict[str, Any] | None:
    """The record of the search; None if there is none, or if some trial of the plan has another rate by now."""
    record = ledger.rates()
    if record is None:
        return None
    chosen = {(each["targets"], each["rank"]): each["learning_rate"] for each in record["chosen"]}
    trained = [spec.config for spec in planned if spec.config.method.trains and not spec.config.arm]
    return record if all(chosen.get(rank_of(config)) == config.train.learning_rate for config in trained) else None


def _check_protocols(results: list[TrialResult]) -> None:
    """UserError where two trials computed a score of one name by different protocols."""
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


def _plan(path: Path) -> Plan:
    if not path.exists():
        raise UserError(f"{path}: missing; plan the study first")
    try:
        plan = Plan.from_json(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a plan this program reads ({type(error).__name__}: {error})") from error
    if not plan.trials:
        raise UserError(f"{path}: plans no trial")
    return plan


def _missing(spec: TrialSpec, place: TrialFolder) -> Missing:
    if not place.failed.exists():
        return Missing(spec, WAITING)
    failure = read_json(place.failed)
    lines = str(failure.get("error", "")).strip().splitlines() or ["no message"]
    return Missing(spec, f"failed ({failure.get('kind', 'unknown')}): {lines[-1].strip()}")


def _first_stages(specs: tuple[TrialSpec, ...], folder: StudyFolder) -> tuple[Trial, ...]:
    """The finished trials whose adapters lie frozen under other trials. They are rows of no table: their windows, and
    with them the protocol of their scores, may differ."""
    ids = {spec.config.first for spec in specs}
    places = [(spec, folder.trial(spec.trial_id)) for spec in specs if spec.trial_id in ids]
    return tuple(_trial(spec, place) for spec, place in places if place.result.exists())


def _first_stage_remark(trial: Trial) -> str:
    """Rank, targets and windows of a first stage, and what it gained on its own held-out windows."""
    config, result = trial.spec.config, trial.result
    stills = f", {config.train.stills:.0%} of them on stills" if config.train.stills else ""
    losses = trial.curve[LOSS]
    start = "" if losses.empty else f"from {losses.iloc[0]:.4f} "
    return (
        f"Every row outside the control arms builds on the frozen adapter of trial {result.trial_id} (rank "
        f"{result.rank}, {result.targets}, {result.steps} steps{stills}, windows of {config.data.frames} frames), "
        f"which lowered the held-out loss on its own windows {start}to {result.heldout_loss:.4f}."
    )


def _pruned(specs: tuple[TrialSpec, ...], folder: StudyFolder) -> tuple[Missing, ...]:
    """Trials that were stopped early, and those, finished or not, that differ from one of them in the seed alone."""
    places = {spec.trial_id: folder.trial(spec.trial_id) for spec in specs}
    records = {name: at.pruned for name, at in places.items() if at.pruned.exists() and not at.result.exists()}
    rates = {(cell(spec), spec.config.train.learning_rate) for spec in specs if spec.trial_id in records}
    whys = {name: str(read_json(record)["why"]) for name, record in records.items()}
    return tuple(
        Missing(spec, f"pruned, learning rate {rate:g}: {whys.get(spec.trial_id, 'another seed of it was pruned')}")
        for spec in specs
        if rates and (cell(spec), rate := spec.config.train.learning_rate) in rates
    )


def _trial(spec: TrialSpec, place: TrialFolder) -> Trial:
    try:
        result = TrialResult.from_json(read_json(place.result))
    except TypeError as error:
        raise UserError(f"{place.result}: not a result this program reads ({error})") from error
    if result.trial_id != spec.trial_id:
        raise UserError(f"{place.result}: belongs to trial {result.trial_id}; was the folder renamed?")
    scores, curve = read_clip_scores(place.clip_scores), partial(read_curve, place.train_csv)
    return Trial(spec, result, read_features(place), scores, curve, read_runs(place), read_set_scores(place))


def _against_real(trial: Trial, reference: Reference) -> Trial:
    """With the scores that compare a clip with the same real clip: of older studies too."""
    derived: dict[str, ClipValues] = {}
    both = trial.scores, reference.scores
    for of in (FAMILIES[key].derived for key in FORMULAS):
        names = [name for name in trial.scores if name in reference.scores and family(name) in of]
        if names:
            clips = tuple(sorted(set.intersection(*(set(scores[name].ids) for scores in both for name in names))))
            found = gaps(*({name: scores[name].of(clips) for name in names} for scores in both))
            derived |= {name: ClipValues(clips, values) for name, values in found.items()}
    return replace(trial, scores={**trial.scores, **derived})


def _reference(place: SampleFolder, scored: bool) -> Reference:
    clips = read_table(place.clips, {"clip_id": str, "shot": str, "caption": str})
    shots, captions = (dict(zip(clips["clip_id"], clips[column], strict=True)) for column in ("shot", "caption"))
    scores, train = read_clip_scores(place.clip_scores) if scored else {}, read_features(place.train)
    if lost := {clip for values in scores.values() for clip in values.ids} - shots.keys():
        raise UserError(f"{place.clips}: lacks {min(lost)} of {place.clip_scores.name}; restore it from a copy")
    return Reference(read_features(place), scores, shots, captions, train)
