"""Every shipped config composes into valid settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import launch.sweep  # noqa: F401  (registers the schema)
from cinelora.core.config import StudyConfig, TargetSet, TrialConfig
from cinelora.core.records import from_dict, to_dict
from launch.preflight import trial_config

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "study")
OPTIONS += [f"lora={targets.value}" for targets in TargetSet]
STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml"))


def composed(*overrides: str) -> StudyConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        tree = compose("config", list(overrides))
    study = OmegaConf.to_object(tree)
    assert isinstance(study, StudyConfig)
    return study


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes(option: str) -> None:
    group, name = option.split("=")
    study = composed(option)
    if group == "lora":
        assert study.lora.targets.value == name
    if group == "zero":
        assert f"stage{study.zero.stage}" == name


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_composes(study: str) -> None:
    assert composed(f"+study={study}").name == study


@pytest.mark.parametrize(
    ("overrides", "gpus"),
    [
        ([], "auto"),
        (["cluster=gpu", "cluster.gpus_per_worker=auto"], "auto"),
        (["cluster.gpus_per_worker=1"], 1),
        (["cluster.gpus_per_worker=0.25"], 0.25),
        (["cluster=gpu"], 1),
    ],
)
def test_gpus_are_a_number_or_auto(overrides: list[str], gpus: object) -> None:
    assert composed(*overrides).cluster.gpus_per_worker == gpus


def test_a_trial_survives_the_disk() -> None:
    trial = trial_config(composed("lora=block", "lora.scaling=rslora", "model.dtype=bfloat16", "train.betas=[0.8,0.9]"))
    assert from_dict(TrialConfig, to_dict(trial)) == trial


def test_a_rate_is_that_of_its_targets_then_of_its_rank() -> None:
    rates = ["++learning_rate_by_rank={4: 1e-2, 8: 3e-3}", "++learning_rate_by_targets={block: {4: 2e-3}}"]
    assert trial_config(composed(*rates, "lora.rank=4")).train.learning_rate == 1e-2
    assert trial_config(composed(*rates, "lora.rank=4", "lora=block")).train.learning_rate == 2e-3
    assert trial_config(composed(*rates, "lora.rank=8", "lora=block")).train.learning_rate == 3e-3
    assert trial_config(composed(*rates, "method=full", "train.learning_rate=5e-4")).train.learning_rate == 5e-4
