"""How much of its rank an adapter uses: the singular values of each update, scale * B A, and their sums.

In: a trial's adapter file and its update scale, the norms of the base's weights. Out: `Spectrum` per layer; means per
row of the rank table as CSV. The dense update is never formed (`cinelora/wan/low_rank.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.study.files import Array, csv_text
from analysis.study.rows import Estimates, Row, RowKey
from cinelora.core.files import read_json
from cinelora.core.paths import ADAPTER_FILE
from cinelora.wan.low_rank import read_factors, singular_values

HEAD = ["row", "varies", "rank", "layers", "effective_rank", "stable_rank", "used_share", "update_norm"]
HEAD += ["relative_norm"]
ALL = "all"  # every layer of a row


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of one layer; `values` (r,), largest first. All zero for an adapter that has not left its start."""

    layer: str  # e.g. blocks.0.attn2.to_q
    values: Array
    weight_norm: float = math.nan  # of the frozen weight; NaN where no trial recorded it

    @property
    def norm(self) -> float:
        """Frobenius norm of the update."""
        return float(np.sqrt(np.square(self.values).sum()))

    @property
    def relative_norm(self) -> float:
        """Of the update over that of the weight it is added to."""
        return self.norm / self.weight_norm

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the values' shares, 1..r (Roy and Vetterli 2007); 0 without an update."""
        if not self.values.sum():
            return 0.0
        shares = self.values / self.values.sum()
        shares = shares[shares > 0]
        return float(np.exp(-(shares * np.log(shares)).sum()))

    @property
    def stable_rank(self) -> float:
        """Squared Frobenius norm over squared largest value, 1..r (Rudelson, Vershynin 2007); 0 without an update."""
        return float((self.norm / self.values[0]) ** 2) if self.values[0] else 0.0

    @property
    def kind(self) -> str:
        """The layer without its block: attn2.to_q; one outside the blocks as it is."""
        return self.layer.split(".", 2)[2] if self.layer.startswith("blocks.") else self.layer


def update_spectrum(layer: str, a: Array, b: Array, scale: float, weight_norm: float = math.nan) -> Spectrum:
    """Of scale * B A for A (r, in) and B (out, r)."""
    return Spectrum(layer, abs(scale) * singular_values(a, b), weight_norm)


def read_spectra(path: Path, scale: float, weight_norms: Mapping[str, float] | None = None) -> tuple[Spectrum, ...]:
    """Every layer of an adapter file, by name. UserError where an A has no B."""
    known = weight_norms or {}
    return tuple(update_spectrum(layer, a, b, scale, known.get(layer, math.nan)) for layer, a, b in read_factors(path))


def study_spectra(estimates: Estimates) -> dict[RowKey, tuple[Spectrum, ...]]:
    """Of all finished trials of each row with a rank whose adapter is on disk; rows without are left out."""
    study = estimates.study
    models = {trial.spec.trial_id: trial.spec.fingerprints["model"] for trial in study.trials}
    paths = {study.home(trial_id).folder.weight_norms(model): model for trial_id, model in models.items()}
    norms = {model: read_json(path) for path, model in paths.items() if path.exists()}

    def of_row(row: Row) -> tuple[Spectrum, ...]:
        places = {trial_id: study.trial_folder(trial_id).adapter / ADAPTER_FILE for trial_id in row.trial_ids}
        return tuple(
            each
            for trial_id, place in places.items()
            if place.exists()
            for each in read_spectra(place, row.scale, norms.get(models[trial_id]))
        )

    rows = {row.key: of_row(row) for row in estimates.rows if row.key.rank}
    return {key: found for key, found in rows.items() if found}


def kinds(found: Sequence[Spectrum]) -> list[str]:
    return sorted({each.kind for each in found})


def spectra_csv(estimates: Estimates, spectra: Mapping[RowKey, Sequence[Spectrum]]) -> str:
    """One line per row and kind of layer, means over layers and seeds; "all" is every layer of the row."""
    lines = []
    for row in (each for each in estimates.rows if each.key in spectra):
        found, rank = spectra[row.key], row.key.rank
        for kind in (ALL, *kinds(found)):
            means = _means([each for each in found if kind in (ALL, each.kind)], rank)
            lines.append({"row": row.name, "varies": row.series, "rank": rank, "layers": kind, **means})
    return csv_text(HEAD, lines, digits=6)


def _means(found: Sequence[Spectrum], rank: int) -> dict[str, float | None]:
    numbers = [
        (each.effective_rank, each.stable_rank, each.effective_rank / rank, each.norm, each.relative_norm)
        for each in found
    ]
    means = map(float, np.mean(numbers, axis=0))
    return {name: None if math.isnan(mean) else mean for name, mean in zip(HEAD[4:], means, strict=True)}
