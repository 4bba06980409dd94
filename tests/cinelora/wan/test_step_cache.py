"""Both guidance passes as one batch, and the step cache: what they compute, and what they leave on the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cinelora.core.cli import UserError
from cinelora.core.config import DataConfig, Dtype, LoraConfig, SampleConfig, ScoreConfig, StepCache, TargetSet
from cinelora.core.seeds import draw_noise
from cinelora.metrics.catalogue import protocol
from cinelora.wan import lora
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import Conditions
from cinelora.wan.loading import load_transformer
from cinelora.wan.options import check_cache
from cinelora.wan.sampler import denoise
from tests import tiny_study

PLAIN = SampleConfig(steps=4, guidance=3.0)
CACHED = replace(PLAIN, cache=StepCache.first_block)
ROUNDING = 2e-5


@pytest.fixture(scope="module")
def folder(study_root: Path) -> Path:
    return model_folder(tiny_study.tiny_config(study_root).model, study_root / "cache")


@pytest.fixture(params=[False, True], ids=["stock", "short text and adapter"])
def model(request: pytest.FixtureRequest, folder: Path) -> Any:
    """The bare base; or with shortened text and an adapter that does something."""
    found = load_transformer(folder, Dtype.float32, short_text=request.param)
    if request.param:
        for name, parameter in lora.attach(found, LoraConfig(rank=4, targets=TargetSet.block), seed=1):
            if ".lora_B" in name:
                parameter.data = draw_noise(tuple(parameter.shape), name) * 0.3
    return found


def text(*lengths: int) -> torch.Tensor:
    """States (N, 512, 64) of texts of these lengths, zero past their ends."""
    states = torch.zeros(len(lengths), 512, 64)
    for row, length in zip(states, lengths, strict=True):
        row[:length] = draw_noise((length, 64), "text", length)
    return states


def run(model: Any, folder: Path, sample: SampleConfig, key: str = "a") -> torch.Tensor:
    """Two clips of different texts."""
    return denoise(
        model,
        folder,
        sample,
        draw_noise((2, 16, 3, 4, 4), key),
        Conditions(draw_noise((2, 20, 3, 4, 4), "condition"), draw_noise((2, 17, 64), "image"), text(5, 9)),
        text(1, 1),
    )


@contextmanager
def counted(module: Any) -> Iterator[list[int]]:
    """The batch sizes a module is called with."""
    sizes: list[int] = []
    hook = module.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    yield sizes
    hook.remove()


def test_both_passes_as_one_batch(model: Any, folder: Path) -> None:
    with counted(model.blocks[0]) as two:
        apart = run(model, folder, PLAIN)
    with counted(model.blocks[0]) as one:
        together = run(model, folder, replace(PLAIN, batched_guidance=True))
    assert two == [2] * 8 and one == [4] * 4
    assert torch.allclose(together, apart, atol=ROUNDING, rtol=0)
    assert (run(model, folder, replace(PLAIN, guidance=1.5)) - apart).abs().max() > 100 * ROUNDING


@pytest.mark.parametrize("together", [False, True])
def test_no_threshold_no_change_and_a_high_one_skips(model: Any, folder: Path, together: bool) -> None:
    plain, cached = (replace(each, batched_guidance=together) for each in (PLAIN, CACHED))
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    exact = run(model, folder, plain)
    assert torch.equal(run(model, folder, replace(cached, cache_threshold=1e-12)), exact)
    with counted(model.blocks[1].attn1) as reached:
        skipping = run(model, folder, replace(cached, cache_threshold=1e6))
    assert len(reached) == (1 if together else 2), "the first step of each pass, and none after it"
    assert not torch.equal(skipping, exact) and torch.isfinite(skipping).all()
    assert torch.equal(run(model, folder, plain), exact), "the base is as it was"
    left = {name: set(vars(module)) - names[name] for name, module in model.named_modules()}
    assert {name for name, more in left.items() if more} <= {""}, "no hook stays on a block"


def test_a_batch_knows_nothing_of_the_one_before(model: Any, folder: Path) -> None:
    cached = replace(CACHED, cache_threshold=1e6)
    first = run(model, folder, cached)
    run(model, folder, cached, key="b")
    assert torch.equal(run(model, folder, cached), first)


def test_where_workers_would_wait_for_one_another(tmp_path: Path) -> None:
    config = tiny_study.tiny_config(tmp_path, sample__cache="first_block", zero__stage=2)
    check_cache(config)
    for changes, words in (
        ({"zero__stage": 3}, "zero.stage=3"),
        ({"model__sequence_workers": 2}, "sequence_workers=2"),
    ):
        cached = tiny_study.tiny_config(tmp_path, sample__cache="first_block", **changes)
        with pytest.raises(UserError, match=words):
            check_cache(cached)
        check_cache(tiny_study.tiny_config(tmp_path, **changes))


def test_it_is_part_of_the_protocol() -> None:
    plain = protocol(ScoreConfig(), DataConfig(), {})
    assert protocol(ScoreConfig(), DataConfig(), {}, SampleConfig()) == plain
    for name, facts in protocol(ScoreConfig(), DataConfig(), {}, CACHED).items():
        assert facts == {**plain[name], "step_cache": "first_block, relative change below 0.05"}
