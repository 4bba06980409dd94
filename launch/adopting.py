"""The trials without training: `method=adapter`, a LoRA file that `adapters=` names; `method=clips`, a folder of clips.

In: the trial's settings, the list, and the config of the denoiser or the held-out windows. Out: a config per file,
whose rank and alpha are those of the file, or per folder. Loads no torch.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinelora.adopt import clips
from cinelora.adopt.listing import CLIPS, Listed, listed
from cinelora.adopt.read import Adapter, read_adapter
from cinelora.core.cli import UserError
from cinelora.core.config import UNKNOWN_SEED, TrialConfig
from cinelora.data.windows import Window

NAMED = 3  # files that a remark names
Facts = tuple[object, ...]


def adopted_trials(trial: TrialConfig, source: str, denoiser: Mapping[str, Any]) -> tuple[list[TrialConfig], list[str]]:
    """(configs, remarks). Raises UserError for a file that cannot be applied, and for two files of one content."""
    if not source:
        raise UserError("adapters=: method=adapter needs a folder of LoRA files, or a .csv or .yaml that lists them")
    for name in ("adapter", "adapter_sha256", "adapter_alpha", "training"):
        if value := getattr(trial, name):
            raise UserError(f"{name}={value}: is filled in from the files; give them by adapters=")
    rows, remarks = listed(Path(source))
    read = [(row, _fitting(row, denoiser)) for row in rows]
    first: dict[tuple[str, float], Listed] = {}
    for row, adapter in read:
        twin = first.setdefault((adapter.sha256, adapter.stated_alpha), row)
        if twin is not row:
            raise UserError(f"adapters={source}: {twin.path} and {row.path} have one content; keep one of them")
    labels = _labels(read)
    trials = [
        replace(
            trial,
            adapter=os.path.abspath(row.path),
            adapter_sha256=adapter.sha256,
            adapter_alpha=adapter.stated_alpha,
            trainer=row.trainer or trial.trainer,
            training=adapter.training,
            label=label or trial.label,
            notes=row.notes or trial.notes,
            lora=adapter.lora,
            seed=_seed(row, adapter),
        )
        for (row, adapter), label in zip(read, labels, strict=True)
    ]
    return trials, [*remarks, *_grouped(source, read, labels)]


def _fitting(row: Listed, denoiser: Mapping[str, Any]) -> Adapter:
    adapter = read_adapter(row.path, denoiser, row.alpha)
    ranks = sorted({each.rank for each in adapter.layers.values()})
    if row.rank is not None and [row.rank] != ranks:
        found = ", ".join(map(str, ranks))
        raise UserError(f"{row.place}: rank={row.rank} is stated, the file has rank {found}; correct the row")
    return adapter


def _seed(row: Listed, adapter: Adapter) -> int:
    return next((seed for seed in (row.seed, adapter.seed) if seed is not None), UNKNOWN_SEED)


def _labels(read: list[tuple[Listed, Adapter]]) -> list[str]:
    """As stated. Files that no seed tells apart get their own names, so that each is a row of its own."""

    def facts(row: Listed, adapter: Adapter) -> Facts:
        lora = adapter.lora
        return lora.rank, lora.scale, lora.targets, row.trainer, row.label, _seed(row, adapter)

    counts = Counter(facts(*each) for each in read)
    clashing = {row.path for row, adapter in read if counts[facts(row, adapter)] > 1}
    stems = Counter(path.stem for path in clashing)
    above = os.path.commonpath([path.parent for path in clashing]) if clashing else ""
    longer = {path: path.relative_to(above).with_suffix("").as_posix() for path in clashing}
    names = {path: path.stem if stems[path.stem] == 1 else longer[path] for path in clashing}
    return [" ".join(filter(None, (row.label, names.get(row.path)))) for row, _ in read]


def _grouped(source: str, read: list[tuple[Listed, Adapter]], labels: list[str]) -> Iterator[str]:
    """Each remark once, with the files it is about."""
    found: dict[str, list[str]] = {}
    for (row, adapter), label in zip(read, labels, strict=True):
        unknown = ["seed unknown: nothing is known of how another would differ"] * (_seed(row, adapter) < 0)
        split = ["others have its rank and seed: the row is labelled by the file"] * (label != row.label)
        layout = f"layout {adapter.layout}, {'/'.join(adapter.dtypes)}"
        said = [f"its metadata says: {adapter.training}"] * bool(adapter.training)
        for remark in (layout, *said, *adapter.remarks, *unknown, *split):
            found.setdefault(remark, []).append(f"{row.path.parent.name}/{row.path.name}")
    for remark, names in found.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"adapters={source}: {remark} ({', '.join(names[:NAMED])}{more})"


def clip_trials(trial: TrialConfig, source: str, windows: Sequence[Window]) -> tuple[list[TrialConfig], list[str]]:
    """(configs, remarks). Raises UserError for clips that are missing or of another form, and for rows that nothing
    tells apart."""
    if not source:
        raise UserError(f"clips=: method=clips needs a .csv or .yaml list of {', '.join(CLIPS.columns)}")
    for name, unset in (("clips_folder", ""), ("clips_sha256", ""), ("clips_rank", -1), ("training", "")):
        if (value := getattr(trial, name)) != unset:
            raise UserError(f"{name}={value}: is filled in from the table; give it by clips=")
    rows, remarks = listed(Path(source), CLIPS)
    trials: list[TrialConfig] = []
    seen: dict[Facts, str] = {}
    for row in rows:
        own, extra = _clip_trial(trial, row, windows)
        facts = (own.clips_rank, own.trainer, own.label, own.seed) if own.clips_rank else (0,)  # one base, of any name
        what_else = "the same rank, label and seed" if own.clips_rank else "rank 0, the base"
        for mark, what in (((own.clips_sha256,), "the same clips"), (facts, what_else)):
            if mark in seen:
                both = f"{seen[mark]} and {own.clips_folder}"
                raise UserError(f"{row.place}: {both} have {what}; keep one, or tell them apart")
            seen[mark] = own.clips_folder
        trials.append(own)
        remarks += [f"{row.place}: left out, of no held-out clip: {clips.some(extra)}"] * bool(extra)
    return trials, remarks


def _clip_trial(trial: TrialConfig, row: Listed, windows: Sequence[Window]) -> tuple[TrialConfig, list[str]]:
    """(config, clips that belong to no window) of a folder, of which each clip is decoded once."""
    if row.rank is None and not row.label:
        raise UserError(f"{row.place}: has neither rank nor label; state one (rank 0 is the base)")
    found, extra = clips.paired(row.path, windows)
    for clip in found.values():
        clips.check_form(clip, trial.data)
    own = replace(
        trial,
        clips_folder=str(row.path),
        clips_sha256=clips.content(found),
        clips_rank=-1 if row.rank is None else row.rank,
        trainer=row.trainer or trial.trainer,
        label=row.label or trial.label,
        notes=row.notes or trial.notes,
        seed=UNKNOWN_SEED if row.seed is None else row.seed,
    )
    return own, extra
