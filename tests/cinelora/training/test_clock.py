"""Compiling is a stage of its own: reported, timed, and no part of the seconds of a step."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from cinelora.training import clock
from cinelora.training.clock import COMPILING, compiling_apart
from cinelora.trial import resident as base
from cinelora.wan import acceleration
from cinelora.wan.acceleration import BACKEND
from tests import tiny_study


def _listen(said: list[Any], *what: Any) -> None:
    said.append(what)


def test_the_clock_stands_still_while_torch_compiles_also_a_late_backward_pass() -> None:
    slow_seconds = 0.2

    def slow(graph: Any, inputs: Any) -> Any:
        time.sleep(slow_seconds)
        return make_boxed_func(graph)

    model, seen = nn.Linear(2, 2), list[Any]()
    setattr(model, BACKEND, "slow")
    run = torch.compile(model, backend=aot_autograd(fw_compiler=slow, bw_compiler=slow))
    with compiling_apart(model, partial(_listen, seen)) as seconds:
        wall, work = time.perf_counter(), clock.clock()
        run(torch.ones(1, 2)).sum().backward()
        wall, work = time.perf_counter() - wall, clock.clock() - work
    assert seen and set(seen) == {(COMPILING, 0, 0, None)}
    assert seconds[COMPILING] >= 2 * slow_seconds, "forward and backward"
    assert work == pytest.approx(wall - seconds[COMPILING], abs=1e-3)


def test_a_warm_worker_compiles_each_rank_once(
    study_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_blocks = acceleration.compile_blocks
    monkeypatch.setattr(base, "compile_blocks", lambda model: compile_blocks(model, backend="aot_eager"))
    compiled, found = None, []
    for place, rank in enumerate((2, 4, 2)):
        config = tiny_study.tiny_config(study_root / "clips", model__compile=True, lora__rank=rank)
        job = tiny_study.make_job(tmp_path / str(place), config)
        compiled = compiled or base.load_resident_model(job)
        said: list[tuple[str, int, int, float | None]] = []
        result = tiny_study.run(job, compiled, partial(_listen, said))
        found.append(
            (
                sum(stage == COMPILING for stage, *_ in said),
                result.seconds[COMPILING],
                result.heldout_loss,
                result.train_loss,
            )
        )
        assert all(seconds >= 0 for seconds in result.seconds.values())
    first, other, again = found
    assert first[0] > 0 < other[0] and first[1] > 0 < other[1]
    assert again[:2] == (0, 0.0), "the third finds the graphs of the first"
    assert again[2:] == first[2:], "and its numbers"
