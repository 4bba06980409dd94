"""Whether every open trial fits the card it is planned for, told before anything starts, and what would make it fit.

In: a study's settings, its open trials, the configs of their base. Out: lines to read, or UserError naming the nearest
setting that fits. Without `cluster.device`, or on CPUs, nothing is told and nothing refused. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import Offload, TrialConfig
from cinelora.core.records import TrialSpec, read_json
from cinelora.core.studyconfig import StudyConfig
from cinelora.metrics.feature_nets import configured
from cinelora.wan.checkpoint import config_folder
from launch.engine.run import workers
from sweeps.cost import CARDS
from sweeps.encoderprint import encoding
from sweeps.flops import video_tokens
from sweeps.memory import Parts, Sizes, footprint, peak_gib

RESERVED_GIB = 2.0  # for the driver's context, cuBLAS, cuDNN, NCCL and the allocator's gaps; assumed
MOST_WORKERS = 8  # that a remedy asks for: one node
LEAST_FRAMES = 5
Overrides = dict[str, Any]  # "group.field" -> value, as typed on the command line


@dataclass(frozen=True)
class Place:
    """What a worker has: GiB of a card, and the share of it that is the worker's."""

    device: str
    share: float

    @property
    def gib(self) -> float:
        return CARDS[self.device].gib * self.share - RESERVED_GIB

    def __str__(self) -> str:
        return self.device if self.share == 1 else f"{self.share:.2g} of {self.device}"


@dataclass(frozen=True)
class Demand:
    """A trial as planned, with what its memory follows from."""

    config: TrialConfig
    workers: int
    share: float
    sizes: Sizes
    parts: dict[str, Any]  # configs of the other parts of the base
    heldout: int
    nets: float

    def phases(self) -> dict[str, Parts]:
        own = footprint(self.sizes, self.parts["vae"], self.config, self.workers, self.heldout, self.nets)
        return encoding(self.config, self.parts) | own

    def worst(self) -> tuple[float, str]:
        """(GiB, phase) of the highest peak."""
        return max((peak_gib(parts), phase) for phase, parts in self.phases().items())

    def fits(self, device: str) -> bool:
        return self.worst()[0] <= Place(device, self.share).gib

    def changed(self, overrides: Overrides) -> Demand | None:
        """With these settings; None where they contradict each other or cannot be shared out."""
        config, count, share = self.config, self.workers, self.share
        for name, value in overrides.items():
            group, field = name.split(".")
            if group == "cluster":
                count, share = (value, share) if field == "workers_per_trial" else (count, value)
                continue
            old = getattr(config, group)
            try:
                config = replace(config, **{group: replace(old, **{field: value})})
            except ValueError:
                return None
        sharers = config.model.sequence_workers
        whole = not count % sharers and not config.train.batch_size % max(1, count // sharers)
        tokens = not video_tokens(config.data) % sharers and not self.sizes.heads % sharers
        return replace(self, config=config, workers=count, share=share) if whole and tokens else None


def demand(study: StudyConfig, spec: TrialSpec, text_tokens: int, image_tokens: int, heldout: int) -> Demand:
    folder = config_folder(spec.config.model, Path(study.cache_dir))
    read = {name: read_json(folder / name / "config.json") for name in ("vae", "text_encoder", "image_encoder")}
    files = [Path(path) for path in configured(spec.config.score).values()]
    return Demand(
        config=spec.config,
        workers=workers(study.cluster, spec),
        share=min(1.0, study.cluster.gpus_per_worker),
        sizes=Sizes.of(read_json(folder / "transformer" / "config.json"), text_tokens, image_tokens),
        parts=read | {"image_encoder": read["image_encoder"].get("vision_config") or read["image_encoder"]},
        heldout=heldout,
        nets=float(sum(file.stat().st_size for path in files for file in (path, *path.rglob("*")) if file.is_file())),
    )


def memory_lines(study: StudyConfig, demands: Sequence[Demand]) -> list[str]:
    """What to print under the plan. Raises UserError if a trial cannot fit."""
    device = study.cluster.device
    if not demands or device not in CARDS or study.cluster.gpus_per_worker == 0:
        return []
    largest = max(demands, key=lambda each: each.worst()[0])
    if not largest.fits(device):
        raise UserError(_refusal(device, largest))
    peaks: dict[str, float] = {}
    for each in demands:
        for phase, parts in each.phases().items():
            peaks[phase] = max(peaks.get(phase, 0.0), peak_gib(parts))
    place = Place(device, largest.share)
    told = ", ".join(f"{phase} {gib:.1f}" for phase, gib in peaks.items())
    return [f"memory of a worker at its peak: {told} GiB, of {place.gib:.1f} that {place} leaves"]


def _refusal(device: str, largest: Demand) -> str:
    need, phase = largest.worst()
    place, config = Place(device, largest.share), largest.config
    what = f"rank {config.lora.rank} on {config.lora.targets.value}, {config.data.frames} frames of "
    what += f"{config.data.width}x{config.data.height}"
    text = f"cluster.device={device}: {what} need {need:.1f} GiB to {phase}, {place} leaves {place.gib:.1f}; "
    found = nearest(device, largest)
    if found is None:
        return f"{text}no setting of this trial fits, take a card with more memory"
    return text + "set " + " ".join(f"{name}={_typed(value)}" for name, value in found.items())


def _typed(value: Any) -> str:
    """As on the command line."""
    return str(getattr(value, "value", value)).lower()


def nearest(device: str, start: Demand) -> Overrides | None:
    """The fewest of the settings below, in their order, with which it fits; None if not even all of them are enough."""
    taken: Overrides = {}
    for option in _options(start):
        tried = taken | option
        changed = start.changed(tried)
        if changed is None:
            continue
        taken = tried
        if changed.fits(device):
            return _without_idle(device, start, taken)
    return None


def _options(start: Demand) -> Iterator[Overrides]:
    """From what costs time alone to what changes the clips."""
    config = start.config
    yield {"train.gradient_checkpointing": True, "train.checkpointed_blocks": 0}
    for name, size in (
        ("train.micro_batch", config.train.micro_batch),
        ("sample.batch_size", config.sample.batch_size),
    ):
        while size > 1:
            size //= 2
            yield {name: size}
    if config.sample.batched_guidance:
        yield {"sample.batched_guidance": False}
    if start.share < 1:
        yield {"cluster.gpus_per_worker": 1}
    yield {"zero.stage": max(1, config.zero.stage), "zero.offload": Offload.optimizer}
    yield {"zero.stage": 3, "zero.offload": Offload.weights}
    more = [count for count in (2, 4, 8) if start.workers < count <= MOST_WORKERS]
    for count in (start.workers, *more):
        yield {"zero.stage": 3, "cluster.workers_per_trial": count}
    for sharers in (2, 4, 8):
        if sharers > config.model.sequence_workers:
            yield {"model.sequence_workers": sharers}
    for frames in range(config.data.frames - 4, LEAST_FRAMES - 1, -4):
        yield {"data.frames": frames}


def _without_idle(device: str, start: Demand, taken: Overrides) -> Overrides:
    """Those settings without which it would not fit; what is as it was anyway is left out."""
    kept = dict(taken)
    for name in taken:
        fewer = {other: value for other, value in kept.items() if other != name}
        changed = start.changed(fewer)
        if changed is not None and changed.fits(device):
            kept = fewer
    return kept
