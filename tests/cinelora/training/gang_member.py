"""One process of a two-worker gang, for test_gang.py, run by pair_member.py.

Prints one JSON line per ZeRO stage and order of trials: adapter hash and held-out loss. Then the two part, train a seed
each, and meet again: one line each time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cinelora import distributed
from cinelora.core.records import TrialResult
from cinelora.trial.resident import load_resident_model
from cinelora.trial.run import run_trial
from tests import tiny_study


def port_of_both() -> int:
    """A port that is free now, the same for both workers, for their next group."""
    return int(distributed.gather_objects(distributed.free_port())[0])


def resize(root: Path, rank: int, port: int) -> None:
    """One base, three groups: two workers, one, two. The base stays in memory throughout."""
    base = None
    for world, stage in ((2, 2), (1, 0), (1, 2), (2, 2)):
        seed = rank + 5 if world == 1 else 5
        distributed.leave()
        distributed.start(
            rank if world == 2 else 0, world, "127.0.0.1", port if world == 2 else distributed.free_port()
        )
        config = tiny_study.tiny_config(root / "clips", zero__stage=stage, lora__rank=4, seed=seed, train__steps=4)
        job = tiny_study.make_job(root, config, encode=False)
        distributed.gather_objects(None)  # one clears the folder before both write the spec into it
        if world == 1 or rank == 0:
            shutil.rmtree(job.study.trial(job.spec.trial_id).root, ignore_errors=True)
        distributed.gather_objects(None)
        base = base or load_resident_model(job)
        tell(stage, "resized", run_trial(job, base, tiny_study.silent))


def tell(stage: int, attempt: str, result: TrialResult) -> None:
    line = {"stage": stage, "attempt": attempt, "hash": result.adapter_sha256, "loss": result.heldout_loss}
    print(json.dumps({**line, "clips": result.clips, "world": result.world_size}), flush=True)


def main(root: Path, rank: int) -> None:
    for stage in (0, 1, 2, 3):
        base = None
        for attempt in ("cold", "warm"):
            config = tiny_study.tiny_config(
                root / "clips", zero__stage=stage, zero__persistence_threshold=0, lora__rank=4
            )
            job = tiny_study.make_job(root, config, encode=False)
            distributed.gather_objects(None)  # neither clears the folder while the other uses it
            if rank == 0:
                shutil.rmtree(job.study.trial(job.spec.trial_id).root, ignore_errors=True)
            distributed.gather_objects(None)
            base = base or load_resident_model(job)
            tell(stage, attempt, run_trial(job, base, tiny_study.silent))
    resize(root, rank, port_of_both())
