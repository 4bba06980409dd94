"""Target sets, starting values and counts of the adapter."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import WanTransformer3DModel

from cinelora.core.cli import UserError
from cinelora.core.config import LayerKind, LoraConfig, Scaling, TargetSet
from cinelora.wan import lora, tiny

# Trainable parameters per unit of rank at the shape of the 14B model, counted by hand from its layer sizes.
PER_RANK_14B = {
    TargetSet.cross_image: 819_200,
    TargetSet.cross_text: 1_638_400,
    TargetSet.cross: 2_457_600,
    TargetSet.self: 1_638_400,
    TargetSet.attn_text: 3_276_800,
    TargetSet.attn: 4_096_000,
    TargetSet.ffn: 1_515_520,
    TargetSet.block_text: 4_792_320,
    TargetSet.block: 5_611_520,
    TargetSet.linear: 5_696_576,
}
LAYERS = {LayerKind.self: 4, LayerKind.cross: 4, LayerKind.image: 2, LayerKind.ffn: 2}  # of a block; outside: 8
SHAPE_14B = {
    "num_attention_heads": 40, "attention_head_dim": 128, "in_channels": 36, "out_channels": 16, "text_dim": 4096,
    "ffn_dim": 13824, "num_layers": 40, "image_dim": 1280, "added_kv_proj_dim": 5120,
}  # fmt: skip


def layer_count(targets: TargetSet, blocks: int) -> int:
    return sum(8 if kind is LayerKind.outer else blocks * LAYERS[kind] for kind in targets.layers)


@pytest.fixture(scope="module")
def linears_14b() -> dict[str, tuple[int, int]]:
    """Name -> (in, out) of every Linear of the 14B model, built without memory for its weights."""
    with torch.device("meta"):
        model = WanTransformer3DModel(**SHAPE_14B)
    assert sum(p.numel() for p in model.parameters()) == 16_394_878_784
    return {n: (m.in_features, m.out_features) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}


@pytest.mark.parametrize("targets", list(TargetSet))
def test_counts_at_the_shape_of_the_14b_model(targets: TargetSet, linears_14b: dict[str, tuple[int, int]]) -> None:
    hit = [size for name, size in linears_14b.items() if re.fullmatch(lora.target_pattern(targets), name)]
    assert len(hit) == layer_count(targets, 40)
    assert targets is not TargetSet.linear or len(hit) == len(linears_14b) == 488
    assert sum(rows + columns for rows, columns in hit) == PER_RANK_14B[targets]


@pytest.fixture()
def model() -> torch.nn.Module:
    return WanTransformer3DModel(**{**tiny.TRANSFORMER, "patch_size": (1, 2, 2)}).requires_grad_(False)


@pytest.mark.parametrize("targets", list(TargetSet))
def test_only_the_adapter_trains(model: torch.nn.Module, targets: TargetSet) -> None:
    parameters = lora.attach(model, LoraConfig(rank=2, targets=targets), seed=0)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in parameters}
    assert len(parameters) == 2 * layer_count(targets, 2)


def test_a_base_that_lacks_layers_of_the_set_is_refused(model: torch.nn.Module) -> None:
    block = model.blocks[0].attn2  # type: ignore[index,union-attr]
    block.add_k_renamed = block.add_k_proj
    del block.add_k_proj
    with pytest.raises(UserError, match=r"lora.targets=cross: 11 linear layers of this base match, 12 should"):
        lora.attach(model, LoraConfig(rank=2, targets=TargetSet.cross), seed=0)


def test_a_larger_rank_starts_as_the_smaller_one_plus_rows(model: torch.nn.Module) -> None:
    small = dict(lora.attach(model, LoraConfig(rank=2), seed=5))
    lora.detach(model)
    large = dict(lora.attach(model, LoraConfig(rank=8), seed=5))
    for name, parameter in small.items():
        if ".lora_A" in name:
            assert torch.equal(parameter, large[name][:2])
            assert parameter.abs().max() <= parameter.shape[1] ** -0.5 and parameter.abs().max() > 0
        else:
            assert parameter.eq(0).all()


def test_attaching_leaves_the_global_generator_alone(model: torch.nn.Module) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    lora.attach(model, LoraConfig(rank=2), seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_scale_of_each_rule() -> None:
    assert [LoraConfig(rank=r).scale for r in (1, 4, 64)] == [1, 1, 1]
    assert LoraConfig(rank=4, scaling=Scaling.constant, alpha=16).scale == 4
    assert LoraConfig(rank=4, scaling=Scaling.rslora, alpha=16).scale == 8
