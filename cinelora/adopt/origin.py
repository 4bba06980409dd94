"""What the metadata of a LoRA file says of its training: seed, steps, epoch, learning rate, number of clips.

Names: `ss_*` of sd-scripts and musubi-tuner, which write them when they save; `training_info` of ai-toolkit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

# What it is -> the keys that hold it, the first that is there counts.
FACTS = {
    "steps": ("ss_steps", "step"),
    "epochs": ("ss_epoch", "epoch"),
    "learning rate": ("ss_learning_rate", "ss_unet_lr"),
    "training clips": ("ss_num_train_items", "ss_num_train_images"),
    "optimiser": ("ss_optimizer",),
}
NOTHING = ("", "None", "null")


def training_of(metadata: Mapping[str, str]) -> str:
    """e.g. `steps 1600, epochs 16, learning rate 0.0002`; "" where it says nothing."""
    known = {**_training_info(metadata), **metadata}
    said = {name: [known[key] for key in keys if known.get(key, "") not in NOTHING] for name, keys in FACTS.items()}
    return ", ".join(f"{name} {_shown(values[0])}" for name, values in said.items() if values)


def seed_of(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get("ss_seed", "")
    return int(text) if text.isdecimal() and len(text) < 19 else None  # below 2**63


def _shown(text: str) -> str:
    return "".join(mark if mark.isprintable() else "?" for mark in " ".join(text.split()))[:80]


def _training_info(metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        found = json.loads(metadata.get("training_info", "{}"))
    except ValueError:
        return {}
    return {name: str(found[name]) for name in ("step", "epoch") if name in found} if isinstance(found, dict) else {}
