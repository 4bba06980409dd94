"""Operations of the denoiser and cost of a trial, checked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.memory import CONFIG as WAN
from cinelora.core.config import (
    Checkpointing,
    ClusterConfig,
    DataConfig,
    Method,
    SampleConfig,
    TrainConfig,
    TrialConfig,
)
from launch.estimate import best_fitted
from sweeps.cost import (
    ATTENTION,
    LINEAR,
    Rates,
    Workload,
    assumed,
    fitted,
    forward_seconds,
    gpu_hours,
    training_seconds,
)
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
    assert SMALL.step(7, frozen=False) - SMALL.step(7) == SMALL.linear(7), "the gradient of the weights"
    assert SMALL.step(7) == 2 * SMALL.linear(7) + 3.5 * SMALL.attention(7)


@pytest.mark.parametrize(("frames", "petaflop"), [(17, 0.82), (33, 1.78), (49, 3.04), (81, 6.41)])
def test_operations_of_wan_14b_with_checkpointing(frames: int, petaflop: float) -> None:
    tokens, wan = DataConfig(frames=frames, height=480, width=832).video_tokens, Denoiser.of(WAN)
    assert (wan.step(tokens) + wan.forward(tokens)) / 1e15 == pytest.approx(petaflop, abs=0.005)


EAGER_STEP = {17: 2.07, 33: 4.19, 49: 6.85, 81: 13.35}  # s, one clip, all checkpointed; H100, docs/benchmarks.md
EAGER_PASS = {17: 1.10, 33: 2.23, 49: 3.62, 81: 6.78}  # s, two forward passes
FAST_STEP = {33: 2.797, 49: 4.722, 81: 9.397}  # compiled, self-attention kept
MEASUREMENTS = [
    *((frames, seconds, False, Checkpointing.all) for frames, seconds in EAGER_STEP.items()),
    *((frames, seconds, False, None) for frames, seconds in EAGER_PASS.items()),
    *((frames, seconds, True, Checkpointing.attention) for frames, seconds in FAST_STEP.items()),
    (81, 2 * 2.83, True, None),
]


@pytest.mark.parametrize(("frames", "seconds", "compiled", "kind"), MEASUREMENTS)
def test_times_measured_on_an_h100(frames: int, seconds: float, compiled: bool, kind: Checkpointing | None) -> None:
    tokens, wan = DataConfig(frames=frames, height=480, width=832).video_tokens, Denoiser.of(WAN)
    if kind is None:
        found = 2 * forward_seconds(wan, tokens, compiled)
    else:
        found = training_seconds(wan, tokens, compiled, kind, 0, frozen=True)
    assert found == pytest.approx(seconds, rel=0.03)


def test_what_is_computed_again() -> None:
    def seconds(kind: Checkpointing, blocks: int = 0, frozen: bool = True) -> float:
        return training_seconds(net, 7, False, kind, blocks, frozen)

    net = replace(SMALL, layers=4)
    forward, last = forward_seconds(net, 7, False), 4 * 2 * 7 * 2 * 3 / LINEAR
    none = seconds(Checkpointing.none)
    assert seconds(Checkpointing.all) - none == pytest.approx(forward)
    assert seconds(Checkpointing.all, blocks=1) - none == pytest.approx(forward / 4)
    kept = net.attention(7) / ATTENTION
    assert seconds(Checkpointing.attention) - none == pytest.approx(forward - kept - last)
    assert seconds(Checkpointing.none, frozen=False) - none == pytest.approx(net.linear(7) / LINEAR)


CONFIG = TrialConfig(
    data=DataConfig(frames=5, height=16, width=16),
    train=TrainConfig(steps=10, batch_size=4, heldout_every=5, heldout_windows=3),
    sample=SampleConfig(steps=8, guidance=5.0),
)
FINISHED = result(spec("base"))


def test_work_of_a_trial() -> None:
    forward, clip = forward_seconds(SMALL, 2, False), training_seconds(SMALL, 2, False, Checkpointing.none, 0, True)
    work = Workload.of(CONFIG, SMALL, clips=6, workers=2)
    curve = 3 * 3 * 5 * forward
    assert work.train == pytest.approx(10 * 4 * clip + curve), "steps, and the curve at 0, 5 and 10"
    assert work.evaluate == 6 * 5 * forward and work.generate == 6 * 8 * 2 * forward, "guidance runs twice"
    larger = Workload.of(replace(CONFIG, train=replace(CONFIG.train, batch_size=8)), SMALL, clips=6, workers=2)
    assert larger.step == 2 * work.step, "also of a small model"
    base = Workload.of(replace(CONFIG, method=Method.base), SMALL, clips=6, workers=1)
    assert base.train == 0 and base.generate == work.generate
    fewer = Workload.of(replace(CONFIG, sample=replace(CONFIG.sample, clips=False)), SMALL, clips=6, workers=2)
    assert fewer == replace(work, generate=0, clips=0, clip=0, silent=work.step / 2), "training and loss cost the same"


def test_silence_lasts_a_step_of_training_or_of_a_batch_of_clips() -> None:
    rates = Rates(train=50.0, evaluate=200.0, generate=100.0, score=0.5, rest=2.0)
    data, wan = DataConfig(frames=81, height=480, width=832), Denoiser.of(WAN)
    single = replace(CONFIG, data=data, sample=replace(CONFIG.sample, batch_size=1))
    work = Workload.of(single, wan, clips=6, workers=2)
    assert rates.silence(work) == work.step / 2 / 50.0
    many = replace(single, sample=replace(CONFIG.sample, batch_size=6))
    work = Workload.of(many, wan, clips=6, workers=2)
    passes = 6 * 2 * forward_seconds(wan, data.video_tokens, False)
    assert passes > work.step / 2 and rates.silence(work) == passes / 50.0


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
            "compiling": 0.75 * true.rest,
            "overhead": 0.25 * true.rest,
        }
        done.append((work, replace(FINISHED, seconds=seconds, restarts=0)))
    model = fitted(done)
    assert model is not None and model.trials == 3 and model.error == pytest.approx(0, abs=1e-12)
    for name in ("train", "evaluate", "generate", "score", "rest"):
        assert getattr(model.rates, name) == pytest.approx(getattr(true, name))
    assert model.rates.seconds(done[1][0]) == pytest.approx(sum(done[1][1].seconds.values()))
    again = [(work, replace(found, restarts=1)) for work, found in done]
    assert fitted(again) is None, "a restarted trial recorded its last run only"


def test_trials_without_clips_price_others_at_least() -> None:
    true = Rates(train=50.0, evaluate=200.0, generate=200.0, score=0.0, rest=2.0)
    work = Workload.of(replace(CONFIG, sample=replace(CONFIG.sample, clips=False)), SMALL, 6, 1)
    seconds = {
        "train": work.train / 50,
        "evaluate": work.evaluate / 200,
        "generate": 0.0,
        "score": 0.0,
        "overhead": 2.0,
    }
    model = fitted([(work, replace(FINISHED, seconds=seconds, restarts=0))])
    assert model is not None and not model.clips and model.rates.seconds(work) == pytest.approx(sum(seconds.values()))
    assert model.rates.generate == pytest.approx(true.generate), "the pace of the held-out loss, and no time to score"
    assert model.source == "fitted on 1 finished trials without clips: decoding and scoring them is not counted"
    other = replace(model, trials=1, clips=True)
    assert best_fitted(None, model, replace(other, trials=0)) is model and best_fitted(model, other) is other


def test_without_history_the_peak_is_assumed() -> None:
    model = assumed(ClusterConfig(device="A100"))
    assert model is not None and model.rates.train == pytest.approx(312 / 989) and model.trials == 0
    assert model.source == "no trial finished yet: speeds measured on an H100, scaled by the data sheet of A100"
    h100 = assumed(ClusterConfig(device="H100"))
    assert h100 is not None and h100.rates.train == 1 and h100.source.endswith("measured on an H100")


def test_hours() -> None:
    work = {name: Workload.of(CONFIG, SMALL, 6, workers) for name, workers in (("a", 1), ("b", 4))}
    assert gpu_hours({"a": 3600.0, "b": 1800.0}, work, gpus=2.0) == 2 + 4
    assert gpu_hours({"b": 1800.0}, work, gpus=0.0) == 2
