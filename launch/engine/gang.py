"""A gang: the members of one trial, who meet in a process group and run it in step.

In: members in rank order, a job. Out: the calls to make, one phase after the other.
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
Calls = list[Any]  # references to what Ray was asked to do
Story = Generator[tuple[str, Calls], list[Any], None]  # yields a phase and its calls, is sent their results


def story(members: list[Member], job: Job) -> Story:
    """What a gang does for a trial: meet, unless its members are a group already, then run it."""
    if members[0].group != members:
        ((address, port),) = yield START, [members[0].actor.address.remote()]
        size = len(members)
        pids = yield START, [member.actor.join.remote(rank, size, address, port) for rank, member in enumerate(members)]
        for member, pid in zip(members, pids, strict=True):
            member.group, member.pid = list(members), pid
    yield RUN, [member.actor.run.remote(job) for member in members]


def all_stopped(calls: Calls, seconds: float) -> bool:
    """Wait for the workers of a trial that was asked to stop. True if each left in order: its gang can go on."""
    finished, _ = ray.wait(calls, num_returns=len(calls), timeout=seconds)
    return len(finished) == len(calls) and all(_ended(call) == STOPPED for call in finished)


def _ended(call: Any) -> str:
    """The class of its failure, "" if it has none."""
    try:
        ray.get(call)
    except Exception as error:
        return failure_kind(error)
    return ""


def is_lost(error: Exception, others: Calls) -> bool:
    """True if a process or node went away: a peer of a dead worker only sees its connection break."""
    if isinstance(error, LOST_ERRORS):
        return True
    if not others or not isinstance(error, RayTaskError):
        return False
    finished, _ = ray.wait(others, num_returns=len(others), timeout=SETTLE_SECONDS)
    for call in finished:
        try:
            ray.get(call)
        except LOST_ERRORS:
            return True
        except Exception:
            continue
    return False
