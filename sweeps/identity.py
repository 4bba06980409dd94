"""A trial's identity: the hash of everything that changes its result, and of nothing else.

In: TrialConfig and content hashes of model, data and weights. Out: 12 hex digits.
Paths, GPUs, gang size, micro-batches, checkpoint intervals and tracking are not in it.
"""

from __future__ import annotations

from typing import Any

from cinelora.core.config import Method, Scaling, TrialConfig
from cinelora.core.records import SCHEMA, TrialSpec, content_hash, to_dict

DIGITS = 12


def identity(config: TrialConfig, fingerprints: dict[str, str]) -> dict[str, Any]:
    """What is hashed. The base has no adapter, no training and no seed; alpha counts only where it is read."""
    settings = to_dict(config, identity_only=True)
    if config.method is Method.base:
        for name in ("lora", "zero", "seed", "train"):
            del settings[name]
    elif config.method is Method.full:
        del settings["lora"]
    elif config.lora.scaling is Scaling.alpha_equals_rank:
        del settings["lora"]["alpha"]
    return {"schema": SCHEMA, "config": settings, "fingerprints": fingerprints}


def trial_spec(config: TrialConfig, fingerprints: dict[str, str]) -> TrialSpec:
    return TrialSpec(content_hash(identity(config, fingerprints), DIGITS), config, fingerprints)
