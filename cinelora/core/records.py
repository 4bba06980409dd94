"""The records of a trial and how they are written to disk. Standard library only.

In: facts of one trial. Out: JSON files that are whole or absent, readable without this program.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Self, get_args, get_type_hints

from cinelora.core.cli import UserError
from cinelora.core.config import TrialConfig
from cinelora.core.files import content_hash, read_json
from cinelora.core.paths import TrialFolder

SCHEMA = 1  # of a study folder; raised when old folders can no longer be read


def to_dict(config: Any, identity_only: bool = False) -> dict[str, Any]:
    """Nested plain dict of a config dataclass, enums by value.

    `identity_only` drops EXECUTION fields, and WHEN_SET fields at their default.
    """
    out: dict[str, Any] = {}
    for item in fields(config):
        if identity_only and item.metadata.get("identity") is False:
            continue
        value = getattr(config, item.name)
        if identity_only and item.metadata.get("identity") == "when set" and value == item.default:
            continue
        if is_dataclass(value):
            value = to_dict(value, identity_only)
        elif isinstance(value, Enum):
            value = value.value
        elif isinstance(value, list):
            value = list(value)
        out[item.name] = value
    return out


@cache
def _kinds(config: Any) -> dict[str, Any]:
    """The type of each field of a config dataclass; of `X | None`, X."""
    return {name: (get_args(hint) or (hint,))[0] for name, hint in get_type_hints(config).items()}


def from_dict(config: Any, data: dict[str, Any]) -> Any:
    """The inverse of `to_dict`, for the class `config`. Unknown keys raise TypeError."""
    values = dict(data)
    for name, kind in _kinds(config).items():
        if is_dataclass(kind):
            values[name] = from_dict(kind, data[name])
        elif isinstance(kind, type) and issubclass(kind, Enum) and data.get(name) is not None:
            values[name] = kind(data[name])
    return config(**values)


@dataclass(frozen=True)
class TrialSpec:
    """One trial to run. `trial_id` is the hash of `config` without EXECUTION fields and of `fingerprints`."""

    trial_id: str
    config: TrialConfig
    fingerprints: dict[str, str]  # content hashes: "model", "data", and one per weight file in use

    def to_json(self) -> dict[str, Any]:
        return {"trial_id": self.trial_id, "config": to_dict(self.config), "fingerprints": self.fingerprints}

    @staticmethod
    def from_json(data: dict[str, Any]) -> TrialSpec:
        return TrialSpec(data["trial_id"], from_dict(TrialConfig, data["config"]), dict(data["fingerprints"]))


class _Result:
    """A record whose JSON object has its fields as keys."""

    def to_json(self: Any) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**data)


@dataclass(frozen=True)
class TrialResult(_Result):
    """The record of a finished trial. Written last, so a trial with this record is complete."""

    trial_id: str
    method: str  # "base", "lora", "full", "adapter", "frozen" or "clips"
    arm: str  # name of a control; "" for the sweep itself
    rank: int  # 0 without adapter
    alpha: float  # 0 for the base
    scale: float  # what multiplied B A; 0 for the base
    scaling: str
    targets: str
    learning_rate: float
    seed: int
    steps: int  # optimiser steps done; 0 for the base
    trainable_parameters: int
    adapter_bytes: int
    adapter_sha256: str  # of the adapter tensors; "" for the base
    train_loss: float | None  # mean over the last tenth of the steps
    heldout_loss: float | None  # after the last step, all held-out windows, fixed timesteps and noise
    other_loss: float | None  # the same on the dataset's split "other": what was forgotten
    clips: int  # generated and scored; with sample.clips=false those of the held-out loss
    seconds: dict[str, float]  # train, generate, score, overhead
    seconds_per_step: float | None
    peak_memory_gib: float
    world_size: int
    restarts: int
    protocol: dict[str, dict[str, Any]]  # score name -> features, frames, fps, size, resize, first frame, hashes
    unavailable: dict[str, str]  # score name -> reason, e.g. "needs CLIP weights"
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


def read_trial(folder: TrialFolder) -> tuple[TrialSpec, TrialResult | None]:
    """(spec, result) of a trial, None while it has no result. UserError: no trial, damaged, or of another version."""
    if not folder.spec.is_file():
        raise UserError(f"{folder.root}: holds no spec.json; give the folder of a trial, STUDY/trials/ID")
    try:
        spec = TrialSpec.from_json(read_json(folder.spec))
        return spec, TrialResult.from_json(read_json(folder.result)) if folder.result.is_file() else None
    except (OSError, UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder.root}: its records are damaged or of another version ({error})") from error


@dataclass(frozen=True)
class TruncationResult(_Result):
    """The record of an adapter truncated to a smaller rank; written last."""

    trial_id: str  # of the adapter that was truncated
    adapter_sha256: str
    source_rank: int
    rank: int  # after truncation; `source_rank`: the untruncated adapter, as a check
    kept: float  # share of the squared norm of all updates together, 0..1
    heldout_loss: float
    scored: bool  # whether clips were generated and scored too
    schema: int = SCHEMA


def reference_key(spec: TrialSpec) -> str:
    """Key of the reference clips of a trial and of how they were scored: data, frames kept, feature weights."""
    used = {name: value for name, value in spec.fingerprints.items() if name not in ("model", "encoder")}
    return content_hash({"marks": used, "keep_first_frame": spec.config.score.keep_first_frame}, 12)


def resident_key(spec: TrialSpec) -> str:
    """Trials with equal keys may share what a worker keeps in memory: base model, VAE and feature nets.

    All that a trial leaves on them is in the key: the engine casts weights in place, ZeRO-3 leaves them partitioned,
    and compiled blocks stay compiled.
    """
    model = spec.config.model
    weights = {name: digest for name, digest in spec.fingerprints.items() if name != "data"}
    flags = {
        "compiled": model.compile,
        "short text": model.short_text,
        "fastest kernels": not spec.config.train.deterministic,
        "sharded": spec.config.zero.stage == 3,
    }
    names = [model.dtype.value, model.attention, *(name for name, on in flags.items() if on)]
    return " ".join([content_hash(weights, digits=16), *names])
