"""A gang: the members of one trial, who meet in a process group and run it in step.

In: members in rank order, a job. Out: the calls to make, one phase after the other; how the calls of a gang ended.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import ray
from ray.exceptions import RayTaskError

from cinelora.trial.job import Job
from launch.engine.errors import LOST_ERRORS, STOPPED, failure_kind
from launch.engine.pool import Member

SETTLE_SECONDS = 5.0  # for the peers of a dead worker to fail too, so that the first cause is seen
START, RUN = "start", "run"
Calls = list[Any]  # Ray's references to the results
Phases = Generator[tuple[str, Calls], list[Any], None]  # yields a phase and its calls, is sent their results


def gang_phases(members: list[Member], job: Job) -> Phases:
    """What a gang does for a trial: form a process group, unless its members are one already, then run it."""
    if members[0].group != members:
        ((address, port),) = yield START, [members[0].actor.address.remote()]
        size = len(members)
        pids = yield START, [member.actor.join.remote(rank, size, address, port) for rank, member in enumerate(members)]
        for member, pid in zip(members, pids, strict=True):
            member.group, member.pid = list(members), pid
    yield RUN, [member.actor.run.remote(job) for member in members]


def all_stopped(calls: Calls, seconds: float) -> bool:
    """Wait for the workers of a stopped trial. True if each of them left in order, so that the gang can be reused."""
    ended = _failures(calls, seconds)
    return len(ended) == len(calls) and all(error and failure_kind(error) == STOPPED for error in ended)


def is_lost(error: Exception, others: Calls) -> bool:
    """True if a process or node is gone: a peer of a dead worker only sees its connection break."""
    if isinstance(error, LOST_ERRORS):
        return True
    if not others or not isinstance(error, RayTaskError):
        return False
    return any(isinstance(each, LOST_ERRORS) for each in _failures(others, SETTLE_SECONDS))


def _failures(calls: Calls, seconds: float) -> list[Exception | None]:
    """What the calls that end within these seconds raised; None for a call that returned."""
    found: list[Exception | None] = []
    for call in ray.wait(calls, num_returns=len(calls), timeout=seconds)[0]:
        try:
            ray.get(call)
            found.append(None)
        except Exception as error:
            found.append(error)
    return found
