"""Weight files: read without pickle and fitted to a net. Names and hashes: `cinelora/metrics/feature_nets.py`.

In: a path from the configuration. Out: its tensors, a frozen net.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from cinelora.core.cli import UserError

NAMES_SHOWN = 3  # of the tensors that do not fit


@dataclass(frozen=True)
class Loaded:
    """A net ready to run (eval mode, frozen, float32) and the SHA-256 of each file it came from, by role."""

    net: nn.Module
    sha256: dict[str, str] = field(default_factory=dict)


def read_tensors(net: str, path: Path, wrappers: Sequence[str] = (), prefixes: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or a PyTorch checkpoint, on the CPU.

    Of a nested checkpoint those under the first of `wrappers` that is there. `prefixes` are taken off the names, in
    order. Checkpoints are read with `weights_only`, so no code in them can run.
    UserError: neither format, or objects other than tensors, numbers, strings and containers.
    """
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:  # mapped, not read: a training checkpoint holds optimiser state several times the size of the weights
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"score.{net}={path}: not a file of tensors ({reason}); convert it to safetensors where you trust it"
        ) from error
    if not isinstance(held, Mapping):
        raise UserError(f"score.{net}={path}: holds a {type(held).__name__}, not named tensors")
    inner = next((held[name] for name in wrappers if name in held), held)
    tensors = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    for prefix in prefixes:
        consume_prefix_in_state_dict_if_present(tensors, prefix)
    return tensors


def fitted(
    name: str, path: Path, make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], unused: tuple[str, ...] = ()
) -> nn.Module:
    """The net that `make` builds with `tensors` as its weights: float32, eval mode, frozen, on the CPU.

    Tensors whose name starts with one of `unused` are left out. The global random generator stays where it is.
    UserError: a tensor is missing, unknown or of another shape.
    """
    with torch.device("meta"):  # shapes alone: no initial values to draw, nothing to hold twice
        net = make()
    wanted = net.state_dict()
    given = {key: value for key, value in tensors.items() if not key.startswith(unused)}
    # files older than PyTorch 0.4.1 lack the counter, which eval mode never reads and PyTorch then fills in
    missing = sorted(key for key in wanted.keys() - given.keys() if not key.endswith("num_batches_tracked"))
    faults = {
        "missing": missing,
        "unknown": sorted(given.keys() - wanted.keys()),
        "of another shape": sorted(k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape),
    }
    problems = [f"{len(keys)} {fault} ({', '.join(keys[:NAMES_SHOWN])})" for fault, keys in faults.items() if keys]
    if problems:
        raise UserError(f"score.{name}={path}: not the weights of {name}: tensors {'; '.join(problems)}")
    net.load_state_dict(given, assign=True)
    return net.float().eval().requires_grad_(False)
