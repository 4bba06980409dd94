"""What fits which GPU, and the remedies where it does not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import (
    Checkpointing,
    ClusterConfig,
    DataConfig,
    Dtype,
    LoraConfig,
    ModelConfig,
    Offload,
    SampleConfig,
    StudyConfig,
    TargetSet,
    TrainConfig,
    TrialConfig,
)
from cinelora.wan.checkpoint import EXAMPLE, SHAPES
from launch.estimate import MARGIN, Demand, fastest_checkpointing, local_gpus, memory_lines, nearest, settle_gpus
from sweeps.denoiser import Denoiser

CONFIG = json.loads((SHAPES[EXAMPLE] / "transformer" / "config.json").read_text())
PARTS: dict[str, Any] = {
    "vae": {"base_dim": 96},
    "text_encoder": {
        "d_model": 4096, "num_heads": 64, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "vocab_size": 256384,
        "relative_attention_num_buckets": 32,
    },
    "image_encoder": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "image_size": 224, "patch_size": 14,
    },
}  # fmt: skip


def demand(
    frames: int = 81,
    checkpointing: bool = True,
    micro: int = 1,
    share: float = 1.0,
    height: int = 480,
    width: int = 832,
) -> Demand:
    config = TrialConfig(
        model=ModelConfig(dtype=Dtype.bfloat16, text_dtype=Dtype.bfloat16),
        data=DataConfig(frames=frames, height=height, width=width),
        lora=LoraConfig(rank=64, targets=TargetSet.cross),
        train=TrainConfig(batch_size=8, micro_batch=micro, gradient_checkpointing=checkpointing),
        sample=SampleConfig(batch_size=1, guidance=5.0),
    )
    return Demand(config, ClusterConfig(gpus_per_worker=share), Denoiser.of(CONFIG), PARTS, heldout=64, nets=0.0)


def study(device: str, gpus: float = 1.0) -> StudyConfig:
    return StudyConfig(cluster=ClusterConfig(device=device, gpus_per_worker=gpus))


def test_published_settings_fit_one_gpu() -> None:
    (line,) = memory_lines(study("A100"), [demand()])
    peaks = dict(re.findall(r"(\w[\w ]*) ([\d.]+)(?=[,;])", line.split(": ", 1)[1]))
    assert {"train", "step", "heldout", "generate", "decode", "encode text", "encode clips"} <= set(peaks)
    assert 50 < float(peaks["train"]) < 60 and line.endswith("; 77.0 available on A100")


@pytest.mark.parametrize(
    ("trial", "device", "remedy"),
    [
        (demand(checkpointing=False), "H100", {"train.checkpointing": Checkpointing.attention}),
        (demand(micro=8), "H100", {"train.micro_batch": 1}),
        (demand(checkpointing=False, micro=2), "H200", {"train.checkpointing": Checkpointing.attention}),
        (demand(share=0.5), "H100", {"cluster.gpus_per_worker": 1}),
        (demand(17), "A100-40", {"zero.stage": 3, "zero.offload": Offload.weights}),
        (demand(height=720, width=1280), "L40S", None),
    ],
)
def test_the_nearest_setting_that_fits(trial: Demand, device: str, remedy: dict[str, Any] | None) -> None:
    assert not trial.fits(device)
    found = nearest(device, trial)
    if remedy is not None:
        assert found == remedy
    assert found is not None
    changed = trial.changed(found)
    assert changed is not None and changed.fits(device)
    for name in found:
        fewer = trial.changed({other: value for other, value in found.items() if other != name})
        assert fewer is None or not fewer.fits(device), f"{name} is not needed"


def test_a_trial_that_cannot_fit_is_refused_in_one_line() -> None:
    with pytest.raises(UserError) as refused:
        memory_lines(study("H100"), [demand(17), demand(checkpointing=False)])
    text = str(refused.value)
    assert "\n" not in text and text.startswith("cluster.device=H100: rank 64 on cross, 81 frames of 832x480 need ")
    assert text.endswith("GiB in phase train, 77.0 available on H100; set train.checkpointing=attention")


@pytest.mark.parametrize(
    ("frames", "device", "compiled", "kind", "blocks"),
    [
        (81, "H100", True, Checkpointing.attention, 37),
        (81, "H100", False, Checkpointing.attention, 38),
        (17, "H200", True, Checkpointing.none, 0),
        (81, "", True, Checkpointing.all, 0),
        (81, "L40S", True, Checkpointing.all, 0),
    ],
)
def test_the_fastest_checkpointing_that_fits(
    frames: int, device: str, compiled: bool, kind: Checkpointing, blocks: int
) -> None:
    trial = demand(frames)
    trial = replace(trial, config=replace(trial.config, model=replace(trial.config.model, compile=compiled)))
    found = fastest_checkpointing(device, trial)
    assert found == (kind, blocks)
    if found[0] is Checkpointing.attention:
        more = trial.changed({"train.checkpointing": kind, "train.checkpointed_blocks": blocks - 1})
        assert more is not None and more.worst()[0] * MARGIN > more.available_gib(device), "no room for another block"


def test_two_trials_on_a_gpu_have_half_of_it() -> None:
    (line,) = memory_lines(study("H200", 0.5), [demand(17, share=0.5)])
    assert line.endswith("; 67.5 available on 0.5 of H200")


@pytest.mark.parametrize(("device", "gpus"), [("", 1.0), ("A100", 0.0)])
def test_without_a_known_gpu_nothing_is_refused(device: str, gpus: float) -> None:
    assert memory_lines(study(device, gpus), [demand(checkpointing=False)]) == []


def test_settings_that_cannot_be_divided_are_not_proposed() -> None:
    trial = demand(17)
    assert trial.changed({"cluster.workers_per_trial": 3}) is None, "8 windows on 3 workers"
    assert trial.changed({"model.sequence_workers": 2}) is None, "one worker"
    assert trial.changed({"zero.offload": Offload.weights}) is None, "stage 0"


def test_gpus_of_this_machine_are_those_that_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    found = {}
    for visible in (None, "1", "0,1,2", "", "-1"):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        found[visible] = local_gpus(tmp_path)
    assert found == {None: 2, "1": 1, "0,1,2": 2, "": 0, "-1": 0}


SMALL, FULL = ModelConfig(path="builtin:small"), ModelConfig(path="", hub="Wan-AI/Wan2.1")


@pytest.mark.parametrize(
    ("there", "models", "settings", "gpus"),
    [
        (0, [FULL], {}, 0),
        (2, [SMALL], {}, 0.25),
        (2, [SMALL, FULL], {}, 1),
        (2, [FULL], {"workers_per_trial": 4}, 1),  # refused for its nodes: nobody wants it on the CPU
        (2, [SMALL], {"workers_per_trial": 2}, 1),
        (2, [SMALL], {"workers_by_rank": {8: 4}}, 0),
        (2, [SMALL], {"workers_by_rank": {8: 1}}, 1),
    ],
)
def test_gpus_that_auto_takes(
    there: int, models: list[ModelConfig], settings: dict[str, Any], gpus: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.estimate.local_gpus", lambda: there)
    settled, lines = settle_gpus(ClusterConfig(gpus_per_worker="auto", **settings), models)
    assert settled == ClusterConfig(gpus_per_worker=gpus, **settings)
    assert [line.partition(",")[0] for line in lines] == [f"cluster.gpus_per_worker=auto: {gpus:g}"] * bool(there)


def test_gpus_of_this_machine_are_not_those_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.estimate.local_gpus", lambda: 2)
    assert settle_gpus(ClusterConfig(address="auto", gpus_per_worker="auto"), [SMALL])[0].gpus == 0
    typed = ClusterConfig(gpus_per_worker=0)
    assert settle_gpus(typed, [SMALL]) == (typed, ())
