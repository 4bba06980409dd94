"""What a large rank is worth cut down: adapters cut to smaller ranks by SVD and evaluated, without any training.

    python -m cinelora.export.truncate STUDY                held-out losses: one pass over the trials' own held-out
    windows
    python -m cinelora.export.truncate STUDY --scores       clips, features and scores as well

In: a study with finished adapters, and its encodings in the cache. Of each seed and series the largest rank is cut to
every smaller rank of the grid. Out: STUDY/truncation/trials/<trial>-r<rank>/, laid out as a trial; `result.json` last,
and what is done is not done again. One process: the base must fit its device whole, whatever the trials' ZeRO stage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cinelora.core.cli import UserError
from cinelora.core.config import LoraConfig, Method, Scaling, ScoreConfig, TrackingConfig, ZeroConfig
from cinelora.core.files import content_hash, read_json, write_json
from cinelora.core.paths import ADAPTER_FILE, StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, TruncationResult, reference_key, to_dict
from cinelora.data.encodings import WINDOWS_FILE, missing
from cinelora.features.results import ClipScore, Scored, drop_parts
from cinelora.training.checkpoint import Stopped, StopSign
from cinelora.training.heldout import window_losses
from cinelora.training.loop import Report
from cinelora.trial.job import Job
from cinelora.trial.resident import ResidentModel, load_resident_model, resident_key
from cinelora.trial.run import HELDOUT_LOSS
from cinelora.trial.scoring import generate_and_score, memorised, write_scored
from cinelora.wan import lora, low_rank
from cinelora.wan.checkpoint import model_fingerprint, model_folder
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import TORCH_DTYPE, write_weight_norms

# ~ Which adapters of a study are cut to which ranks, and whether that is done. Standard library only.
# ~
# ~ In: a study folder. Out: `Source` records, one per seed and series of the grid, and what they are cut to.


@dataclass(frozen=True)
class Source:
    """An adapter to cut: of the largest rank that has finished for its seed and series."""

    spec: TrialSpec
    result: TrialResult
    ranks: tuple[int, ...]  # its own first, as a check, then the smaller ones of the grid, downwards


@dataclass(frozen=True)
class TruncatedAdapter:
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
        found = TruncationResult.from_json(read_json(path))
        return found.adapter_sha256 == self.source.result.adapter_sha256 and (found.scored or not self.scored)


def truncated_adapters(study: StudyFolder, scored: bool) -> list[TruncatedAdapter]:
    """Of every source at all its ranks. The whole adapter has been scored by its trial. UserError: nothing to cut."""
    return [
        TruncatedAdapter(source, rank, scored and rank < source.result.rank)
        for source in sources(study)
        for rank in source.ranks
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


AGREES = 1e-3  # of the recorded loss: how closely the whole adapter must give it again, in bfloat16 too
LINE_SECONDS = 10.0  # between lines within one cut
Factors = dict[str, tuple[low_rank.Array, low_rank.Array]]  # layer -> A, B with the update scale in them


def truncate_study(study: StudyFolder, cache: Path, scored: bool = False) -> list[TruncationResult]:
    """Evaluate all cuts that are not done and return their results.

    UserError: nothing to cut, encodings or clips that are not here, another base model than the trials', or a whole
    adapter that does not give the loss its trial recorded.
    """
    todo = [each for each in truncated_adapters(study, scored) if not each.done(study)]
    for job in {each.job(study, cache).encodings: each.job(study, cache) for each in todo}.values():
        check(job, scored)
    progress, results = Progress(todo), []
    base: ResidentModel | None = None
    encodings: dict[Path, Encodings] = {}
    for each in todo:
        job = each.job(study, cache)
        if base is None or base.key != resident_key(job.spec):
            base = None  # two would not fit
            base = load_resident_model(job if scored else _without_nets(job))
            write_weight_norms(study.weight_norms(job.spec.fingerprints["model"]), base.transformer)
        read = encodings.setdefault(job.encodings, Encodings(job.encodings))
        results.append(evaluate(each, study, job, base, read, progress.report))
        progress.done(f"{HELDOUT_LOSS} {results[-1].heldout_loss:.6f}")
    return results


def _without_nets(job: Job) -> Job:
    return replace(job, spec=replace(job.spec, config=replace(job.spec.config, score=ScoreConfig())))


def check(job: Job, scored: bool) -> None:
    """That model, encodings and true clips are those of the trial. Raises UserError."""
    config, marks = job.spec.config, job.spec.fingerprints
    folder = model_folder(config.model, job.cache_dir)
    if model_fingerprint(folder, config.model.revision) != marks["model"]:
        raise UserError(f"{folder}: is not the base model of the trials ({marks['model'][:12]}); put that one back")
    if not (job.encodings / WINDOWS_FILE).exists() or any(missing(job.encodings, job.windows(), set())):
        raise UserError(
            f"{job.encodings}: does not hold all encodings of the study; give --cache the one that its sweep filled"
        )
    if scored and not Path(config.data.path).is_dir():
        raise UserError(f"data.path={config.data.path}: no such folder; --scores compares with the true clips in it")


def evaluate(
    each: TruncatedAdapter, study: StudyFolder, job: Job, base: ResidentModel, encodings: Encodings, report: Report
) -> TruncationResult:
    """Evaluate one cut on a resident base and write it; the base is left as it was."""
    recorded = each.source.result
    adapter = study.trial(recorded.trial_id).adapter / ADAPTER_FILE
    factors, kept = truncate_adapter(adapter, recorded.scale, each.rank)
    if first := job.spec.config.first:
        lora.stack(base.transformer, study.trial(first).adapter)
    parameters = lora.attach(base.transformer, job.spec.config.lora, seed=0)
    try:
        fill(parameters, factors, adapter)
        for _, parameter in parameters:  # as the engine computed with them
            parameter.data = parameter.data.to(TORCH_DTYPE[job.spec.config.model.dtype])
        losses = window_losses(base.transformer, job.spec.config, encodings, job.windows().heldout)
        loss = float(losses.mean())
        _check_whole(each, loss)
        scored = _scored(job, base, parameters, encodings, report) if each.scored else Scored()
        scored.rows += memorised(study.reference(reference_key(job.spec)), scored)
    finally:
        lora.detach(base.transformer)
    result = TruncationResult(
        recorded.trial_id, recorded.adapter_sha256, recorded.rank, each.rank, kept, loss, each.scored
    )
    _write(job, scored, losses, result)
    return result


def truncate_adapter(path: Path, scale: float, rank: int) -> tuple[Factors, float]:
    """The closest update of `rank` to `scale` B A in every layer, and the share of their squared norm it keeps."""
    if not path.exists():
        raise UserError(f"{path}: missing; the adapter of a finished trial is what is cut")
    factors, kept, whole = {}, 0.0, 0.0
    for layer, a, b in low_rank.read_factors(path):
        squares = np.square(low_rank.singular_values(a, scale * b))
        kept, whole = kept + float(squares[:rank].sum()), whole + float(squares.sum())
        factors[layer] = low_rank.cut(a, scale * b, rank)
    return factors, kept / whole if whole else 1.0


def fill(parameters: lora.NamedParameters, factors: Factors, path: Path) -> None:
    """Put factors into an attached adapter. Raises UserError where its layers are others than those of the file."""
    wanted = {name.partition(".lora_")[0] for name, _ in parameters}
    if other := sorted(wanted ^ set(factors)):
        raise UserError(f"{path}: {other[0]} is in the file or in the model's adapter, not in both")
    for name, parameter in parameters:
        layer, _, which = name.partition(".lora_")
        values = factors[layer][0 if which.startswith("A") else 1]
        parameter.data.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))


def _check_whole(each: TruncatedAdapter, loss: float) -> None:
    recorded = each.source.result.heldout_loss
    if each.whole and recorded is not None and abs(loss - recorded) > AGREES * abs(recorded):
        raise UserError(
            f"trial {each.source.spec.trial_id}: its adapter gives {HELDOUT_LOSS} {loss:.6f} here and {recorded:.6f} "
            "in its result; use the versions and the kind of device of the study"
        )


def _scored(
    job: Job, base: ResidentModel, parameters: lora.NamedParameters, encodings: Encodings, report: Report
) -> Scored:
    digest, plan = lora.adapter_hash({name: parameter.data for name, parameter in parameters}), job.windows()
    stop = StopSign(job.study.stop)
    mine, _, _ = generate_and_score(job, base, base.transformer, plan, encodings, digest, report, stop)
    return mine.merge([mine], [window.window_id for window in plan.heldout])


def _write(job: Job, scored: Scored, losses: NDArray[np.float64], result: TruncationResult) -> None:
    folder = job.study.trial(job.spec.trial_id)
    names = [window.window_id for window in job.windows().heldout]
    scored.rows += [ClipScore(name, HELDOUT_LOSS, loss) for name, loss in zip(names, losses, strict=True)]
    write_scored(folder, scored)
    write_json(folder.result, result.to_json())
    drop_parts(folder)


class Progress:
    """A line per cut with what it gave and the time left, and one every LINE_SECONDS within a long one."""

    def __init__(self, todo: Sequence[TruncatedAdapter]) -> None:
        self.left, self.total = list(todo), len(todo)
        self.seconds: dict[bool, list[float]] = {}  # by whether clips are generated
        self.started = self.told = time.monotonic()

    def report(self, stage: str, done: int, total: int, loss: float | None) -> None:
        if time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            print(f"  {self.left[0].name}: {stage} {done}/{total}", flush=True)

    def done(self, found: str) -> None:
        now, each = time.monotonic(), self.left.pop(0)
        self.seconds.setdefault(each.scored, []).append(now - self.started)
        self.started = self.told = now
        place = f"{self.total - len(self.left)} of {self.total}"
        print(f"{place}  {each.name}: {found}; {self._time_left()}", flush=True)

    def _time_left(self) -> str:
        if any(each.scored not in self.seconds for each in self.left):
            return "time left unknown yet"
        seconds = sum(float(np.mean(self.seconds[each.scored])) for each in self.left)
        return f"about {seconds // 60:.0f}:{seconds % 60:02.0f} left"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m cinelora.export.truncate",
        description="Cut the largest ranks of a study by SVD and evaluate them.",
    )
    parser.add_argument("study", type=Path, help="the study folder")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where its encodings are (default: .cache)")
    parser.add_argument("--scores", action="store_true", help="generate and score the held-out clips too")
    options = parser.parse_args(arguments)
    study = StudyFolder(options.study.resolve())
    try:
        found = truncate_study(study, options.cache, options.scores)
    except UserError as error:
        print(f"cinelora: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Stopped):
        print("cinelora: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"{len(found)} cuts evaluated: {study.truncation.root}; shown by python -m analysis.report {options.study}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
