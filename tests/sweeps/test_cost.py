"""Operations of the denoiser and cost of a trial, checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.memory import CONFIG as WAN
from cinelora.core.config import ClusterConfig, DataConfig, Method, SampleConfig, TrainConfig, TrialConfig
from sweeps.cost import Rates, Workload, assumed, fitted, gpu_hours
from sweeps.denoiser import Denoiser
from tests.analysis.paper_study import result, spec

# 2 wide, 3 in the feed-forward layers, a context of 5 tokens
SMALL = Denoiser.of({**WAN, "num_attention_heads": 1, "attention_head_dim": 2, "ffn_dim": 3, "num_layers": 1}, 3, 2)


def test_tokens() -> None:
    assert DataConfig(frames=81, height=480, width=832).video_tokens == 21 * 30 * 52
    assert DataConfig(frames=5, height=16, width=16).video_tokens == 2


def test_one_layer_by_hand() -> None:
    # per token: 6 square matrices (self q k v o, cross q o) of 4, up and down of 6 each: 36 products, two operations
    # each; keys and values of the context: 2 matrices of 4 on 5 tokens
    assert SMALL.linear(7) == 2 * 7 * 36 + 2 * 2 * 4 * 5
    # each of 7 queries meets 7 + 5 keys and values, 2 wide, twice (scores, sum), two operations
    assert SMALL.attention(7) == 7 * 12 * 2 * 2 * 2
    frozen, whole = SMALL.step(7, False, True), SMALL.step(7, False, False)
    assert whole - frozen == SMALL.linear(7), "the gradient of the weights"
    assert SMALL.step(7, True, True) - frozen == SMALL.forward(7), "checkpointing computes the forward again"


@pytest.mark.parametrize(("frames", "petaflop"), [(17, 0.82), (33, 1.78), (49, 3.04), (81, 6.41)])
def test_wan_14b_with_checkpointing(frames: int, petaflop: float) -> None:
    tokens = DataConfig(frames=frames, height=480, width=832).video_tokens
    assert Denoiser.of(WAN).step(tokens, True, True) / 1e15 == pytest.approx(petaflop, abs=0.005)


CONFIG = TrialConfig(
    data=DataConfig(frames=5, height=16, width=16),
    train=TrainConfig(steps=10, batch_size=4, heldout_every=5, heldout_windows=3),
    sample=SampleConfig(steps=8, guidance=5.0),
)
FINISHED = result(spec("base"))


def test_work_of_a_trial() -> None:
    forward = SMALL.forward(2)
    work = Workload.of(CONFIG, SMALL, clips=6, workers=2)
    assert work.train == SMALL.step(2, False, True) * 40 + 3 * 3 * 5 * forward, "steps, and the curve at 0, 5 and 10"
    assert work.evaluate == 6 * 5 * forward and work.generate == 6 * 8 * 2 * forward, "guidance runs twice"
    base = Workload.of(replace(CONFIG, method=Method.base), SMALL, clips=6, workers=1)
    assert base.train == 0 and base.generate == work.generate


def test_silence_lasts_a_step_of_training_or_of_a_batch_of_clips() -> None:
    rates = Rates(train=50.0, evaluate=200.0, generate=100.0, score=0.5, rest=2.0)
    single = replace(CONFIG, sample=replace(CONFIG.sample, batch_size=1))
    assert rates.silence(Workload.of(single, SMALL, clips=6, workers=2)) == SMALL.step(2, False, True) * 4 / 2 / 50.0
    many = replace(CONFIG, sample=replace(CONFIG.sample, batch_size=4))
    assert rates.silence(Workload.of(many, SMALL, clips=6, workers=2)) == 4 * 2 * SMALL.forward(2) / 50.0


def test_rates_are_found_again() -> None:
    """Trials that took exactly what rates say: the fit finds the rates and makes no error."""
    true = Rates(train=50.0, evaluate=200.0, generate=100.0, score=0.5, rest=2.0)
    done = []
    for steps, workers in ((10, 1), (20, 2), (40, 1)):
        work = Workload.of(replace(CONFIG, train=replace(CONFIG.train, steps=steps)), SMALL, 6, workers)
        seconds = {
            "train": work.train / true.train / workers,
            "evaluate": work.evaluate / true.evaluate / workers,
            "generate": work.generate / true.generate / workers,
            "score": 6 * true.score / workers,
            "overhead": true.rest,
        }
        done.append((work, replace(FINISHED, seconds=seconds, restarts=0)))
    model = fitted(done)
    assert model is not None and model.trials == 3 and model.error == pytest.approx(0, abs=1e-12)
    for name in ("train", "evaluate", "generate", "score", "rest"):
        assert getattr(model.rates, name) == pytest.approx(getattr(true, name))
    assert model.rates.seconds(done[1][0]) == pytest.approx(sum(done[1][1].seconds.values()))
    again = [(work, replace(found, restarts=1)) for work, found in done]
    assert fitted(again) is None, "a restarted trial recorded its last run only"


def test_without_history_the_peak_is_assumed() -> None:
    model = assumed(ClusterConfig(device="A100"))
    assert model is not None and model.rates.train == pytest.approx(312e12 * 0.35) and model.trials == 0
    assert "no trial measured yet" in model.source


def test_hours() -> None:
    work = {name: Workload.of(CONFIG, SMALL, 6, workers) for name, workers in (("a", 1), ("b", 4))}
    assert gpu_hours({"a": 3600.0, "b": 1800.0}, work, gpus=2.0) == 2 + 4
    assert gpu_hours({"b": 1800.0}, work, gpus=0.0) == 2
