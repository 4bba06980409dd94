"""What cannot be divided among workers is refused by the plan, with the nearest setting that can."""

from __future__ import annotations

from typing import Any

import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import ClusterConfig, DataConfig, Method, ModelConfig, TrainConfig, TrialConfig, ZeroConfig
from launch.preflight import check_denoiser, check_division

HEADS = {"num_attention_heads": 40}  # of the 14B model
WIDE = DataConfig(frames=81, height=720, width=1280)  # 21 x 45 x 80 = 75,600 tokens


def split(workers: int, **settings: Any) -> TrialConfig:
    return TrialConfig(**{"data": WIDE, "model": ModelConfig(sequence_workers=workers), **settings})


@pytest.mark.parametrize(
    ("sharers", "batch", "workers", "message"),
    [
        (3, 8, 8, r"^model\.sequence_workers=3: must divide cluster\.workers_per_trial=8; nearest is 2, or .*trial=9$"),
        (2, 8, 1, r"^model\.sequence_workers=2: must divide cluster\.workers_per_trial=1; nearest is 1, or .*trial=2$"),
        (2, 6, 8, r"^train\.batch_size=6: .* multiple of cluster\.workers_per_trial=8 / model\.sequence_workers=2; "),
        (1, 6, 8, r"^train\.batch_size=6: must be a multiple of cluster\.workers_per_trial=8; nearest is 8$"),
    ],
)
def test_workers_and_batch(sharers: int, batch: int, workers: int, message: str) -> None:
    trial = split(sharers, train=TrainConfig(batch_size=batch))
    with pytest.raises(UserError, match=message):
        check_division(trial, ClusterConfig(workers_per_trial=workers))


def test_a_batch_needs_to_divide_by_the_groups_alone() -> None:
    check_division(split(4, train=TrainConfig(batch_size=1)), ClusterConfig(workers_per_trial=4))
    cluster = ClusterConfig(workers_per_trial=3, workers_by_rank={8: 4})
    check_division(split(2, train=TrainConfig(batch_size=2)), cluster)
    with pytest.raises(UserError, match="workers_per_trial=3; nearest is 1"):
        check_division(split(2, method=Method.base), cluster)


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (split(16), r"sequence_workers=16: must divide the 40 attention heads and the 75600 .*=1280; nearest is 20$"),
        (split(3), r"nearest is 2$"),
        (split(2, data=DataConfig(frames=9, height=48, width=80)), r"the 45 tokens of .*width=80; nearest is 5$"),
        (
            split(8, data=DataConfig(frames=29, height=16, width=32), train=TrainConfig(stills=0.5)),
            r"sequence_workers=8: must divide the 2 tokens of a still; nearest is 2, or train\.stills=0$",
        ),
        (
            TrialConfig(model=ModelConfig(compile=True), zero=ZeroConfig(stage=3)),
            r"^model\.compile=true: not with zero\.stage=3, .*; take zero\.stage=2 or model\.compile=false$",
        ),
        (
            TrialConfig(model=ModelConfig(attention="sage")),
            r"^model\.attention=sage: no such backend, or none that trains",
        ),
    ],
)
def test_heads_tokens_and_options(trial: TrialConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_denoiser(trial, HEADS, here=False)


def test_what_can_be_passes() -> None:
    for sharers in (1, 2, 4, 5, 8, 10, 20, 40):
        check_denoiser(split(sharers), HEADS, here=False)
