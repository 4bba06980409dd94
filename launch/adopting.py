"""The trials of `method=adapter`: one for each LoRA file that `adapters=` names, without training.

In: the trial's settings, the listed files, the config of the denoiser. Out: a config per file, whose rank and alpha
are those of the file. Loads no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinelora.adopt.listing import ListedAdapter, listed
from cinelora.adopt.read import Adapter, read_adapter
from cinelora.core.cli import UserError
from cinelora.core.config import UNKNOWN_SEED, TrialConfig

NAMED = 3  # files that a remark names
Facts = tuple[object, ...]


def adopted_trials(trial: TrialConfig, source: str, denoiser: Mapping[str, Any]) -> tuple[list[TrialConfig], list[str]]:
    """(configs, remarks). Raises UserError for a file that cannot be applied, and for two files of one content."""
    if not source:
        raise UserError("adapters=: method=adapter needs a folder of LoRA files, or a .csv or .yaml that lists them")
    for name in ("adapter", "adapter_sha256", "adapter_alpha"):
        if value := getattr(trial, name):
            raise UserError(f"{name}={value}: is filled in from the files; give them by adapters=")
    rows, remarks = listed(Path(source))
    read = [(row, _fitting(row, denoiser)) for row in rows]
    first: dict[tuple[str, float], ListedAdapter] = {}
    for row, adapter in read:
        twin = first.setdefault((adapter.sha256, adapter.stated_alpha), row)
        if twin is not row:
            raise UserError(f"adapters={source}: {twin.path} and {row.path} have one content; keep one of them")
    labels = _labels(read)
    trials = [
        replace(
            trial,
            adapter=str(row.path.resolve()),
            adapter_sha256=adapter.sha256,
            adapter_alpha=adapter.stated_alpha,
            trainer=row.trainer or trial.trainer,
            label=label or trial.label,
            notes=row.notes or trial.notes,
            lora=adapter.lora,
            seed=_seed(row, adapter),
        )
        for (row, adapter), label in zip(read, labels, strict=True)
    ]
    return trials, [*remarks, *_grouped(source, read, labels)]


def _fitting(row: ListedAdapter, denoiser: Mapping[str, Any]) -> Adapter:
    adapter = read_adapter(row.path, denoiser, row.alpha)
    ranks = sorted({each.rank for each in adapter.layers.values()})
    if row.rank is not None and [row.rank] != ranks:
        found = ", ".join(map(str, ranks))
        raise UserError(f"adapters={row.place}: rank={row.rank} is stated, the file has rank {found}; correct the row")
    return adapter


def _seed(row: ListedAdapter, adapter: Adapter) -> int:
    return next((seed for seed in (row.seed, adapter.seed) if seed is not None), UNKNOWN_SEED)


def _labels(read: list[tuple[ListedAdapter, Adapter]]) -> list[str]:
    """As stated. Files that no seed tells apart get their own names, so that each is a row of its own."""

    def facts(row: ListedAdapter, adapter: Adapter) -> Facts:
        lora = adapter.lora
        return lora.rank, lora.scale, lora.targets, row.trainer, row.label, _seed(row, adapter)

    counts = Counter(facts(*each) for each in read)
    clashing = {row.path for row, adapter in read if counts[facts(row, adapter)] > 1}
    stems = Counter(path.stem for path in clashing)
    names = {path: path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in clashing}
    return [" ".join(filter(None, (row.label, names.get(row.path)))) for row, _ in read]


def _grouped(source: str, read: list[tuple[ListedAdapter, Adapter]], labels: list[str]) -> Iterator[str]:
    """Each remark once, with the files it is about."""
    found: dict[str, list[str]] = {}
    for (row, adapter), label in zip(read, labels, strict=True):
        unknown = ["seed unknown: nothing is known of how another would differ"] * (_seed(row, adapter) < 0)
        split = ["others have its rank and seed: the row is labelled by the file"] * (label != row.label)
        layout = f"layout {adapter.layout}, {'/'.join(adapter.dtypes)}"
        for remark in (layout, *adapter.remarks, *unknown, *split):
            found.setdefault(remark, []).append(f"{row.path.parent.name}/{row.path.name}")
    for remark, names in found.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        yield f"adapters={source}: {remark} ({', '.join(names[:NAMED])}{more})"
