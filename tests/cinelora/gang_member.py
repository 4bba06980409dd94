"""One process of a two-worker gang, run by test_gang.py: `python -m tests.cinelora.gang_member ROOT RANK PORT`.

Prints one JSON line per ZeRO stage and order of trials: adapter hash and held-out loss.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from cinelora import dist
from cinelora.base import load_base
from cinelora.trial import run_trial
from tests import tiny_study


def main() -> None:
    root, rank, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dist.start(rank, 2, "127.0.0.1", port)
    for stage in (0, 1, 2, 3):
        base = None
        for attempt in ("cold", "warm"):
            config = tiny_study.tiny_config(
                root / "clips", zero__stage=stage, zero__persistence_threshold=0, lora__rank=4
            )
            job = tiny_study.make_job(root, config, encode=False)
            dist.gather_objects(None)  # nobody clears the folder while the other still uses it
            if rank == 0:
                shutil.rmtree(job.study.trial(job.spec.trial_id).root, ignore_errors=True)
            dist.gather_objects(None)
            base = base or load_base(job)
            result = run_trial(job, base, tiny_study.silent)
            line = {"stage": stage, "attempt": attempt, "hash": result.adapter_sha256, "loss": result.heldout_loss}
            print(json.dumps({**line, "clips": result.clips, "world": result.world_size}), flush=True)


if __name__ == "__main__":
    main()
