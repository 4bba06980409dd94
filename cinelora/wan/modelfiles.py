"""Whether a folder holds a Wan2.1 I2V checkpoint, and all of it. Standard library only: runs while planning.

In: a folder in diffusers layout. Out: what is wrong, as half a line, or None. No weight is read: the configs tell the
model, names and sizes of the files tell an interrupted download.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "image_encoder", "image_processor", "scheduler")
WEIGHTS = {  # part -> name of its weights, whole or as the index of its shards
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "image_encoder": "model.safetensors",
}
CONFIGS = {part: "config.json" for part in WEIGHTS} | {
    "scheduler": "scheduler_config.json",
    "image_processor": "preprocessor_config.json",
    "tokenizer": "tokenizer_config.json",
}
WANTED: dict[str, dict[str, Any]] = {  # what the configs of a Wan2.1 I2V model say; sizes are free
    "transformer": {"_class_name": "WanTransformer3DModel", "in_channels": 36, "out_channels": 16},
    "vae": {"_class_name": "AutoencoderKLWan", "z_dim": 16},
}
IMAGE_BRANCH = ("image_dim", "added_kv_proj_dim")
KNOWN_OTHERS: dict[object, str] = {16: ": a text-to-video model", 48: ": Wan2.2 TI2V"}  # by their channels
VOCABULARIES = ("tokenizer.json", "spiece.model")
HEADER_LENGTH = 8  # bytes; a safetensors file begins with the length of its JSON header
LARGEST_HEADER = 100_000_000  # bytes; the library's own limit


def incomplete(folder: Path) -> str | None:
    """The first thing that is not there or not whole; None where everything is."""
    if not folder.is_dir():
        return "no such folder"
    if missing := [part for part in PARTS if not (folder / part).is_dir()]:
        return f"{', '.join(missing)} missing"
    if missing := [f"{part}/{name}" for part, name in CONFIGS.items() if not (folder / part / name).is_file()]:
        return f"{', '.join(missing)} missing"
    if not any((folder / "tokenizer" / name).is_file() for name in VOCABULARIES):
        return f"tokenizer/{' or '.join(VOCABULARIES)} missing"
    return next((text for part in WEIGHTS for text in _faults(folder / part, WEIGHTS[part])), None)


def other_model(folder: Path) -> str | None:
    """Why this is not Wan2.1 I2V, told by whatever configs are there; None where nothing speaks against it."""
    if (folder / "transformer_2").is_dir():
        return "has a second transformer: this is Wan2.2, and Wan2.1 I2V is what is trained here"
    for part, wanted in WANTED.items():
        config = _config(folder / part / "config.json")
        for name, value in wanted.items():
            if config and (found := config.get(name)) != value:
                return f"{part} has {name} {found}, Wan2.1 I2V has {value}{KNOWN_OTHERS.get(found, '')}"
        if config and part == "transformer":
            if without := [name for name in IMAGE_BRANCH if config.get(name) is None]:
                return f"transformer has no {' and no '.join(without)}: no image branch, so not Wan2.1 I2V"
            if config.get("pos_embed_seq_len") is not None:
                return "transformer has pos_embed_seq_len: this model wants a first and a last frame, not one image"
    return None


def _config(path: Path) -> dict[str, Any]:
    """The config, or nothing where there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _faults(folder: Path, name: str) -> Iterator[str]:
    """What is wrong with the weights of one part, file by file."""
    index = folder / f"{name}.index.json"
    names = [name]
    if index.is_file():
        shards = _config(index).get("weight_map")
        if not isinstance(shards, dict):
            yield f"{folder.name}/{index.name} is no index of shards"
            return
        names = sorted(set(shards.values()))
    absent = [each for each in names if not (folder / each).is_file()]
    if absent:
        more = f" and {len(absent) - 1} more of {len(names)}" if len(absent) > 1 else ""
        only = "; only safetensors are read, no .bin" if any(folder.glob("*.bin")) else ""
        yield f"{folder.name}/{absent[0]}{more} missing{only}"
    for each in names:
        if (folder / each).is_file() and (text := _broken(folder / each)):
            yield f"{folder.name}/{each} {text}"


def _broken(path: Path) -> str | None:
    """By its header: whether the file ends where its last tensor does."""
    size = path.stat().st_size
    try:
        length, tensors = _header(path)
        whole = HEADER_LENGTH + length + max((each["data_offsets"][1] for each in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"is no safetensors file ({size} bytes: a pointer, or a download that was cut); remove it first"
    return None if size == whole else f"holds {size} of {whole} bytes; remove it first"


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """(bytes, tensors by name) of a safetensors header. Raises ValueError for another file."""
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(HEADER_LENGTH), "little")
        if not 0 < length <= LARGEST_HEADER:
            raise ValueError(f"{path}: no safetensors header")
        tensors = json.loads(stream.read(length))
    tensors.pop("__metadata__", None)
    return length, tensors


def weight_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it, of one part of a checkpoint that is whole."""
    name = WEIGHTS[folder.name]
    index = _config(folder / f"{name}.index.json").get("weight_map")
    return {key: folder / file for key, file in (index or dict.fromkeys(_header(folder / name)[1], name)).items()}
