"""Run a sweep, or only print what it would run.

    python -m launch.sweep +study=quick                                  laptop, minutes
    python -m launch.sweep --multirun lora.rank=4,8,16 seed=0,1          your grid
    python -m launch.sweep +study=quick plan_only=true                   nothing is started
    python -m launch.sweep +study=quick cluster.address=auto cluster.workers_per_trial=4 cluster.gpus_per_worker=1

In: Hydra overrides. Out: the study folder; one line for an error, with the nearest valid key where a key is unknown.
Exit status 0 all done, 1 a trial failed, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import fields, is_dataclass
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cinelora.core.cli import UserError, exit_status
from cinelora.core.config import StudyConfig, TargetSet
from cinelora.core.files import is_disk_full
from launch.launcher import TrialsFailed

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")
ConfigStore.instance().store(name="study_schema", node=StudyConfig)
for targets in TargetSet:  # lora=NAME
    ConfigStore.instance().store(group="lora", name=targets.value, node={"targets": targets.value})


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def _hydra_main(config: DictConfig) -> None:
    """Not called in a multirun, where our launcher starts the trials itself."""
    raise UserError("hydra.mode=RUN: use --multirun (the default), so that the trials go through the launcher")


def main() -> int:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors reach us instead of Hydra's own printing
    return exit_status(_sweep, stopped="stopped; the same command continues from the last checkpoints")


def _sweep() -> int:
    """Run Hydra. Raises UserError for whatever the user can mend: settings, files, the disk."""
    try:
        _hydra_main()
    except TrialsFailed:
        return 1  # the reasons were printed, one line each
    except (UserError, HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error
    except Exception as error:
        if not isinstance(error, OSError) and not is_disk_full(error):
            raise
        remedy = "; free some space and run the same command again" if is_disk_full(error) else ""
        raise UserError(f"{type(error).__name__}: {one_line(error)}{remedy}") from error
    return 0


def known_keys(owner: Any = None, prefix: str = "") -> list[str]:
    """Dotted names of every setting."""
    owner = StudyConfig() if owner is None else owner
    names = []
    for item in fields(owner):
        value = getattr(owner, item.name)
        nested = is_dataclass(value)
        names += known_keys(value, f"{prefix}{item.name}.") if nested else [f"{prefix}{item.name}"]
    return names


def one_line(error: BaseException) -> str:
    """The first line of the error and of its cause; an unknown key gets a suggestion."""
    first = [next(iter(str(each or "").strip().splitlines()), "") for each in (error, error.__cause__)]
    text = first[0] or type(error).__name__
    if first[1] and not isinstance(error, UserError):
        text += f": {first[1]}"
    missing = re.search(r"Could not find '([\w/]+)'", text) or re.search(r"In '[^']+': (Could not [^.]+)", text)
    options = re.search(r"Available options in '[^']+':\n((?:\t\S+\n?)+)", str(error))
    if missing and options:
        return f"{missing.group(1)}: no such option; there are {', '.join(options.group(1).split())}"
    key = re.search(r"Could not override '([\w.]+)'", text)
    if key is not None:
        if key.group(1) in known_keys():  # a mapping without entries yet
            return f"{key.group(1)}: to fill it write +{key.group(1)}={{...}}"
        near = difflib.get_close_matches(key.group(1), known_keys(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"settings are {', '.join(known_keys())}"
        return f"{key.group(1)}: unknown setting; {hint}"
    return text


if __name__ == "__main__":
    raise SystemExit(main())
