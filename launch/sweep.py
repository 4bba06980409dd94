"""Run a sweep, or only print what it would run.

    python -m launch.sweep +study=quick                                  laptop, minutes
    python -m launch.sweep --multirun lora.rank=4,8,16 seed=0,1          your grid
    python -m launch.sweep +study=quick plan_only=true                   nothing is started
    python -m launch.sweep +study=quick cluster.address=auto cluster.workers_per_trial=4 cluster.gpus_per_worker=1

In: Hydra overrides. Out: the study folder; one line for an error, with the nearest valid key where a key is unknown.
Exit status 0 all done, 1 a trial failed, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from cinelora.core.cli import UserError, exit_status
from cinelora.core.config import StudyConfig, TargetSet
from cinelora.core.files import check_writable, is_disk_full
from launch.launcher import PlanShown, TrialsFailed, known_keys, unknown_setting

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "conf")
FULL_ERROR = "HYDRA_FULL_ERROR"
ConfigStore.instance().store(name="study_schema", node=StudyConfig)
for targets in TargetSet:  # lora=NAME
    ConfigStore.instance().store(group="lora", name=targets.value, node={"targets": targets.value})


def _writable(folder: str) -> str:
    """Where Hydra writes its record of the sweep: a study can be planned with a cache that cannot be written."""
    try:
        check_writable("cache_dir", Path(folder))
    except UserError:
        temporary = TemporaryDirectory()
        atexit.register(temporary.cleanup)
        return temporary.name
    return folder


OmegaConf.register_new_resolver("writable", _writable, use_cache=True, replace=True)


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def _hydra_main(config: DictConfig) -> None:
    """Not called in a multirun, where our launcher starts the trials itself."""
    raise UserError("hydra.mode=RUN: use --multirun (the default), so that the trials go through the launcher")


def main() -> int:
    # Always on here; Hydra takes no overrides on both sides of it, and no other mode beside it.
    sys.argv = [item for item in sys.argv if item not in ("--multirun", "-m")]
    if os.environ.get(FULL_ERROR) == "1":  # the user wants to see all
        with suppress(PlanShown):
            _hydra_main()
        return 0
    os.environ[FULL_ERROR] = "1"  # let errors reach us instead of Hydra's own printing
    try:
        return exit_status(_sweep, stopped="stopped; the same command continues from the last checkpoints")
    finally:
        del os.environ[FULL_ERROR]


def _sweep() -> int:
    """Run Hydra. Raises UserError for whatever the user can mend: settings, files, the disk."""
    for item in sys.argv:
        if any("\ud800" <= letter <= "\udfff" for letter in item):  # bytes that are no text here
            raise UserError(f"{item}: not in UTF-8, as Ray needs it; rename the folder, or export LC_ALL=C.UTF-8")
    if any("hydra.sweeper.params=" in item for item in sys.argv):
        raise UserError(
            "hydra.sweeper.params: is for study files; here write the grid itself, e.g. lora.rank=4,8 seed=0,1"
        )
    try:
        _hydra_main()
    except PlanShown:
        return 0
    except TrialsFailed:
        return 1  # the reasons were printed, one line each
    except (UserError, HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(one_line(error)) from error
    except Exception as error:
        if not isinstance(error, OSError) and not is_disk_full(error):
            raise
        remedy = "; free some space and run the same command again" if is_disk_full(error) else ""
        raise UserError(f"{type(error).__name__}: {one_line(error)}{remedy}") from error
    return 0


def one_line(error: BaseException) -> str:
    """The first line of the error and of its cause, or a remedy for what Hydra is known to refuse."""
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark):
        return f"{mark.name} line {mark.line + 1}: {error.problem}; indent by spaces and quote odd values"
    first = [next(iter(str(each or "").strip().splitlines()), "") for each in (error, error.__cause__)]
    text = first[0] or type(error).__name__
    if first[1] and not isinstance(error, UserError):
        text += f": {first[1]}"
    lines = (read(text, str(error)) for read in (_missing_option, _unreadable_value, _unknown_key))
    return next((line for line in lines if line), text)


def _missing_option(text: str, whole: str) -> str | None:
    missing = re.search(r"Could not find '([\w/]+)'", text) or re.search(r"In '[^']+': (Could not [^.]+)", text)
    options = re.search(r"Available options in '[^']+':\n((?:\t\S+\n?)+)", whole)
    return f"{missing[1]}: no such option; there are {', '.join(options[1].split())}" if missing and options else None


def _unreadable_value(text: str, whole: str) -> str | None:
    if grid := re.match(r"Error merging override ([\w.]+)=\[(.*)\]: Value '\[", text):
        return f"{grid[1]}: [{grid[2]}] is read as one value; write a grid as text: {grid[2].replace(' ', '')}"
    if one := re.match(r"Error merging override ([\w.]+)=(.*): Invalid value assigned: \w+ is not a ListConfig", text):
        return f"{one[1]}: {one[2]} is read as a choice of the grid; write the list in brackets: {one[1]}=[A,B]"
    found = re.search(r"(?:LexerNoViableAltException: |Error parsing override ')([^'\n]+)", text)
    grammar = re.match(r"(no viable alternative|mismatched input|extraneous input|missing) ", text)  # no setting named
    if not (setting := found[1] if found else _unparsed() if grammar else ""):
        return None
    name, equals, value = setting.partition("=")
    if not equals:
        return f"{setting}: not a setting; write NAME=VALUE"
    remedy = f"write $HOME{value[1:]}" if value.startswith("~/") else f"quote it for Hydra: '{name}={_quoted(value)}'"
    return f"{setting}: this value cannot be read; {remedy}"


def _unparsed() -> str:
    """The first setting of the command line that Hydra's grammar does not take."""
    for item in sys.argv[1:]:
        try:
            OverridesParser.create().parse_override(item)
        except HydraException:
            return "" if item.startswith("-") else item
    return ""


def _quoted(value: str) -> str:
    """In quotes; of a list, the names that have brackets of their own."""
    if not re.fullmatch(r"\[.*\]", value):
        return f'"{value}"'
    names = [f'"{each}"' if "[" in each else each for each in value[1:-1].split(",")]
    return f"[{','.join(names)}]"


def _unknown_key(text: str, whole: str) -> str | None:
    file = re.match(r"In '(\S+)': \w+ raised while composing config", text)
    if file and (key := re.search(r"Key '\w+' not in '\w+'\n\s+full_key: (\S+)", whole)):
        if file[1].startswith(f"{key[1]}/"):
            return f"{file[1]}.yaml: its first line must be `# @package _global_`"
        return f"{file[1]}.yaml: {unknown_setting(key[1])}"
    key = re.search(r"Could not override '([\w.]+)'", text)
    if key is None:
        return None
    if key[1] in known_keys():  # a mapping without entries yet
        return f"{key[1]}: to fill it write +{key[1]}={{...}}"
    return unknown_setting(key[1])


if __name__ == "__main__":
    raise SystemExit(main())
