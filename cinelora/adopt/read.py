"""Reads a LoRA file of any trainer against one denoiser: every tensor is applied exactly, or the file is refused.

In: a safetensors file and the config of a denoiser. Out: an `Adapter`: rank and alpha of each layer, its layout, what
the file says of itself. Its factors come as float32, which holds bfloat16 and float16 exactly. Loads no torch.

diffusers' own converter is not used: it discards DoRA scales and changes of norms without an error, fails on a kohya
file that lacks a layer of a block and on alphas outside the blocks, and multiplies alpha into bfloat16 tensors.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cinelora.adopt.layouts import ALPHA, DOWN, UP, KeyReader, layout_name, linear_layers, other_kind
from cinelora.adopt.origin import seed_of, training_of
from cinelora.adopt.settings import alpha_of, check_rank, peft_settings
from cinelora.core.cli import UserError
from cinelora.core.config import LayerKind, LoraConfig, Scaling, TargetSet
from cinelora.core.files import file_sha256

Array = NDArray[np.float32]
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}  # some alphas are integers
PICKLES = (".pt", ".pth", ".ckpt", ".bin")
LFS = b"version https://git-lfs"  # how a pointer begins
MODELS = {1536: "Wan2.1 T2V 1.3B", 3072: "Wan2.2 TI2V 5B", 5120: "a Wan 14B model"}  # by width
_KINDS = {  # layer -> its kind, by the first that is in its name
    "attn1": LayerKind.self, "add_k": LayerKind.image, "add_v": LayerKind.image, "attn2": LayerKind.cross,
    "ffn": LayerKind.ffn, "": LayerKind.outer,
}  # fmt: skip


@dataclass(frozen=True)
class Factors:
    """The two tensors of a layer by their keys in the file, A (rank, in) and B (out, rank)."""

    down: str
    up: str
    rank: int
    alpha: float

    def scale(self, rslora: bool) -> float:
        """What multiplies B A."""
        return self.alpha / (self.rank**0.5 if rslora else self.rank)


@dataclass(frozen=True)
class Adapter:
    """A LoRA file that fits the denoiser. `remarks`: what its owner should know of it, a sentence each."""

    path: Path
    sha256: str
    layout: str
    dtypes: tuple[str, ...]
    layers: Mapping[str, Factors]  # by name in diffusers, sorted
    rslora: bool
    stated_alpha: float  # that was used since the file holds none; 0: it was not
    seed: int | None  # that it was trained with, where the file says so
    training: str  # what else of it the file says
    remarks: tuple[str, ...]
    _file: SafetensorsFile = field(repr=False)

    @property
    def uniform(self) -> bool:
        """Whether all layers have one rank and one alpha, as ours have."""
        return len({(each.rank, each.alpha) for each in self.layers.values()}) == 1

    @property
    def lora(self) -> LoraConfig:
        """Rank (that of most layers) and alpha, and the smallest target set that holds all layers.

        Where layers differ, scales are multiplied into B (`tensors`), which leaves a scale of 1.
        """
        ranks = Counter(each.rank for each in self.layers.values())
        rank = max(ranks, key=lambda rank: (ranks[rank], rank))
        alpha, scaling = next(iter(self.layers.values())).alpha, Scaling.constant
        if not self.uniform or (alpha == rank and not self.rslora):
            scaling, alpha = Scaling.alpha_equals_rank, LoraConfig.alpha
        elif self.rslora:
            scaling = Scaling.rslora
        return LoraConfig(rank=rank, scaling=scaling, alpha=alpha, targets=self.targets)

    @property
    def targets(self) -> TargetSet:
        kinds = {kind_of(layer) for layer in self.layers}
        return min((each for each in TargetSet if kinds <= each.layers), key=lambda each: len(each.layers))

    def tensors(self) -> Iterator[tuple[str, Array, Array]]:
        """(layer, A, B), float32, to be multiplied by the scale of `lora`."""
        for layer, each in self.layers.items():
            a, b = self._file.tensor(each.down), self._file.tensor(each.up)
            yield layer, a, b if self.uniform else np.float32(each.scale(self.rslora)) * b


def kind_of(layer: str) -> LayerKind:
    """self for blocks.3.attn1.to_q."""
    return next(kind for part, kind in _KINDS.items() if part in layer)


def _pickle(path: Path) -> UserError:
    return UserError(
        f"{path}: a pickle, which can run code when it is loaded; convert it where you trust it: "
        "safetensors.torch.save_file(torch.load(FILE, weights_only=True), OUT)"
    )


class SafetensorsFile:
    """Shapes, metadata and tensors of a file that is whole. UserError for any other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix.lower() in PICKLES:
            raise _pickle(path)
        if not path.is_file():
            raise UserError(f"{path}: missing; give a LoRA in a .safetensors file")
        try:
            with safe_open(path, framework="np") as stream:
                self.metadata: dict[str, str] = stream.metadata() or {}
        except (SafetensorError, OSError) as error:
            with open(path, "rb") as opened:
                head = opened.read(len(LFS))
            if head.startswith((b"PK\x03\x04", b"\x80")):
                raise _pickle(path) from error
            if head == LFS:
                raise UserError(f"{path}: a pointer of Git LFS and not the file; fetch it: git lfs pull") from error
            raise UserError(f"{path}: is no complete safetensors file ({error}); copy it again") from error
        with open(path, "rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            self._header: dict[str, Any] = json.loads(opened.read(size))
        self._start = 8 + size
        self._header.pop("__metadata__", None)
        self.shapes = {key: tuple(each["shape"]) for key, each in self._header.items()}
        if not self.shapes:
            raise UserError(f"{path}: holds no tensor; give a LoRA file")
        if odd := {each["dtype"] for each in self._header.values()} - DTYPES.keys():
            raise UserError(f"{path}: has tensors of {min(odd)}; give it in float32, bfloat16 or float16")

    def dtypes(self, keys: set[str]) -> tuple[str, ...]:
        return tuple(sorted({str(self._header[key]["dtype"]) for key in keys}))

    def tensor(self, key: str) -> Array:
        """As float32. UserError if a number in it is not finite."""
        entry = self._header[key]
        start, end = entry["data_offsets"]
        kind = np.dtype(DTYPES[entry["dtype"]])
        raw = np.fromfile(self.path, kind, (end - start) // kind.itemsize, offset=self._start + start)
        if entry["dtype"] == "BF16":
            raw = (raw.astype("<u4") << 16).view("<f4")
        if not np.isfinite(raw).all():
            raise UserError(f"{self.path}: {key} has NaN or infinite numbers; give a checkpoint from before that")
        return raw.astype(np.float32, copy=False).reshape(self.shapes[key])


def read_adapter(path: Path, denoiser: Mapping[str, Any], alpha: float | None = None) -> Adapter:
    """The file as an adapter of the denoiser with this config (`transformer/config.json`, or `transformer.config`).

    `alpha`: for files that do not hold theirs; one that differs from the file's raises UserError, as does a tensor that
    cannot be applied, a pair that lacks its partner, a shape that does not fit.
    """
    file, sizes = SafetensorsFile(path), linear_layers(denoiser)
    reader = KeyReader(sizes)
    read = {key: reader.read(key) for key in file.shapes}
    found: dict[str, dict[str, str]] = {}
    for key, name in read.items():
        if name is not None:
            if name.part in (parts := found.setdefault(name.layer, {})):
                raise UserError(f"{path}: {parts[name.part]} and {key} are one tensor; give a file with one adapter")
            parts[name.part] = key
    _check_shapes(file, found, sizes, denoiser)
    remarks = _check_others(file, [key for key, name in read.items() if name is None])
    config = peft_settings(path, file.metadata)
    rslora = bool(config.get("use_rslora"))
    layers = {layer: _factors(file, layer, parts, config, alpha) for layer, parts in sorted(found.items())}
    layouts = Counter(name.layout for name in read.values() if name is not None and name.part != ALPHA)
    stored = {parts[part] for parts in found.values() for part in (DOWN, UP)}
    remarks += _remarks(path, file.metadata, layers, denoiser["num_layers"])
    silent = config.get("lora_alpha") is None and not all(ALPHA in parts for parts in found.values())
    if silent and alpha is None:
        remarks.append(
            "no alpha in the file, or not of every layer: its scale is taken as 1; state alpha if another was used"
        )
    adapter = Adapter(
        path=path,
        sha256=file_sha256(path),
        layout=" and ".join(layout_name(each) for each, _ in layouts.most_common()),
        dtypes=file.dtypes(stored),
        layers=layers,
        rslora=rslora,
        stated_alpha=alpha if silent and alpha is not None else 0.0,
        seed=seed_of(file.metadata),
        training=training_of(file.metadata),
        remarks=(),
        _file=file,
    )
    if not sum(bool(a.any() and b.any()) for _, a, b in adapter.tensors()):  # reads all: that they are finite
        remarks.append("all zero: it changes nothing, and is the base once more")
    return replace(adapter, remarks=tuple(remarks))


def _factors(
    file: SafetensorsFile, layer: str, parts: dict[str, str], config: Mapping[str, Any], stated: float | None
) -> Factors:
    """Of one layer. Its alpha: from its own tensor, PEFT's settings, or as stated; without any, its rank."""
    rank = file.shapes[parts[DOWN]][0]
    check_rank(file.path, layer, rank, config)
    own = alpha_of(file.path, layer, config)
    if ALPHA in parts:
        if (shape := file.shapes[parts[ALPHA]]) not in ((), (1,)):
            raise UserError(f"{file.path}: {parts[ALPHA]} has shape {shape}, not one number; save it again")
        own = float(file.tensor(parts[ALPHA]).reshape(-1)[0])
    if own is not None and stated is not None and not math.isclose(own, stated):
        raise UserError(f"{file.path}: alpha={stated:g} is stated, the file has {own:g} ({layer}); remove the column")
    alpha = own if own is not None else stated if stated is not None else float(rank)
    if alpha <= 0:
        raise UserError(f"{file.path}: {layer} has alpha {alpha:g}, so the adapter changes nothing; save it again")
    return Factors(parts[DOWN], parts[UP], rank, alpha)


def _check_shapes(
    file: SafetensorsFile,
    found: Mapping[str, Mapping[str, str]],
    sizes: Mapping[str, tuple[int, int]],
    denoiser: Mapping[str, Any],
) -> None:
    """UserError where a tensor has no partner, or another shape than its layer."""
    for layer, parts in found.items():
        for part, partner in ((UP, DOWN), (DOWN, UP)):
            if part not in parts:
                there = parts.get(partner, parts.get(ALPHA, ""))
                raise UserError(f"{file.path}: {there} has no {partner_name(part)}; it is incomplete, copy it again")
        (inner, outer), down, up = sizes[layer], file.shapes[parts[DOWN]], file.shapes[parts[UP]]
        if len(down) == len(up) == 2 and (down[1], up[0]) == (inner, outer) and down[0] == up[1] > 0:
            continue
        there = f"{layer} has A {'x'.join(map(str, down))} and B {'x'.join(map(str, up))}"
        width = denoiser["num_attention_heads"] * denoiser["attention_head_dim"]
        own = down[1] if len(down) == 2 and layer.endswith("attn1.to_q") else None
        made = f"; it was made for {MODELS[own]}" if own in MODELS and own != width else ""
        needed = f"this base needs RANKx{inner} and {outer}xRANK"
        raise UserError(f"{file.path}: {there}, {needed}{made}; set model to the one it was trained on")


def partner_name(part: str) -> str:
    return {DOWN: "lora_A (lora_down)", UP: "lora_B (lora_up)"}[part]


def _check_others(file: SafetensorsFile, keys: list[str]) -> list[str]:
    """UserError for tensors that are no LoRA of a linear layer here; a remark for differences that are all zero."""
    zeros = [key for key in keys if re.search(r"\.diff(_[a-z]+)?$", key) and not file.tensor(key).any()]
    other = [key for key in keys if key not in set(zeros)]
    if not other:
        return [f"{len(zeros)} tensors of differences are all zero and change nothing ({zeros[0]})"] if zeros else []
    kinds: dict[str, list[str]] = {}
    for key in other:
        kinds.setdefault(other_kind(key) or "of no layer of this base", []).append(key)
    listed = "; ".join(f"{name}: {len(each)} ({each[0]})" for name, each in kinds.items())
    raise UserError(
        f"{file.path}: {len(other)} of {len(file.shapes)} tensors cannot be applied as a LoRA to this base: {listed}; "
        "give a plain LoRA of its linear layers"
    )


def _remarks(path: Path, metadata: Mapping[str, str], layers: Mapping[str, Factors], blocks: int) -> list[str]:
    """What the file seems to be for, and where it differs from one rank on all blocks."""
    found, ranks = [], Counter(each.rank for each in layers.values())
    if len(ranks) > 1:
        found.append("ranks " + ", ".join(f"{rank} ({count} layers)" for rank, count in sorted(ranks.items())))
    alphas = sorted({each.alpha for each in layers.values()})
    if len(alphas) > 1 and len(ranks) == 1:
        found.append(f"alphas {', '.join(f'{alpha:g}' for alpha in alphas)} in different layers")
    kinds = {kind_of(layer) for layer in layers}
    if LayerKind.cross in kinds and LayerKind.image not in kinds:
        found.append("nothing for the image branch: made for text-to-video or Wan2.2, or trained without it")
    own = {layer.split(".")[1] for layer in layers if layer.startswith("blocks.")}
    if own and len(own) < blocks:
        found.append(f"{len(own)} of {blocks} blocks")
    noise = re.search(r"(high|low)[-_ ]?noise", path.name, re.IGNORECASE)
    version = metadata.get("ss_base_model_version", "")
    if noise or "2.2" in version:
        said = f"its name says {noise[0]}" if noise else f"its metadata says {version}"
        found.append(f"{said}: half of a pair for Wan2.2, applied here at all noise levels")
    return found
