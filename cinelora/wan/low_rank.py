"""Updates of low rank by their factors alone: singular values, and the closest update of a smaller rank.

In: A (r, in) and B (out, r), of an adapter file or as arrays. Out: values (r,), or new factors. NumPy and safetensors
only. The update B A (out, in) is never formed: with B = Qb Rb and A^T = Qa Ra, the r x r matrix Rb Ra^T has its
singular values, and its singular vectors turned by Qb and Qa are those of B A.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cinelora.core.cli import UserError

Array = NDArray[np.float64]


def singular_values(a: Array, b: Array) -> Array:
    """Of B A, (r,), largest first; zero beyond what A and B can hold."""
    left, right = (np.asarray(np.linalg.qr(each, mode="r")) for each in (b, a.T))
    found = np.linalg.svd(left @ right.T, compute_uv=False)
    return np.concatenate([found, np.zeros(len(a) - len(found))])


def truncated(a: Array, b: Array, rank: int) -> tuple[Array, Array]:
    """(A', B') of shapes (rank, in) and (out, rank): no update of that rank is closer to B A (Eckart and Young 1936).

    The Frobenius error is the root of the sum of squares of the singular values left out. Each value is shared evenly
    by both factors, largest first, so a smaller rank takes their first rows and columns. 1 <= rank <= r.
    """
    if not 1 <= rank <= len(a):
        raise ValueError(f"rank {rank}: an update of rank {len(a)} can be truncated to 1..{len(a)}")
    (q_left, left), (q_right, right) = np.linalg.qr(b), np.linalg.qr(a.T)
    u, values, v = np.linalg.svd(left @ right.T, full_matrices=False)
    roots = np.sqrt(values[:rank])
    smaller_a, smaller_b = np.zeros((rank, a.shape[1])), np.zeros((len(b), rank))
    smaller_a[: len(roots)] = roots[:, None] * (v[:rank] @ q_right.T)
    smaller_b[:, : len(roots)] = (q_left @ u[:, :rank]) * roots
    return smaller_a, smaller_b


def read_factors(path: Path) -> Iterator[tuple[str, Array, Array]]:
    """(layer, A, B) of an adapter file by name, e.g. blocks.0.attn2.to_q. UserError: no file, or an A without its B."""
    if not path.is_file():
        raise UserError(f"{path}: missing; give the adapter of a finished trial")
    try:
        opened = safe_open(path, framework="np")
    except SafetensorError as error:
        raise UserError(f"{path}: is no complete safetensors file ({error}); copy it again") from error
    with opened as stream:
        names = set(stream.keys())
        for name in sorted(each for each in names if each.endswith(".lora_A.weight")):
            partner = name.replace(".lora_A.", ".lora_B.")
            if partner not in names:
                raise UserError(f"{path}: {name} has no {partner}; the file is incomplete; copy it again")
            a, b = (np.asarray(stream.get_tensor(each), dtype=np.float64) for each in (name, partner))
            yield name.removeprefix("transformer.").removesuffix(".lora_A.weight"), a, b
