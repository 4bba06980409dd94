"""What an adapter uses of its rank: the singular values of each update, scale * B A, and what they sum to.

In: a trial's adapter file and its update scale. Out: `Spectrum` per layer; means per row of the rank table as CSV.
The dense update is never formed: with B = Qb Rb and A^T = Qa Ra its singular values are those of the r x r matrix
Rb Ra^T. NumPy and safetensors only.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from analysis.estimates import Estimates, Row
from analysis.load import Study
from cinelora.errors import UserError

Array = NDArray[np.float64]
ADAPTER_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of one layer; `values` (r,), largest first. All zero for an adapter that has not left its start."""

    layer: str  # e.g. blocks.0.attn2.to_q
    values: Array

    @property
    def norm(self) -> float:
        """Frobenius norm of the update."""
        return float(np.sqrt(np.square(self.values).sum()))

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
        """The layer without its block: attn2.to_q."""
        return self.layer.split(".", 2)[2]


def update_spectrum(layer: str, a: Array, b: Array, scale: float) -> Spectrum:
    """Of scale * B A for A (r, in) and B (out, r)."""
    left, right = (np.asarray(np.linalg.qr(each, mode="r")) for each in (b, a.T))
    small = left @ right.T
    values = np.zeros(len(a))
    found = abs(scale) * np.linalg.svd(small, compute_uv=False)
    values[: len(found)] = found
    return Spectrum(layer, values)


def read_spectra(path: Path, scale: float) -> tuple[Spectrum, ...]:
    """Every layer of an adapter file, by name. UserError where an A has no B."""
    with safe_open(path, framework="np") as stream:
        names = sorted(name for name in stream.keys() if name.endswith(".lora_A.weight"))  # noqa: SIM118
        out = []
        for name in names:
            partner = name.replace(".lora_A.", ".lora_B.")
            if partner not in set(stream.keys()):
                raise UserError(f"{path}: {name} has no {partner}; the file is not a whole adapter")
            a, b = (np.asarray(stream.get_tensor(each), dtype=np.float64) for each in (name, partner))
            layer = name.removeprefix("transformer.").removesuffix(".lora_A.weight")
            out.append(update_spectrum(layer, a, b, scale))
    return tuple(out)


def row_spectra(study: Study, row: Row) -> tuple[Spectrum, ...]:
    """Of all finished trials of a row whose adapter is on disk."""
    places = [study.folder.trial(trial_id).adapter / ADAPTER_FILE for trial_id in row.trial_ids]
    return tuple(each for place in places if place.exists() for each in read_spectra(place, row.scale))


def spectra_csv(study: Study, estimates: Estimates) -> str:
    """One line per row and kind of layer, means over layers and seeds; "all" is every layer of the row."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "varies", "rank", "layers", "effective_rank", "stable_rank", "used_share", "update_norm"])
    for row in (each for each in estimates.rows if each.key.rank):
        found = row_spectra(study, row)
        kinds = sorted({each.kind for each in found})
        for kind in ("all", *kinds) if found else ():
            of_kind = [each for each in found if kind in ("all", each.kind)]
            writer.writerow([row.name, row.series, row.key.rank, kind, *_means(of_kind, row.key.rank)])
    return stream.getvalue()


def _means(found: Iterable[Spectrum], rank: int) -> list[str]:
    numbers = np.array(
        [(each.effective_rank, each.stable_rank, each.effective_rank / rank, each.norm) for each in found]
    )
    return [f"{number:.6g}" for number in numbers.mean(axis=0)]
