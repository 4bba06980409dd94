"""Where gangs fit, on paper; and what an error of a trial is called."""

from __future__ import annotations

import errno

import pytest

from cinelora.errors import UserError
from launch.gangs import Node, Shape, bundles, gangs_that_fit
from launch.launcher import extra_overrides
from launch.messages import known_keys, one_line
from launch.schedule import failure_kind

LAPTOP = [Node(cpus=2, gpus=0)]
CLUSTER = [Node(64, 4), Node(64, 4), Node(64, 4)]


def test_one_node_is_packed_and_several_are_spread() -> None:
    assert bundles(Shape(1, 1, 0), LAPTOP) == ([{"CPU": 1.0, "GPU": 0.0}], "STRICT_PACK")
    assert bundles(Shape(4, 4, 1), CLUSTER) == ([{"CPU": 16.0, "GPU": 4.0}], "STRICT_PACK")
    assert bundles(Shape(8, 4, 1), CLUSTER) == ([{"CPU": 16.0, "GPU": 4.0}] * 2, "STRICT_SPREAD")
    assert bundles(Shape(12, 4, 1), CLUSTER)[0] == [{"CPU": 16.0, "GPU": 4.0}] * 3


@pytest.mark.parametrize("shape", [Shape(1, 1, 1), Shape(3, 1, 0), Shape(1, 3, 0)])
def test_what_can_never_fit_is_refused(shape: Shape) -> None:
    with pytest.raises(UserError, match="the cluster has 2 CPU 0 GPU"):
        bundles(shape, LAPTOP)


def test_gangs_at_once() -> None:
    assert gangs_that_fit(Shape(1, 1, 0), LAPTOP) == 2
    assert gangs_that_fit(Shape(2, 1, 0), LAPTOP) == 1
    assert gangs_that_fit(Shape(1, 4, 1), CLUSTER) == 12
    assert gangs_that_fit(Shape(8, 4, 1), CLUSTER) == 1
    assert gangs_that_fit(Shape(3, 4, 1), CLUSTER) == 3  # one a node: the fourth GPUs cannot be joined


def test_failure_kinds() -> None:
    assert failure_kind(OSError(errno.ENOSPC, "No space left on device")) == "disk_full"
    assert failure_kind(UserError("bad")) == "user"
    assert failure_kind(ValueError("else")) == "error"


def test_one_line_names_the_nearest_setting() -> None:
    assert "train.learning_rate" in known_keys()
    text = one_line(ValueError("Could not override 'train.learnin_rate'.\nTo append..."))
    assert text == "train.learnin_rate: unknown setting; did you mean train.learning_rate?"


def test_trials_beside_the_grid_take_what_all_jobs_share() -> None:
    jobs = [["+study=film", "lora.rank=1", "seed=0", "a=1"], ["+study=film", "lora.rank=4", "seed=0", "a=1"]]
    extra = ["arm=control data.path=/x lora.rank=8 seed=0,1", "method=full a=2"]
    assert extra_overrides(extra, jobs) == [
        ["+study=film", "a=1", "arm=control", "data.path=/x", "lora.rank=8", "seed=0"],
        ["+study=film", "a=1", "arm=control", "data.path=/x", "lora.rank=8", "seed=1"],
        ["+study=film", "seed=0", "method=full", "a=2"],
    ]
