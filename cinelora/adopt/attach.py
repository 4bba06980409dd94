"""A read adapter as the adapter of a trial: written once in the layout of our own, float32, and loaded like them.

In: an `Adapter`. Out: the adapter folder of a trial, which export, render and the report read as that of any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftConfig

from cinelora.adopt.read import Adapter
from cinelora.wan import lora


def save_as_own(folder: Path, adapter: Adapter) -> int:
    """Write the adapter file of a trial; returns the bytes of the folder."""
    return lora.save_adapter(folder, state_of(adapter), peft_settings(adapter))


def state_of(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Full tensors by parameter name, as training has them."""
    state = {}
    for layer, a, b in adapter.tensors():
        for part, tensor in (("A", a), ("B", b)):
            state[f"{layer}.lora_{part}.{lora.OWN}.weight"] = torch.from_numpy(tensor)
    return state


def peft_settings(adapter: Adapter) -> PeftConfig:
    """What PEFT is given to load it: the layers by name, and the ranks of those that differ."""
    own = adapter.lora
    settings: dict[str, Any] = lora.peft_config(own).to_dict()
    settings["target_modules"] = sorted(adapter.layers)
    others = {layer: each.rank for layer, each in adapter.layers.items() if each.rank != own.rank}
    names = {layer.replace(".", r"\."): rank for layer, rank in others.items()}  # PEFT reads regular expressions
    settings["rank_pattern"], settings["alpha_pattern"] = names, dict(names)  # a scale of 1
    return PeftConfig(**settings)
