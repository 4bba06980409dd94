"""What PEFT was given for a LoRA file: rank, alpha and their exceptions, rsLoRA.

In: the metadata of a file, or PEFT's adapter_config.json beside it. Out: these settings by PEFT's names, or UserError
where they cannot be read, or say that the file is no plain LoRA of the base. Standard library only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError

PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
OTHER_BASE = re.compile("pissa|corda|olora|loftq|lora_ga|mica", re.IGNORECASE)  # starts that change the base's weights


def peft_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """From the metadata of diffusers (`transformer.lora_alpha`) or finetrainers, or from the file beside; {}: none."""
    found = {str(name).removeprefix("transformer."): value for name, value in _read(path, metadata).items()}
    for name in ("alpha_pattern", "rank_pattern"):
        if not isinstance(found.get(name) or {}, dict):
            raise UserError(f"{path}: its LoRA settings have {name}={found[name]}, no mapping; save it again")
    start = found.get("init_lora_weights")
    if found.get("use_dora"):
        raise UserError(f"{path}: its LoRA settings say use_dora, so it is more than a LoRA; give a plain LoRA")
    if isinstance(start, str) and OTHER_BASE.match(start):
        raise UserError(
            f"{path}: init_lora_weights={start} changed the base that it belongs to; "
            "save it with PEFT's path_initial_model_for_weight_conversion"
        )
    return found


def alpha_of(path: Path, layer: str, settings: Mapping[str, Any]) -> float | None:
    """As PEFT finds it, which matches the end of a layer's name."""
    if (whole := settings.get("lora_alpha")) is None:
        return None
    patterns: Mapping[str, Any] = settings.get("alpha_pattern") or {}
    try:
        fits = [value for name, value in patterns.items() if re.fullmatch(rf"(.*\.)?({name})", layer)]
    except re.error as error:
        raise UserError(f"{path}: its LoRA settings have no valid alpha_pattern ({error}); mend it") from error
    value = fits[0] if fits else whole
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{path}: its LoRA settings have alpha {value!r} for {layer}; write a number there")
    return float(value)


def check_rank(path: Path, layer: str, rank: int, settings: Mapping[str, Any]) -> None:
    """UserError where the settings are those of another file."""
    stated = settings.get("r")
    if stated is not None and stated != rank and not settings.get("rank_pattern"):
        raise UserError(
            f"{path}: its LoRA settings say r={stated}, {layer} has rank {rank}; give the file's own settings"
        )


def _read(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    beside = path.parent / PEFT_CONFIG
    try:
        texts = [metadata.get(name) for name in ("lora_adapter_metadata", "lora_config")]
        if path.name == PEFT_FILE and beside.is_file():
            texts.append(beside.read_text("utf-8"))
        found = json.loads(next(filter(None, texts), "{}"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its LoRA settings are no JSON ({error}); save it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: its LoRA settings are {type(found).__name__}, no mapping; save it again")
    return found
