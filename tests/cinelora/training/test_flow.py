"""Rectified flow checked by hand, and randomness as a function of its key."""

from __future__ import annotations

import math

import torch

from cinelora.core.config import Schedule, TimestepDistribution, TrainConfig
from cinelora.core.seeds import counter_seed, draw_noise, generator, window_indices
from cinelora.training import flow
from cinelora.training.loop import learning_rate


def test_interpolation_and_target() -> None:
    clean, noise = torch.full((2, 1, 1, 1, 1), 2.0), torch.full((2, 1, 1, 1, 1), 6.0)
    assert flow.noised(clean, noise, torch.tensor([0.0, 0.25])).flatten().tolist() == [2.0, 3.0]
    assert flow.velocity(clean, noise).flatten().tolist() == [4.0, 4.0]
    assert flow.sample_losses(torch.zeros(2, 1, 1, 1, 2), torch.full((2, 1, 1, 1, 2), 3.0)).tolist() == [9.0, 9.0]


def test_shift() -> None:
    assert flow.shift_time(0.5, 1.0) == 0.5
    assert flow.shift_time(0.5, 3.0) == 0.75
    assert (flow.shift_time(0.0, 5.0), flow.shift_time(1.0, 5.0)) == (0.0, 1.0)


def test_timestep_laws() -> None:
    uniform = TrainConfig(timestep=TimestepDistribution.uniform, shift=1.0)
    times = sorted(flow.draw_time(uniform, 0, step, 0) for step in range(2000))
    assert all(abs(t - (i + 0.5) / 2000) < 0.04 for i, t in enumerate(times))  # Kolmogorov distance
    normal = TrainConfig(timestep=TimestepDistribution.logit_normal, shift=1.0, logit_mean=0.5, logit_std=0.8)
    logits = [math.log(t / (1 - t)) for t in (flow.draw_time(normal, 0, step, 0) for step in range(2000))]
    mean = sum(logits) / 2000
    assert abs(mean - 0.5) < 0.06
    assert abs(math.sqrt(sum((x - mean) ** 2 for x in logits) / 1999) - 0.8) < 0.05


def test_draws_depend_on_their_key_alone() -> None:
    first = draw_noise((4,), 0, "noise", 3, 1)
    draw_noise((100,), 0, "noise", 4, 1)
    assert torch.equal(draw_noise((4,), 0, "noise", 3, 1), first)
    assert not torch.equal(draw_noise((4,), 1, "noise", 3, 1), first)
    assert counter_seed(1, "2") != counter_seed("1", 2) != counter_seed(12)
    assert generator(7).initial_seed() == counter_seed(7)


def test_every_window_once_per_epoch() -> None:
    dealt = [i for step in range(7) for i in window_indices(0, step, 5, 7)]  # 35 = 5 epochs of 7
    epochs = [dealt[i : i + 7] for i in range(0, 35, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert window_indices(0, 3, 5, 7) == window_indices(0, 3, 5, 7) != window_indices(1, 3, 5, 7)


def test_learning_rate_schedules() -> None:
    constant = TrainConfig(steps=10, learning_rate=1.0, warmup_steps=2)
    assert [learning_rate(constant, s) for s in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    linear = TrainConfig(steps=10, learning_rate=1.0, schedule=Schedule.linear)
    assert [learning_rate(linear, s) for s in (0, 5)] == [1.0, 0.5]
    cosine = TrainConfig(steps=10, learning_rate=1.0, schedule=Schedule.cosine)
    assert math.isclose(learning_rate(cosine, 5), 0.5)
