"""How long does it take to gather 5,000 trials into a table, and how much memory?

    OMP_NUM_THREADS=1 python -m benchmarks.gather --root /tmp/gather    (4 minutes; with --report 20)

In: nothing; a made-up study in the layout of a real one: ranks x alpha rules x targets x rates x seeds, of every trial
spec.json, result.json, clip_scores.csv, set_scores.json, train.csv and features of both packaged nets, no videos and no
adapters. The MobileNet features, which no table reads, are one file linked to by all trials, to save disk.
Out: Markdown lines: seconds of each stage in a fresh process, and the most memory it held; what a study without
set_scores.json takes, which has to give the same scores. The study is removed.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.report import report
from analysis.study.load import load_study
from analysis.study.rows import estimate
from analysis.tables.csv_files import rank_csv, write_scores
from cinelora.core.config import LoraConfig, Method, Scaling, TargetSet, TrainConfig, TrialConfig
from cinelora.core.paths import SampleFolder, StudyFolder
from cinelora.core.records import SCHEMA, TrialResult, TrialSpec, reference_key
from cinelora.metrics.catalogue import protocol, unavailable
from cinelora.metrics.feature_nets import WEIGHTS
from sweeps.plan import trial_spec

RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
SEEDS = (0, 1, 2, 3, 4)
STEPS = 100
MEANS = {  # of a trial of study `quick`
    "motion[absdiff]": 2.2,
    "psnr": 23.0,
    "ssim": 0.7,
    "consistency[mnv2]": 0.93,
    "image_similarity[mnv2]": 0.85,
    "heldout_loss": 0.33,
}
MOST_SECONDS, MOST_GIGABYTES = 20.0, 2.0
MARKS = {"model": "0" * 64, "data": "1" * 64}
MEMORY, REPORT = "most memory held", "the whole analysis.report"
COMPUTED = "estimate of the same study without set_scores.json"
Floats = NDArray[np.float64]
Measured = dict[str, tuple[float, float]]


def specs(count: int) -> tuple[TrialSpec, ...]:
    """The base, then `count` - 1 adapters."""
    grid = product(TargetSet, Scaling, RATES, RANKS, SEEDS)
    adapters = (
        TrialConfig(
            seed=seed,
            lora=LoraConfig(rank=rank, scaling=scaling, targets=targets),
            train=TrainConfig(learning_rate=rate, steps=STEPS),
        )
        for targets, scaling, rate, rank, seed in grid
    )
    base = TrialConfig(method=Method.base)
    return tuple(trial_spec(config, MARKS) for config in (base, *islice(adapters, count - 1)))


def write_study(root: Path, trials: int, clips: int) -> float:
    """The folder of a study whose trials have all finished. Returns the seconds a trial that its set scores took."""
    from cinelora.features.results import write_set_scores  # torch, which would count as memory of the reader

    recording = 0.0
    folder, random = StudyFolder(root), np.random.default_rng(0)
    ids = tuple(f"heldout-film-{index:03d}_s00_w000" for index in range(clips))
    planned = specs(trials)
    _write_json(folder.study, {"schema": SCHEMA, "name": "gather"})
    _write_json(folder.plan, {"trials": [spec.to_json() for spec in planned]})
    reference = folder.reference(reference_key(planned[0]))
    kept = {name: mean for name, mean in MEANS.items() if name in ("motion[absdiff]", "consistency[mnv2]")}
    shared = root / "mnv2.npz"
    np.savez(shared, ids=np.array(ids), features=random.random((clips, WEIGHTS["mnv2"].dimension), np.float32))
    features = random.normal(size=(clips, WEIGHTS["tnv2"].dimension))
    _write_samples(reference, ids, features, kept, shared, random)
    lines = [f'{clip},{clip[:16]},"a red circle drifts, cloudy background"' for clip in ids]
    _write(reference.clips, ["clip_id,shot,caption", *lines])
    for spec in planned:
        place = folder.trial(spec.trial_id)
        made = 0.9 * features + 0.4 * random.normal(size=features.shape) + 0.2 * random.normal()
        _write_samples(place, ids, made, MEANS, shared, random)
        before = time.perf_counter()
        write_set_scores(place, reference)
        recording += time.perf_counter() - before
        if spec.config.method is Method.lora:
            _write(place.train_csv, _curve(spec.config.train.learning_rate, random))
        _write_json(place.spec, spec.to_json())
        _write_json(place.result, _result(spec, clips).to_json())
    return recording / len(planned)


def _write_samples(
    place: SampleFolder,
    ids: tuple[str, ...],
    features: Floats,
    means: dict[str, float],
    shared: Path,
    random: np.random.Generator,
) -> None:
    place.features("tnv2").parent.mkdir(parents=True)
    np.savez(place.features("tnv2"), ids=np.array(ids), features=features.astype(np.float32))
    place.features("mnv2").hardlink_to(shared)
    values = {name: (mean * random.normal(1, 0.1, len(ids))).tolist() for name, mean in means.items()}
    lines = (f"{clip},{name},{found[index]!r}" for index, clip in enumerate(ids) for name, found in values.items())
    _write(place.clip_scores, ["clip_id,metric,value", *lines])


def _curve(rate: float, random: np.random.Generator) -> Iterator[str]:
    yield "step,loss,heldout_loss,grad_norm,learning_rate,seconds"
    yield f"0,,{random.random()!r},,{rate},0.0"
    for step, loss in enumerate(random.random(STEPS).tolist(), start=1):
        yield f"{step},{loss!r},{loss if step == STEPS else ''},0.0172,{rate},0.0712"


def _result(spec: TrialSpec, clips: int) -> TrialResult:
    config, adapted = spec.config, spec.config.method is Method.lora
    return TrialResult(
        trial_id=spec.trial_id,
        method=config.method.value,
        arm="",
        rank=config.lora.rank if adapted else 0,
        alpha=config.lora.effective_alpha if adapted else 0.0,
        scale=config.lora.scale if adapted else 0.0,
        scaling=config.lora.scaling.value,
        targets=config.lora.targets.value,
        learning_rate=config.train.learning_rate,
        seed=config.seed,
        steps=STEPS if adapted else 0,
        trainable_parameters=6144 * config.lora.rank if adapted else 0,
        adapter_bytes=24576 * config.lora.rank if adapted else 0,
        adapter_sha256=spec.trial_id if adapted else "",
        train_loss=0.3 if adapted else None,
        heldout_loss=0.33,
        other_loss=None,
        clips=clips,
        seconds={"train": 9.2, "generate": 6.2, "score": 12.5, "overhead": 0.1},
        seconds_per_step=0.07 if adapted else None,
        peak_memory_gib=0.97,
        world_size=1,
        restarts=0,
        protocol=protocol(config.score, config.data, spec.fingerprints),
        unavailable=unavailable(config.score),
        versions={"python": "3.11.7", "torch": "2.13.0"},
    )


def _write(path: Path, lines: Any) -> None:
    path.write_text("\n".join(lines) + "\n")


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def measure(root: Path, whole_report: bool) -> Measured:
    """Stage -> (seconds, of processor time); MEMORY: most gigabytes held. The import of the libraries is not timed."""
    found: Measured = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        before = time.perf_counter(), time.process_time()
        made = work()
        found[stage] = (time.perf_counter() - before[0], time.process_time() - before[1])
        return made

    study = timed("load_study", lambda: load_study(root))
    estimates = timed("estimate", lambda: estimate(study))
    timed("rank_csv", lambda: rank_csv(estimates, {}))
    timed("write_scores", lambda: write_scores(estimates, root / "scores.csv"))
    found[MEMORY] = (_most_gigabytes(), 0.0)
    bare = replace(study, trials=tuple(replace(trial, set_scores={}) for trial in study.trials))
    if timed(COMPUTED, lambda: estimate(bare)).scores != estimates.scores:
        raise SystemExit("the recorded set scores are not those that are computed")
    if whole_report:
        del study, estimates, bare
        timed(REPORT, lambda: report([root]))
        found[f"{MEMORY}, {REPORT}"] = (_most_gigabytes(), 0.0)
    return found


def _most_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _child(root: Path, whole_report: bool) -> Measured:
    """`measure` in a process of its own, so that the memory is that of reading and not of writing."""
    command = [sys.executable, "-m", "benchmarks.gather", "--root", str(root), "--measure"]
    done = subprocess.run(command + ["--report"] * whole_report, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gather", description="Time the gathering of a study.")
    parser.add_argument("--root", type=Path, required=True, help="a folder for the made-up study; must not exist")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--report", action="store_true", help="time the whole report too")
    parser.add_argument("--measure", action="store_true", help="measure the study that is there, print JSON, keep it")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.root, options.report)))
        return 0
    if options.root.exists():
        parser.error(f"--root {options.root}: exists; name a new folder")
    try:
        before = time.perf_counter()
        recording = write_study(options.root, options.trials, options.clips)
        print(f"written: {options.trials} trials x {options.clips} clips in {time.perf_counter() - before:.0f} s")
        print(f"a trial's set_scores.json: {1000 * recording:.1f} ms")
        found = _child(options.root, options.report)
    finally:
        shutil.rmtree(options.root, ignore_errors=True)
    return _tell(found)


def _tell(found: Measured) -> int:
    stages = [stage for stage in found if not stage.startswith((MEMORY, REPORT, COMPUTED))]
    total, processor = (sum(found[stage][part] for stage in stages) for part in (0, 1))
    print("| stage | seconds | of processor time |\n|---|---|---|")
    print(*(f"| {stage} | {found[stage][0]:.1f} | {found[stage][1]:.1f} |" for stage in stages), sep="\n")
    print(f"| **gathering: all of these** (at most {MOST_SECONDS:g}) | **{total:.1f}** | {processor:.1f} |")
    for name in (name for name in (COMPUTED, REPORT) if name in found):
        print(f"| {name} | {found[name][0]:.1f} | {found[name][1]:.1f} |")
    for name in (name for name in found if name.startswith(MEMORY)):
        print(f"{name}: {found[name][0]:.2f} GB")
    return int(total > MOST_SECONDS or found[MEMORY][0] > MOST_GIGABYTES)


if __name__ == "__main__":
    raise SystemExit(main())
