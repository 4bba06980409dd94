"""A worker without torch for tests of the engine: it counts on disk, so that a lost trial goes on where it was.

Its held-out loss is its learning rate, at every step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from cinelora.core.files import write_json
from cinelora.trial.job import Job

STEPS, SECONDS = 20, 0.15


class LightWorker:
    def __init__(self, threads: int) -> None:
        self.place = (0, 1)

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def join(self, rank: int, world_size: int, address: str, port: int) -> int:
        self.place = (rank, world_size)
        return os.getpid()

    def pace(self, job: Job, step: int) -> None:
        time.sleep(SECONDS)

    def run(self, job: Job) -> float:
        rank, size = self.place
        folder = job.study.trial(job.spec.trial_id)
        steps = folder.root / f"steps-{rank}"
        done = len(steps.read_text()) if steps.exists() else 0
        for step in range(done, STEPS):
            self.pace(job, step)
            with open(steps, "a") as stream:
                stream.write(".")
            if rank == 0:
                write_json(folder.progress, {"stage": "train", "done": step + 1, "total": STEPS, "loss": None})
                with open(folder.train_csv, "a") as stream:
                    stream.write("" if step else "step,heldout_loss\n")
                    stream.write(f"{step + 1},{job.spec.config.train.learning_rate}\n")
            if job.study.stop.exists() or folder.stop.exists():
                from cinelora.training.checkpoint import Stopped  # torch, which few of them need

                raise Stopped(f"stopped after step {step + 1}")
        if rank == 0:
            write_json(folder.result, {"world_size": size, "pid": os.getpid()})
        return 0.0


class OrderedWorker(LightWorker):
    """Learning rates of 8 and more lead, then wait to be stopped, and the others wait for that: no order depends on
    the load."""

    def pace(self, job: Job, step: int) -> None:
        super().pace(job, step)
        own = job.study.trial(job.spec.trial_id)
        if job.spec.config.train.learning_rate >= 8:
            _wait_until(lambda: step < 12 or own.stop.exists())
        elif step == 4:
            _wait_until(lambda: sum(len(path.read_text()) > 10 for path in own.root.parent.glob("*/steps-0")) >= 2)
        elif step == 12:
            _wait_until(lambda: len(list(own.root.parent.glob("*/stop"))) >= 2)


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
