"""Which trials a study consists of, and the identity of each. Standard library only.

In: configs, and content hashes ("fingerprints") of model, data and weights. Out: trials without duplicates, each base
model first. A trial's id is the hash of everything that changes its result: 12 hex digits. Paths, GPUs, gang size,
micro-batches, checkpoint intervals and tracking are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cinelora.core.config import LoraConfig, Method, Scaling, TrialConfig
from cinelora.core.files import content_hash
from cinelora.core.records import SCHEMA, TrialSpec, to_dict

DIGITS = 12


def identity(config: TrialConfig, fingerprints: dict[str, str]) -> dict[str, Any]:
    """What is hashed. Without training there is no seed; alpha counts only where it is read.

    A frozen first frame, as finished clips, follows from the clips and their scores alone.
    """
    settings = to_dict(config, identity_only=True)
    if not config.sample.clips:  # how they would be generated does not count
        settings["sample"] = {"clips": False}
    if not config.method.has_model:
        own = ("method", "data", "score", "clips_sha256", "clips_rank")
        settings = {name: settings[name] for name in own if name in settings}
        known = {name: digest for name, digest in fingerprints.items() if name not in ("model", "encoder")}
        return {"schema": SCHEMA, "config": settings, "fingerprints": known}
    if not config.method.trains:
        for name in ("zero", "seed", "train"):
            del settings[name]
        if not config.train.deterministic:  # it generates clips with these kernels, too
            settings["train"] = {"deterministic": False}
    if not config.method.adapts:
        del settings["lora"]
    elif config.lora.scaling is Scaling.alpha_equals_rank:
        del settings["lora"]["alpha"]
    return {"schema": SCHEMA, "config": settings, "fingerprints": fingerprints}


def trial_spec(config: TrialConfig, fingerprints: dict[str, str]) -> TrialSpec:
    return TrialSpec(content_hash(identity(config, fingerprints), DIGITS), config, fingerprints)


@dataclass(frozen=True)
class Plan:
    """Trials in the order in which they are wanted; `clips`: what became of the files of each data set, a line each."""

    trials: tuple[TrialSpec, ...]
    clips: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"trials": [spec.to_json() for spec in self.trials], "clips": self.clips}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Plan:
        return Plan(tuple(TrialSpec.from_json(item) for item in data["trials"]), tuple(data.get("clips", ())))

    def equal_again(self) -> str:
        """A line: where the same trials, run again, give the same bytes."""
        on_gpus = "on GPUs for the same kind of GPU, ZeRO stage and number of workers (train.deterministic=true)"
        if not all(spec.config.train.deterministic for spec in self.trials):
            on_gpus = "not on GPUs, where they differ by rounding (train.deterministic=false)"
        on_cpus = "on CPUs (float32) for the same kind of CPU, at any ZeRO stage"
        return f"Run again, trials give the same bytes {on_cpus}, and {on_gpus}"

    def merged(self, other: Plan) -> Plan:
        """This plan followed by what `other` adds."""
        trials = {spec.trial_id: spec for spec in (*self.trials, *other.trials)}
        return Plan(tuple(trials.values()), tuple(dict.fromkeys((*self.clips, *other.clips))))


def base_of(config: TrialConfig) -> TrialConfig:
    """The config of the base, the row "rank 0", that this trial is compared with. A first stage stays under it."""
    own = replace(config, adapter="", adapter_sha256="", adapter_alpha=0.0, trainer="", training="", label="", notes="")
    own = replace(own, clips_folder="", clips_sha256="", clips_rank=-1)
    return replace(own, method=Method.base, seed=0, lora=LoraConfig())


def frozen_of(config: TrialConfig) -> TrialConfig:
    """The config of the frozen first frame of this trial's clips. It keeps what `resident_key` reads of the others, so
    that their workers score it without loading anything."""
    return replace(base_of(config), method=Method.frozen, first="", model=replace(config.model, sequence_workers=1))


def build_plan(configs: Iterable[tuple[TrialConfig, dict[str, str]]], frozen: bool = False) -> Plan:
    """Plan from (config, fingerprints): every base once and first, then each distinct trial in order.

    A control arm is compared with the sweep's own base, finished clips with that of the other trials or the one of rank
    0 among them. Before them all come the first stages that others need; after
    them all, where wanted, the `frozen` first frame.
    """
    wanted = list(configs)
    based = [each for each in wanted if not each[0].arm and each[0].method is not Method.clips]
    bases = [trial_spec(base_of(config), fingerprints) for config, fingerprints in based]
    trials = [trial_spec(config, fingerprints) for config, fingerprints in wanted]
    firsts = {spec.config.first for spec in trials}
    stills = [trial_spec(frozen_of(config), fingerprints) for config, fingerprints in wanted if not config.arm]
    ordered = [*(spec for spec in trials if spec.trial_id in firsts), *bases, *trials, *(stills if frozen else ())]
    return Plan(tuple({spec.trial_id: spec for spec in ordered}.values()))
