"""How large the frozen weights are, so that an update can be told relative to them.

In: the denoiser before an adapter is attached or a trainer shards it. Out: a JSON of layer -> Frobenius norm, once per
model and study; analysis then needs neither torch nor the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cinelora.core.records import write_json

DIGITS = 9  # significant; devices differ in later ones


def write_weight_norms(path: Path, transformer: Any) -> None:
    """Of every Linear; nothing where `path` is there, or the weights are not (sharded by ZeRO-3)."""
    layers = {
        name: module.weight for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)
    }
    if path.exists() or any(weight.numel() == 0 for weight in layers.values()):
        return
    norms = {name: torch.linalg.vector_norm(weight.detach(), dtype=torch.float64) for name, weight in layers.items()}
    write_json(path, {name: float(f"{float(norm):.{DIGITS}g}") for name, norm in sorted(norms.items())})
