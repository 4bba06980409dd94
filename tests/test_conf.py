"""Every shipped config composes into valid settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import launch.sweep  # noqa: F401  (registers the schema)
from cinelora.config import StudyConfig
from cinelora.records import to_dict, trial_from_dict
from launch.preflight import trial_config

CONF = Path(__file__).parents[1] / "conf"
OPTIONS = sorted(f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "study")
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


def test_a_trial_survives_the_disk() -> None:
    trial = trial_config(composed("lora=block", "lora.scaling=rslora", "model.dtype=bfloat16", "train.betas=[0.8,0.9]"))
    assert trial_from_dict(to_dict(trial)) == trial
