"""Before the trials: fill the encoding caches and score the true clips, shared out over all idle gangs.

In: the jobs of a sweep. Out: cache files that every trial reads. What is there already is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ray
from ray.exceptions import RayTaskError

from cinelora.encodings import missing
from cinelora.errors import UserError
from cinelora.job import Job
from launch.gangs import stop_gang
from launch.schedule import LOST, Schedule, first_cause, root_cause


def encode_all(schedule: Schedule, jobs: list[Job], say: Callable[[str], None]) -> None:
    """Fill the encoding caches and the reference scores, shared out over all idle gangs.

    What is already there is not done again; a worker lost half way is replaced and the rest done by others.
    """
    prompts: dict[Path, set[str]] = {}
    for job in jobs:
        prompts.setdefault(job.encodings, set()).add(job.spec.config.sample.negative_prompt)
    for job in {(job.encodings, job.reference.root): job for job in jobs}.values():
        for attempt in range(schedule.max_restarts + 1):
            try:
                _encode_once(schedule, job, prompts[job.encodings], say)
                break
            except RayTaskError as error:
                cause = root_cause(error)
                raise cause if isinstance(cause, UserError | OSError) else UserError(first_cause(error)) from error
            except LOST as error:
                if attempt == schedule.max_restarts:
                    raise
                schedule.ledger.event("encode_restart", error=type(error).__name__)
                gangs, schedule.idle = schedule.idle, []
                for gang in gangs:
                    stop_gang(gang)
                schedule.open_gangs(len(gangs))


def _encode_once(schedule: Schedule, job: Job, negative: set[str], say: Callable[[str], None]) -> None:
    windows, prompts = missing(job.encodings, job.windows(), negative)
    workers = [worker for gang in schedule.idle for worker in gang.workers]
    if windows or prompts:
        say(f"encoding {len(windows)} windows and {len(prompts)} captions on {len(workers)} workers")
        shares = [windows[index :: len(workers)] for index in range(len(workers))]
        texts = [prompts[index :: len(workers)] for index in range(len(workers))]
        ray.get([w.encode.remote(job, part, text) for w, part, text in zip(workers, shares, texts, strict=True)])
    if not job.reference.clip_scores.exists():
        say("scoring the true held-out clips")
        ray.get(workers[0].reference.remote(job))
