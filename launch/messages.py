"""One clear line out of Hydra's and OmegaConf's many.

In: an exception. Out: what was wrong, with the nearest valid key where a key is unknown.
"""

from __future__ import annotations

import difflib
import errno
import re
from dataclasses import fields, is_dataclass
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import StudyConfig


class TrialsFailed(Exception):
    """Some trials ended without a result; the others are done."""


def is_disk_full(error: BaseException) -> bool:
    """Also where a library wraps it: safetensors raises its own class that only names the error's number."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return full or "os error 28" in str(error) or "No space left on device" in str(error)


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
    lines = [str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__]
    cause = error.__cause__
    if cause is not None and str(cause).strip() and not isinstance(error, UserError):
        lines.append(str(cause).strip().splitlines()[0])
    text = ": ".join(lines)
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
