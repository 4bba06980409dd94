"""A worker for tests of gangs: instead of a trial it says which ranks met."""

from __future__ import annotations

from cinelora import distributed
from cinelora.trial.job import Job
from launch.engine.worker import Worker


class Meeting(Worker):
    def run(self, job: Job) -> list[int]:  # type: ignore[override]
        return list(distributed.gather_objects(distributed.rank()))
