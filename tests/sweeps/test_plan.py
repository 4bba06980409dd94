"""Identity, plan and ledger without torch or Ray."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import (
    DataConfig,
    Dtype,
    LoraConfig,
    Method,
    ModelConfig,
    SampleConfig,
    Scaling,
    ScoreConfig,
    TrainConfig,
    TrialConfig,
    ZeroConfig,
)
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec, resident_key
from sweeps.ledger import Ledger, check_schema, chosen_scores
from sweeps.plan import Plan, base_of, build_plan, frozen_of, identity, trial_spec

FINGERPRINTS = {"model": "m" * 64, "data": "d" * 64}


def trial_id(config: TrialConfig, fingerprints: dict[str, str] = FINGERPRINTS) -> str:
    return trial_spec(config, fingerprints).trial_id


def test_where_and_how_a_trial_runs_is_not_its_identity() -> None:
    same = [
        TrialConfig(),
        TrialConfig(data=DataConfig(path="/elsewhere")),
        TrialConfig(model=ModelConfig(path="/elsewhere")),
        TrialConfig(train=TrainConfig(micro_batch=1, checkpoint_every=3, gradient_checkpointing=True)),
        TrialConfig(score=ScoreConfig(tnv2="/elsewhere")),
        TrialConfig(zero=ZeroConfig(persistence_threshold=0)),
        TrialConfig(lora=LoraConfig(alpha=99)),  # alpha_equals_rank never reads it
    ]
    assert len({trial_id(config) for config in same}) == 1


def test_everything_that_changes_the_result_is() -> None:
    other = [
        TrialConfig(),
        TrialConfig(seed=1),
        TrialConfig(lora=LoraConfig(rank=9)),
        TrialConfig(lora=LoraConfig(scaling=Scaling.constant)),
        TrialConfig(lora=LoraConfig(scaling=Scaling.constant, alpha=9)),
        TrialConfig(train=TrainConfig(learning_rate=2e-4)),
        TrialConfig(train=TrainConfig(shift=5)),
        TrialConfig(train=TrainConfig(deterministic=False)),
        base_of(TrialConfig()),
        base_of(TrialConfig(train=TrainConfig(deterministic=False))),
        TrialConfig(model=ModelConfig(dtype=Dtype.bfloat16)),
        TrialConfig(zero=ZeroConfig(stage=2)),
        TrialConfig(score=ScoreConfig(keep_first_frame=True)),
        TrialConfig(data=DataConfig(frames=21)),
    ]
    ids = [trial_id(config) for config in other] + [trial_id(TrialConfig(), {**FINGERPRINTS, "data": "e" * 64})]
    assert len(set(ids)) == len(ids)


def test_a_trial_without_clips_is_another_and_how_they_would_be_generated_does_not_count() -> None:
    assert "clips" not in identity(TrialConfig(), FINGERPRINTS)["config"]["sample"], "older trials keep their ids"
    without = TrialConfig(sample=SampleConfig(clips=False))
    assert trial_id(without) != trial_id(TrialConfig())
    assert trial_id(without) == trial_id(TrialConfig(sample=SampleConfig(clips=False, steps=40, guidance=5.0)))


def test_a_plan_says_where_its_bytes_are_equal_again() -> None:
    fast = TrialConfig(train=TrainConfig(deterministic=False))
    equal, mixed = (build_plan([(each, FINGERPRINTS) for each in some]) for some in ([TrialConfig()], [fast]))
    assert "on CPUs (float32) for the same kind of CPU, at any ZeRO stage" in equal.equal_again()
    assert "on GPUs for the same kind of GPU, ZeRO stage and number of workers" in equal.equal_again()
    assert "not on GPUs" in mixed.equal_again()


def test_the_base_is_planned_once_and_first() -> None:
    configs = [TrialConfig(lora=LoraConfig(rank=r), seed=s) for r in (4, 8) for s in (0, 1)]
    plan = build_plan([(config, FINGERPRINTS) for config in [*configs, configs[0]]])
    assert [spec.config.method for spec in plan.trials] == [Method.base] + [Method.lora] * 4
    zero = build_plan([(replace(config, zero=ZeroConfig(stage=2)), FINGERPRINTS) for config in configs])
    assert zero.trials[0].trial_id == plan.trials[0].trial_id, "the base does not train, so ZeRO is not part of it"
    assert Plan.from_json(plan.to_json()) == plan
    assert TrialSpec.from_json(plan.trials[1].to_json()) == plan.trials[1]


def test_the_frozen_first_frame_is_planned_once_and_last_and_follows_from_the_clips_alone() -> None:
    configs = [TrialConfig(lora=LoraConfig(rank=r), seed=s) for r in (4, 8) for s in (0, 1)]
    arm = (TrialConfig(arm="other clips"), {**FINGERPRINTS, "data": "e" * 64})
    plan = build_plan([*((config, FINGERPRINTS) for config in configs), arm], frozen=True)
    assert [spec.config.method for spec in plan.trials] == [Method.base] + [Method.lora] * 5 + [Method.frozen]
    assert plan.trials[:-1] == build_plan([*((config, FINGERPRINTS) for config in configs), arm]).trials
    other = replace(configs[0], sample=replace(configs[0].sample, seed=1, steps=3), first="a" * 12)
    found = trial_spec(frozen_of(other), {**FINGERPRINTS, "model": "f" * 64})
    assert found.trial_id == plan.trials[-1].trial_id
    data = replace(configs[0], data=DataConfig(frames=21))
    assert trial_spec(frozen_of(data), FINGERPRINTS).trial_id != plan.trials[-1].trial_id
    assert resident_key(plan.trials[-1]) == resident_key(plan.trials[0]), "a worker with the base scores it at once"


def test_ledger_reads_done_from_disk_alone(tmp_path: Path) -> None:
    ledger = Ledger(StudyFolder(tmp_path / "study"))
    plan = build_plan([(TrialConfig(lora=LoraConfig(rank=r)), FINGERPRINTS) for r in (4, 8)])
    ledger.open("test")
    ledger.write_plan(plan)
    assert [s.trial_id for s in ledger.pending(plan)] == [s.trial_id for s in plan.trials]
    write_json(ledger.folder.trial(plan.trials[1].trial_id).result, {})
    assert [s.trial_id for s in Ledger(ledger.folder).pending(ledger.plan())] == [
        plan.trials[0].trial_id, plan.trials[2].trial_id,
    ]  # fmt: skip


def test_two_drivers_on_one_study(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    with (
        Ledger(folder).locked(),
        pytest.raises(UserError, match=rf"the sweep of process {os.getpid()} on .* is running here"),
        Ledger(folder).locked(),
    ):
        pass


def test_folder_of_another_schema(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    write_json(folder.study, {"schema": 99, "name": "x"})
    with pytest.raises(UserError, match="schema 99, this program reads 1"):
        Ledger(folder).open("x")


def test_what_counts_as_enough_is_fixed_when_a_study_begins(tmp_path: Path) -> None:
    ledger = Ledger(StudyFolder(tmp_path / "study"))
    ledger.open("x", share=0.8)
    ledger.open("x", share=0.8)
    with pytest.raises(UserError, match="answer.share=0.9: this study began with 0.8"):
        ledger.open("x", share=0.9)
    write_json(ledger.folder.study, {"schema": 1, "name": "older"})
    ledger.open("x", share=0.9)


def test_the_scores_that_decide_are_fixed_when_a_study_begins(tmp_path: Path) -> None:
    ledger = Ledger(StudyFolder(tmp_path / "study"))
    ledger.open("x", scores=("fvd[i3d]", "heldout_loss"))
    assert chosen_scores(check_schema(ledger.folder)) == ("fvd[i3d]", "heldout_loss")
    ledger.open("x", scores=("fvd[i3d]", "heldout_loss"))
    with pytest.raises(UserError, match=r"answer.scores=auto: this study began with \['fvd\[i3d\]', 'heldout_loss'\]"):
        ledger.open("x")
    write_json(ledger.folder.study, {"schema": 1, "name": "older"})
    assert chosen_scores(check_schema(ledger.folder)) == ()
    ledger.open("x")
    with pytest.raises(UserError, match="this study began with auto"):
        ledger.open("x", scores=("heldout_loss",))
