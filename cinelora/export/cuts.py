"""Which adapters of a study are cut to which ranks, and whether that is done. Standard library only.

In: a study folder. Out: `Source` records, one per seed and series of the grid, and the `Cut`s they give.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.config import LoraConfig, Method, Scaling, ZeroConfig
from cinelora.core.paths import StudyFolder
from cinelora.core.records import CutResult, TrialResult, TrialSpec, content_hash, read_json, to_dict
from cinelora.core.studyconfig import TrackingConfig
from cinelora.trial.job import Job


@dataclass(frozen=True)
class Source:
    """An adapter to cut: of the largest rank that has finished for its seed and series."""

    spec: TrialSpec
    result: TrialResult
    ranks: tuple[int, ...]  # its own first, as a check, then the smaller ones of the grid, downwards


@dataclass(frozen=True)
class Cut:
    """One adapter at one rank, and whether its clips are generated and scored."""

    source: Source
    rank: int
    scored: bool

    @property
    def name(self) -> str:
        how = "whole" if self.whole else f"cut to {self.rank}"
        return f"rank {self.source.result.rank} seed {self.source.spec.config.seed} {how}"

    @property
    def whole(self) -> bool:
        return self.rank == self.source.result.rank

    def job(self, study: StudyFolder, cache: Path) -> Job:
        """As if it were a trial of its own, whose factors hold the update scale of the adapter that was cut."""
        config = self.source.spec.config
        changed = replace(
            config,
            lora=LoraConfig(rank=self.rank, scaling=Scaling.alpha_equals_rank, targets=config.lora.targets),
            zero=ZeroConfig(stage=0),
        )
        spec = replace(self.source.spec, trial_id=f"{self.source.spec.trial_id}-r{self.rank}", config=changed)
        return Job(spec, study.truncation, study.root.name, cache, TrackingConfig())

    def done(self, study: StudyFolder) -> bool:
        """Whether its result is there, of this adapter and with the scores that are asked for."""
        path = study.truncation.trial(f"{self.source.spec.trial_id}-r{self.rank}").result
        if not path.exists():
            return False
        found = CutResult.from_json(read_json(path))
        return found.adapter_sha256 == self.source.result.adapter_sha256 and (found.scored or not self.scored)


def all_cuts(study: StudyFolder, scored: bool) -> list[Cut]:
    """Of every source at all its ranks. The whole adapter has been scored by its trial. UserError: nothing to cut."""
    return [
        Cut(source, rank, scored and rank < source.result.rank) for source in sources(study) for rank in source.ranks
    ]


def sources(study: StudyFolder) -> list[Source]:
    """One per seed and series in which a rank above another has finished. UserError: there is none, or no study."""
    if not study.plan.exists():
        raise UserError(f"{study.plan}: missing; give the folder of a study")
    specs = [TrialSpec.from_json(item) for item in read_json(study.plan)["trials"]]
    found = []
    for members in _series([spec for spec in specs if spec.config.method is Method.lora and not spec.config.arm]):
        finished = [spec for spec in members if study.trial(spec.trial_id).result.exists()]
        if not finished:
            continue
        largest = max(finished, key=_rank)
        smaller = sorted({_rank(spec) for spec in members if _rank(spec) < _rank(largest)}, reverse=True)
        if smaller:
            result = TrialResult.from_json(read_json(study.trial(largest.trial_id).result))
            found.append(Source(largest, result, (_rank(largest), *smaller)))
    if not found:
        raise UserError(f"{study.root}: no finished adapter has a smaller rank beside it; finish a larger rank first")
    return found


def _rank(spec: TrialSpec) -> int:
    return spec.config.lora.rank


def _series(specs: Iterable[TrialSpec]) -> list[list[TrialSpec]]:
    """Trials that differ in their rank alone; a learning rate tuned to the rank belongs to it, as in the rank table."""
    wanted = list(specs)
    rates: dict[tuple[str, int], set[float]] = {}
    for spec in wanted:
        rates.setdefault((_mark(spec, tuned=True), _rank(spec)), set()).add(spec.config.train.learning_rate)
    tuned = all(len(found) == 1 for found in rates.values())
    series: dict[str, list[TrialSpec]] = {}
    for spec in wanted:
        series.setdefault(_mark(spec, tuned), []).append(spec)
    return list(series.values())


def _mark(spec: TrialSpec, tuned: bool) -> str:
    """The same for trials that may differ in their rank, and where it is `tuned` in their learning rate."""
    settings = to_dict(spec.config, identity_only=True)
    del settings["lora"]["rank"]
    if spec.config.lora.scaling is Scaling.alpha_equals_rank:
        del settings["lora"]["alpha"]
    if tuned:
        del settings["train"]["learning_rate"]
    return content_hash([settings, spec.fingerprints])
