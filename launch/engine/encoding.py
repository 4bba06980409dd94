"""Before the trials: fill the encoding caches and score the reference clips, shared among the workers of the pool.

In: the jobs of a sweep. Out: cache files that every trial reads. What is in the caches already is not done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from cinelora.core.cli import Progress, UserError
from cinelora.data.encodings import NO_CAPTION, missing
from cinelora.trial.job import Job
from launch.engine.errors import LOST_ERRORS, first_cause, root_cause
from launch.engine.pool import Member, Pool
from sweeps.scheduling.cluster import GangShape

WINDOWS_PER_CALL = 64  # a call loads the encoders once


@dataclass(frozen=True)
class Call:
    """A method of `launch.engine.worker.Worker` and its arguments; `size` counts towards progress."""

    method: str
    arguments: tuple[Any, ...]
    size: int = 1


def encode_all(pool: Pool, shape: GangShape, jobs: list[Job], replacements: int) -> None:
    """Fill the encoding caches of all jobs, and the reference scores of those that score clips; `replacements`: of lost
    workers, at most.

    Raises UserError, or what the disk raised.
    """
    prompts: dict[Path, set[str]] = {}
    for job in jobs:
        config = job.spec.config
        prompts.setdefault(job.encodings, set()).add(config.sample.negative_prompt)
        if config.train.caption_dropout:
            prompts[job.encodings].add(NO_CAPTION)
    distinct = list({(job.encodings, job.reference.root): job for job in jobs}.values())
    sets = {job.encodings: job for job in jobs if job.spec.config.method.has_model}.values()
    encodings = [call for job in sets for call in _encoding(job, prompts[job.encodings])]
    _share_out(pool, shape, encodings, replacements, "encoding", Progress("windows and captions"))
    for job in (each for each in distinct if not each.spec.config.sample.clips):
        job.list_reference()
    scored = [job for job in distinct if job.spec.config.sample.clips]
    references = [Call("reference", (job,)) for job in scored if not job.reference.clip_scores.exists()]
    _share_out(pool, shape, references, replacements, "scoring", Progress("sets of reference clips"))


def _encoding(job: Job, negative: set[str]) -> list[Call]:
    windows, prompts = missing(job.encodings, job.windows(), negative)
    calls = [Call("encode", (job, [], prompts), len(prompts))] if prompts else []
    for start in range(0, len(windows), WINDOWS_PER_CALL):
        part = windows[start : start + WINDOWS_PER_CALL]
        calls.append(Call("encode", (job, part, []), len(part)))
    return calls


def _share_out(
    pool: Pool, shape: GangShape, calls: Sequence[Call], replacements: int, stage: str, progress: Progress
) -> None:
    """Each call on some worker, the next one to whoever is free; a lost worker's call goes to another."""
    queue, busy, done = deque(calls), dict[Any, tuple[Member, Call]](), 0
    total, idle = sum(call.size for call in calls), pool.crew(shape, len(queue))
    if calls:
        print(f"{stage} {total} {progress.unit} on {len(idle)} workers", flush=True)
    try:
        while queue or busy:
            while queue and idle:
                member, call = idle.pop(), queue.popleft()
                busy[getattr(member.actor, call.method).remote(*call.arguments)] = member, call
            progress(stage, done, total)
            (ready, *_), _ = ray.wait(list(busy), num_returns=1)
            member, call = busy.pop(ready)
            try:
                ray.get(ready)
            except LOST_ERRORS as error:
                replacements -= 1
                if replacements < 0:
                    raise UserError(f"{call.method}: {first_cause(error)}; too many workers were lost") from error
                queue.appendleft(call)
                idle.append(pool.replaced(member, shape))
                continue
            idle.append(member)
            done += call.size
        if calls:
            progress(stage, done, total)
    except RayTaskError as error:
        cause = root_cause(error)
        raise cause if isinstance(cause, UserError | OSError) else UserError(first_cause(error)) from error
    finally:
        pool.release([*idle, *(member for member, _ in busy.values())])
