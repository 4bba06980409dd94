"""Truncate the adapters of a study to smaller ranks by SVD and evaluate them, without any training.

    python -m cinelora.export.truncate STUDY                held-out losses: one pass over the trials' own windows
    python -m cinelora.export.truncate STUDY --scores       clips, features and scores as well

In: a study with finished adapters, and its encodings in the cache. The largest finished rank of each seed and series
(trials that differ in rank alone) is truncated to every smaller rank of the grid. Out: STUDY/truncation/trials/
<trial>-r<rank>/, laid out as a trial; `result.json` last. Finished ones are skipped. Runs in one process without ZeRO,
so the base must fit its device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cinelora.core.cli import Parser, Progress, UserError, exit_status
from cinelora.core.config import LoraConfig, Method, Scaling, TrackingConfig, ZeroConfig
from cinelora.core.files import check_writable, content_hash, read_json, write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, TruncationResult, reference_key, resident_key, to_dict
from cinelora.data.encodings import WINDOWS_FILE, missing
from cinelora.features.results import Scored, drop_parts, write_scored
from cinelora.training.checkpoint import Stopped, StopSign
from cinelora.training.heldout import window_losses
from cinelora.training.loop import Report
from cinelora.trial.job import Job, for_one_process
from cinelora.trial.resident import ResidentModel, load_resident_model
from cinelora.trial.run import HELDOUT_LOSS
from cinelora.trial.scoring import generate_and_score, memorised
from cinelora.wan import lora, low_rank
from cinelora.wan.attention import use_deterministic
from cinelora.wan.checkpoint import base_folder
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import TORCH_DTYPE, write_weight_norms

TOLERANCE = 1e-3  # of the recorded loss: how closely the uncut adapter must reproduce it, in bfloat16 too
Factors = dict[str, tuple[low_rank.Array, low_rank.Array]]  # layer -> A, B with the update scale in them


@dataclass(frozen=True)
class TruncatedAdapter:
    """The adapter of a finished trial at one rank. At its own rank nothing is cut, which checks the evaluation."""

    spec: TrialSpec  # of the trial
    result: TrialResult
    rank: int
    scored: bool  # whether its clips are generated and scored

    def job(self, study: StudyFolder, cache: Path) -> Job:
        """As a trial of its own, with an update scale of 1: that of the trial is multiplied into the factors."""
        lora_config = LoraConfig(self.rank, scaling=Scaling.alpha_equals_rank, targets=self.spec.config.lora.targets)
        config = replace(self.spec.config, lora=lora_config, zero=ZeroConfig(stage=0))
        spec = replace(self.spec, trial_id=f"{self.spec.trial_id}-r{self.rank}", config=config)
        return Job(for_one_process(spec), study.truncation, study.root.name, cache, TrackingConfig())

    def done(self, study: StudyFolder) -> bool:
        """Whether it has a result, of this adapter and with scores where they are wanted."""
        path = study.truncation.trial(f"{self.spec.trial_id}-r{self.rank}").result
        if not path.exists():
            return False
        found = TruncationResult.from_json(read_json(path))
        return found.adapter_sha256 == self.result.adapter_sha256 and (found.scored or not self.scored)


def truncated_adapters(study: StudyFolder, scored: bool) -> list[TruncatedAdapter]:
    """Of each seed and series the adapter of the largest finished rank: uncut, then at all smaller ranks, downwards.

    The uncut one was scored by its trial. UserError: no study, or no finished adapter with a smaller rank.
    """
    if not study.plan.exists():
        raise UserError(f"{study.plan}: missing; give the folder of a study")
    specs = [TrialSpec.from_json(item) for item in read_json(study.plan)["trials"]]
    adapters: list[TruncatedAdapter] = []
    for members in _series([spec for spec in specs if spec.config.method is Method.lora and not spec.config.arm]):
        finished = [spec for spec in members if study.trial(spec.trial_id).result.exists()]
        if not finished:
            continue
        largest = max(finished, key=_rank)
        ranks = sorted({_rank(spec) for spec in members if _rank(spec) <= _rank(largest)}, reverse=True)
        if len(ranks) > 1:
            result = TrialResult.from_json(read_json(study.trial(largest.trial_id).result))
            adapters += [TruncatedAdapter(largest, result, rank, scored and rank < ranks[0]) for rank in ranks]
    if not adapters:
        raise UserError(f"{study.root}: no finished adapter has a smaller rank in its grid; finish a larger rank first")
    return adapters


def _rank(spec: TrialSpec) -> int:
    return spec.config.lora.rank


def _series(specs: Sequence[TrialSpec]) -> Iterable[list[TrialSpec]]:
    """Trials that differ in their rank alone; a rate tuned per rank belongs to the rank, as in the rank table."""
    rates, series = defaultdict(set), defaultdict(list)
    for spec in specs:
        rates[_series_key(spec, tuned=True), _rank(spec)].add(spec.config.train.learning_rate)
    tuned = all(len(found) == 1 for found in rates.values())
    for spec in specs:
        series[_series_key(spec, tuned)].append(spec)
    return series.values()


def _series_key(spec: TrialSpec, tuned: bool) -> str:
    """Equal for trials that differ at most in their rank and, where it is `tuned`, in their learning rate."""
    settings = to_dict(spec.config, identity_only=True)
    del settings["lora"]["rank"]
    if spec.config.lora.scaling is Scaling.alpha_equals_rank:
        del settings["lora"]["alpha"]
    if tuned:
        del settings["train"]["learning_rate"]
    return content_hash([settings, spec.fingerprints])


def truncate_study(study: StudyFolder, cache: Path, scored: bool = False) -> list[TruncationResult]:
    """Evaluate all truncated adapters that have no result yet and return their results.

    UserError: nothing to truncate, encodings or clips missing, another base model than that of the trials, or an uncut
    adapter that does not reproduce the loss of its trial.
    """
    todo = [(each, each.job(study, cache)) for each in truncated_adapters(study, scored) if not each.done(study)]
    encodings = {job.encodings: Encodings(job.encodings) for _, job in todo}
    for job in {job.encodings: job for _, job in todo}.values():
        check(job, scored)
    adapters_done, batches_done, results = Progress("adapters"), Progress("batches"), []
    resident: ResidentModel | None = None
    for index, (each, job) in enumerate(todo):
        adapters_done("evaluated", index, len(todo))
        if resident is None or resident.key != resident_key(job.spec):
            resident = None  # two would not fit
            resident = load_resident_model(job, nets=scored)
            write_weight_norms(study.weight_norms(job.spec.fingerprints["model"]), resident.transformer)
        name = f"rank {each.result.rank} seed {each.spec.config.seed} at rank {each.rank}"

        def report(stage: str, done: int, total: int, loss: float | None, name: str = name) -> None:
            batches_done(f"{name}: {stage}", done, total)

        results.append(evaluate(each, study, job, resident, encodings[job.encodings], report))
    if todo:
        adapters_done("evaluated", len(todo), len(todo))
    return results


def check(job: Job, scored: bool) -> None:
    """Raises UserError where model, encodings or clips are not those of the trial."""
    config = job.spec.config
    base_folder(job.spec, job.cache_dir, "")
    if not (job.encodings / WINDOWS_FILE).exists() or any(missing(job.encodings, job.windows(), set())):
        raise UserError(
            f"{job.encodings}: does not hold all encodings of the study; give --cache the one that its sweep filled"
        )
    if scored and not config.sample.clips:
        raise UserError("--scores: trials of this study have no clips (sample.clips=false); leave the option out")
    if scored and not Path(config.data.path).is_dir():
        raise UserError(f"data.path={config.data.path}: no such folder; --scores compares with the clips in it")


def evaluate(
    adapter: TruncatedAdapter,
    study: StudyFolder,
    job: Job,
    resident: ResidentModel,
    encodings: Encodings,
    report: Report,
) -> TruncationResult:
    """Evaluate one truncated adapter and write its result; the resident model is left as it was."""
    config, plan, transformer = job.spec.config, job.windows(), resident.transformer
    folder, file = job.folder, study.trial(adapter.spec.trial_id).adapter_file
    factors, kept = truncate_adapter(file, adapter.result.scale, adapter.rank)
    if config.first:
        lora.load_adapter(transformer, study.trial(config.first).adapter_file)
    use_deterministic(transformer, config)
    parameters = lora.attach(transformer, config.lora, seed=0)
    try:
        fill(parameters, factors, file)
        for _, parameter in parameters:  # in the precision that the engine trained it in
            parameter.data = parameter.data.to(TORCH_DTYPE[config.model.dtype])
        losses = window_losses(transformer, config, encodings, plan.heldout)
        loss = float(losses.mean())
        recorded = adapter.result.heldout_loss
        uncut = adapter.rank == adapter.result.rank
        if uncut and recorded is not None and abs(loss - recorded) > TOLERANCE * abs(recorded):
            raise UserError(
                f"trial {adapter.spec.trial_id}: its adapter gives {HELDOUT_LOSS} {loss:.6f} here and {recorded:.6f} "
                "in its result; use the versions and the kind of device of the study"
            )
        scored = Scored([window.window_id for window in plan.heldout])
        if adapter.scored:
            digest, stop = lora.adapter_hash({name: p.data for name, p in parameters}), StopSign(job.study.stop)
            scored, _, _ = generate_and_score(job, resident, transformer, plan, encodings, digest, report, stop)
        scored.values |= memorised(study.reference(reference_key(job.spec)), scored) | {HELDOUT_LOSS: losses}
    finally:
        lora.detach(transformer)
    write_scored(folder, scored)
    source = adapter.result
    result = TruncationResult(
        source.trial_id, source.adapter_sha256, source.rank, adapter.rank, kept, loss, adapter.scored
    )
    write_json(folder.result, result.to_json())
    drop_parts(folder)
    return result


def truncate_adapter(path: Path, scale: float, rank: int) -> tuple[Factors, float]:
    """The update of `rank` closest to `scale` B A in every layer, and the share of the squared norm it keeps, 0..1."""
    factors, kept, whole = {}, 0.0, 0.0
    for layer, a, b in low_rank.read_factors(path):
        squares = np.square(low_rank.singular_values(a, scale * b))
        kept, whole = kept + float(squares[:rank].sum()), whole + float(squares.sum())
        factors[layer] = low_rank.truncated(a, scale * b, rank)
    return factors, kept / whole if whole else 1.0


def fill(parameters: lora.NamedParameters, factors: Factors, path: Path) -> None:
    """Put factors into an attached adapter. UserError: it has other layers than the file."""
    wanted = {name.partition(".lora_")[0] for name, _ in parameters}
    if other := sorted(wanted ^ set(factors)):
        raise UserError(f"{path}: {other[0]} is in the file or in the model's adapter, not in both; take its base")
    for name, parameter in parameters:
        layer, _, which = name.partition(".lora_")
        values = factors[layer][0 if which.startswith("A") else 1]
        parameter.data.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))


def run(arguments: Sequence[str] | None) -> None:
    """The command. Raises UserError."""
    parser = Parser(prog="python -m cinelora.export.truncate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, help="the study folder")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where its encodings are (default: .cache)")
    parser.add_argument("--scores", action="store_true", help="generate and score the held-out clips too")
    options = parser.parse_args(arguments)
    study = StudyFolder(options.study.resolve())
    check_writable("study folder", study.truncation.root)
    try:
        results = truncate_study(study, options.cache, options.scores)
    except Stopped as stopped:
        raise KeyboardInterrupt from stopped
    for result in results:
        print(
            f"trial {result.trial_id}, rank {result.source_rank} at {result.rank}: "
            f"{HELDOUT_LOSS} {result.heldout_loss:.6f}, {result.kept:.1%} of the squared norm"
        )
    command = f"python -m analysis.report {StudyFolder(options.study).typed}"
    print(f"{len(results)} evaluated: {study.truncation.root}; shown by {command}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status 0, 2 after one line on stderr, or 130 when stopped."""
    return exit_status(lambda: run(arguments), stopped="stopped; the same command goes on from here")


if __name__ == "__main__":
    raise SystemExit(main())
