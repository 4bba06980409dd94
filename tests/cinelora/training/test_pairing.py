"""Ranks are paired: data, noise and times of a step depend neither on the rank nor on the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cinelora.core.config import LoraConfig
from cinelora.training.batch import Batch, training_batch
from cinelora.wan import lora
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import load_transformer
from cinelora.wan.sampler import starting_noise
from tests import tiny_study


@pytest.fixture(scope="module")
def job(study_root: Path) -> Any:
    return tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))


def step_batch(job: Any, slots: range, **changes: Any) -> Any:
    config = tiny_study.tiny_config(Path(job.spec.config.data.path), **changes)
    return training_batch(config, Encodings(job.encodings), job.windows(), 3, slots)


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Inputs and target of the model, by name."""
    own = {name: getattr(batch, name) for name in ("noisy", "times", "target")}
    return own | vars(batch.conditions)


def test_batches_do_not_depend_on_rank_gang_or_micro_batch(job: Any) -> None:
    whole = step_batch(job, range(4))
    other = step_batch(job, range(4), lora__rank=64, lora__targets="block", zero__stage=3, train__micro_batch=1)
    halves = [step_batch(job, range(0, 2)), step_batch(job, range(2, 4))]  # as two workers would share it
    for name, tensor in tensors(whole).items():
        assert torch.equal(tensor, tensors(other)[name]), name
        assert torch.equal(tensor, torch.cat([tensors(half)[name] for half in halves])), name
    assert not torch.equal(whole.target, step_batch(job, range(4), seed=1).target)


def test_first_gradient_of_a_small_rank_is_part_of_the_large_ones(job: Any, study_root: Path) -> None:
    """With A nested and B zero, dL/dB of rank 2 is the first two columns of rank 8's."""
    transformer = load_transformer(
        model_folder(job.spec.config.model, study_root / "cache"), job.spec.config.model.dtype
    )
    batch, gradients = step_batch(job, range(4)), {}
    for rank in (2, 8):
        parameters = lora.attach(transformer, LoraConfig(rank=rank), seed=0)
        batch.losses(transformer).mean().backward()
        gradients[rank] = {name: p.grad.clone() for name, p in parameters if p.grad is not None}
        lora.detach(transformer)
    for name, small in gradients[2].items():
        if ".lora_B" in name:
            assert torch.allclose(small, gradients[8][name][:, :2], atol=1e-7, rtol=1e-4), name
            assert small.abs().max() > 0, f"{name} has no gradient"


def test_starting_noise_belongs_to_the_window(job: Any) -> None:
    windows = list(job.windows().heldout)
    together = starting_noise(Encodings(job.encodings), windows, seed=0)
    alone = torch.cat([starting_noise(Encodings(job.encodings), [w], seed=0) for w in windows])
    assert torch.equal(together, alone)
