"""Shards, checkpoints, offload and shared tokens, which make the full size fit, change no result at small size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cinelora import distributed
from cinelora.trial.resident import ResidentModel, load_resident_model
from cinelora.wan import sampler
from tests import tiny_study
from tests.cinelora.training import full_size_member as member
from tests.cinelora.training.conftest import Pair

Found = dict[str, member.Outcome]


@pytest.fixture(scope="module")
def base(study_root: Path) -> ResidentModel:
    job = tiny_study.make_job(study_root, tiny_study.tiny_config(study_root / "clips"))
    if not torch.distributed.is_initialized():
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    return load_resident_model(job)


@pytest.fixture(scope="module")
def alone(study_root: Path, base: ResidentModel) -> Found:
    """Results of one worker."""
    decode, sampler.decode_video = sampler.decode_video, member.latents_as_they_are
    found = {"evaluated": member.evaluated(study_root, {}, base)}
    sampler.decode_video = decode
    return found | {"plain": member.trained(study_root, "plain", {}, base)}


@pytest.fixture(scope="module")
def together(pair: Pair) -> Found:
    """Results of two workers, which agree."""
    found = pair.full_size
    for name in member.CASES:
        assert same(found[0][name], found[1][name]), name
    return found[0]


def same(one: member.Outcome, other: member.Outcome) -> bool:
    """Adapter and losses to the bit."""
    losses = [[loss for loss, _ in each["rows"]] for each in (one, other)]
    return losses[0] == losses[1] and all(
        torch.equal(one["adapter"][name], other["adapter"][name]) for name in one["adapter"]
    )


def apart(one: member.Outcome, other: member.Outcome) -> float:
    """Largest difference of the adapters, relative to the largest element."""
    largest = max(float(tensor.abs().max()) for tensor in one["adapter"].values())
    return max(float((one["adapter"][name] - other["adapter"][name]).abs().max()) for name in one["adapter"]) / largest


def test_shards_checkpoints_and_accumulation_change_no_bit(together: Found) -> None:
    assert same(together["plain"], together["sharded"])
    assert same(together["plain"], together["plain again"]), "shared tokens leave nothing on the base"


def test_workers_that_share_tokens_see_as_one(alone: Found, together: Found) -> None:
    for name in ("losses", "latents"):
        assert np.array_equal(alone["evaluated"][name], together["evaluated"][name]), name


def test_workers_that_share_tokens_add_their_gradients(alone: Found, together: Found) -> None:
    one = alone["plain"]
    losses, norms = np.array(one["rows"]).T
    for name in ("split", "split, checkpointed", "split, sharded"):
        found = np.array(together[name]["rows"]).T
        assert found[0] == pytest.approx(losses, rel=1e-6), name
        assert found[1] == pytest.approx(norms, rel=1e-5), name
        assert apart(one, together[name]) < 1e-5, name
    assert same(together["split"], together["split, checkpointed"])
    assert same(together["split"], together["split, new group"])
    averaged = together["split, averaged"]
    assert np.array(averaged["rows"])[0, 1] == pytest.approx(norms[0] / 2, rel=1e-5)
    assert apart(one, averaged) > 1e-2, "the comparison above would see a mean"
