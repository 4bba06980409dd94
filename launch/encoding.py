"""Before the trials: fill the encoding caches and score the true clips, shared out over all idle gangs.

In: the jobs of a sweep. Out: cache files that every trial reads. What is there already is not done again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    distinct = list({(job.encodings, job.reference.root): job for job in jobs}.values())
    for job in distinct:
        _retried(schedule, partial(_encode, schedule, job, prompts[job.encodings], say))
    _retried(schedule, partial(_score_references, schedule, distinct, say))


def _retried(schedule: Schedule, work: Callable[[], None]) -> None:
    """Do the work; lost workers are replaced and it is done again, at most `max_restarts` times."""
    for attempt in range(schedule.max_restarts + 1):
        try:
            return work()
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


def _encode(schedule: Schedule, job: Job, negative: set[str], say: Callable[[str], None]) -> None:
    windows, prompts = missing(job.encodings, job.windows(), negative)
    workers = [worker for gang in schedule.idle for worker in gang.workers]
    if windows or prompts:
        say(f"encoding {len(windows)} windows and {len(prompts)} captions on {len(workers)} workers")
        shares = [windows[index :: len(workers)] for index in range(len(workers))]
        texts = [prompts[index :: len(workers)] for index in range(len(workers))]
        ray.get([w.encode.remote(job, part, text) for w, part, text in zip(workers, shares, texts, strict=True)])


def _score_references(schedule: Schedule, jobs: list[Job], say: Callable[[str], None]) -> None:
    """Each set of true clips on a gang of its own, as far as gangs go."""
    open_ones = [job for job in jobs if not job.reference.clip_scores.exists()]
    if open_ones:
        say(f"scoring the true held-out clips ({len(open_ones)} sets)")
        workers = [gang.workers[0] for gang in schedule.idle]
        ray.get([workers[i % len(workers)].reference.remote(job) for i, job in enumerate(open_ones)])
