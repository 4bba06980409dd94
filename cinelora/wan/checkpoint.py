"""Where the frozen base lies, whether its files are complete, and the hash of their content. Loads no torch.

In: ModelConfig. Out: a folder in diffusers layout, or a UserError that says how to fetch it. No weight is read: the
configs identify the model, and names and sizes of the weight files show an interrupted download.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cinelora.core.cli import UserError
from cinelora.core.config import ModelConfig
from cinelora.core.records import TrialSpec
from cinelora.wan import tiny

BUILTIN = "builtin:"
EXAMPLE = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
ASSETS = Path(__file__).resolve().parents[2] / "assets"
TINY = "tiny"
SHIPPED = {"small": ASSETS / "wan-small"}  # in the repository
SHAPES = {hub: ASSETS / "wan21-i2v-14b" for hub in (EXAMPLE, EXAMPLE.replace("480P", "720P"))}  # configs, no weights
WHOLE_FILE = 64 * 2**20  # bytes; larger weight files are hashed by size, header and evenly spaced blocks
BLOCK = 2**20
WEIGHTS = {  # part -> its weight file; the index of shards has the same name and .index.json
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
EXPECTED: dict[str, dict[str, Any]] = {  # in the configs of a Wan2.1 I2V model; sizes are free
    "transformer": {"_class_name": "WanTransformer3DModel", "in_channels": 36, "out_channels": 16},
    "vae": {"_class_name": "AutoencoderKLWan", "z_dim": 16},
}
IMAGE_BRANCH = ("image_dim", "added_kv_proj_dim")
KNOWN_OTHERS: dict[object, str] = {16: ": a text-to-video model", 48: ": Wan2.2 TI2V"}  # by number of channels
VOCABULARIES = ("tokenizer.json", "spiece.model")


def model_folder(config: ModelConfig, cache_dir: Path) -> Path:
    """The folder of `config.path`, or where the hub's own cache has `config.hub`; a built-in is written on first use.

    Nothing is downloaded. UserError: the checkpoint is absent, incomplete, or of another model.
    """
    if config.path.startswith(BUILTIN):
        name = config.path.removeprefix(BUILTIN)
        if name != TINY and name not in SHIPPED:
            known = ", ".join([*SHIPPED, TINY])
            raise UserError(f"model.path={config.path}: no such built-in model; there are {known}")
        return tiny.ensure(cache_dir) if name == TINY else SHIPPED[name]
    folder = Path(config.path) if config.path else _hub_folder(config)
    place = f"model.path={folder}" if config.path else f"model.hub={config.hub} in {folder}"
    if (text := other_model(folder)) is not None:
        raise UserError(f"{place}: {text}; give a folder like that of {fetching(EXAMPLE)}")
    if (text := incomplete(folder)) is not None:
        raise UserError(f"{place}: {text}; fetch: {fetching(config.hub or EXAMPLE, config.revision, config.path)}")
    return folder


def config_folder(config: ModelConfig, cache_dir: Path) -> Path:
    """Where the configs of a model lie: `model_folder`, or the published configs of a hub model that is not here.

    Enough to plan with, not to run. Raises UserError as `model_folder` where no configs are known.
    """
    try:
        return model_folder(config, cache_dir)
    except UserError:
        if config.path or config.hub not in SHAPES:
            raise
        return SHAPES[config.hub]


def fetching(hub: str, revision: str = "", path: str = "") -> str:
    """The command that fetches a checkpoint, or what is missing of it, into a folder or the hub's cache."""
    pinned = f" --revision {revision}" if revision else ""
    return f"hf download {hub}{pinned}" + (f" --local-dir {shlex.quote(str(path))}" if path else "")


def _hub_folder(config: ModelConfig) -> Path:
    """The snapshot that `hf download` left in its cache (HF_HOME), perhaps in part."""
    if not config.hub:
        raise UserError("model.path=: give a folder in diffusers layout, or model.hub=OWNER/NAME that is in its cache")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(config.hub, revision=config.revision or None, local_files_only=True))
    except LocalEntryNotFoundError as error:
        command = fetching(config.hub, config.revision)
        raise UserError(
            f"model.hub={config.hub}: not in the hub's cache; fetch: {command}; or have it elsewhere: model.path=FOLDER"
        ) from error


def model_fingerprint(folder: Path, revision: str) -> str:
    """SHA-256 over revision, file names, small files whole and large files by size, header and sampled blocks.

    Hashing 33 GB at every plan would take minutes; 17 blocks of 1 MiB a file distinguish checkpoints.
    """
    digest = hashlib.sha256(revision.encode())
    for path in sorted(p for part in CONFIGS for p in (folder / part).rglob("*") if p.is_file()):
        size = path.stat().st_size
        digest.update(f"\n{path.relative_to(folder).as_posix()}:{size}\n".encode())
        with open(path, "rb") as stream:
            if size <= WHOLE_FILE:
                digest.update(stream.read())
                continue
            for block in range(17):
                stream.seek(block * (size - BLOCK) // 16)
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()


def base_folder(spec: TrialSpec, cache: Path, base: str) -> Path:
    """The base that the trial was trained on, at `base` or where it was then. Raises UserError for another base."""
    model = replace(spec.config.model, path=base) if base else spec.config.model
    folder = model_folder(model, cache)
    if model_fingerprint(folder, model.revision) != spec.fingerprints["model"]:
        wanted = spec.fingerprints["model"][:12]
        raise UserError(
            f"{folder}: is not the base model of trial {spec.trial_id} ({wanted}); put it there, or name it by --base"
        )
    return folder


def incomplete(folder: Path) -> str | None:
    """The first file that is missing or incomplete; None for a complete checkpoint."""
    if not folder.is_dir():
        return "no such folder"
    absent = [part for part in CONFIGS if not (folder / part / CONFIGS[part]).is_file()]
    if absent:
        names = (f"{part}/{CONFIGS[part]}" if (folder / part).is_dir() else part for part in absent)
        return f"{', '.join(names)} missing"
    if not any((folder / "tokenizer" / name).is_file() for name in VOCABULARIES):
        return f"tokenizer/{' or '.join(VOCABULARIES)} missing"
    return next((text for part in WEIGHTS for text in _faults(folder / part, WEIGHTS[part])), None)


def other_model(folder: Path) -> str | None:
    """Why this is not Wan2.1 I2V, judged by the configs that exist; None where none contradicts it."""
    if (folder / "transformer_2").is_dir():
        return "has a second transformer: this is Wan2.2, and Wan2.1 I2V is what is trained here"
    for part, expected in EXPECTED.items():
        config = _config(folder / part / "config.json")
        for name, value in expected.items():
            if config and (found := config.get(name)) != value:
                return f"{part} has {name} {found}, Wan2.1 I2V has {value}{KNOWN_OTHERS.get(found, '')}"
        if config and part == "transformer":
            if without := [name for name in IMAGE_BRANCH if config.get(name) is None]:
                return f"transformer has no {' and no '.join(without)}: no image branch, so not Wan2.1 I2V"
            if config.get("pos_embed_seq_len") is not None:
                return "transformer has pos_embed_seq_len: this model wants a first and a last frame, not one image"
    return None


def _config(path: Path) -> dict[str, Any]:
    """The config; empty where there is no readable one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _faults(folder: Path, name: str) -> Iterator[str]:
    """The errors in the weights of one part, file by file."""
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
    for path in (folder / each for each in names if each not in absent):
        try:
            _tensor_names(path)
        except SafetensorError:
            yield f"{folder.name}/{path.name} is no complete safetensors file ({_size(path)}); remove it first"


def _size(path: Path) -> str:
    """How much of a file with a fault is there, by its own header if that can be read."""
    there = path.stat().st_size
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length < there else b""
    try:
        tensors = [each for name, each in json.loads(header).items() if name != "__metadata__"]
        whole = 8 + length + max(each["data_offsets"][1] for each in tensors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{there} bytes: a pointer, or an interrupted download"
    return f"{there} of {whole} bytes: an interrupted download"


def _tensor_names(path: Path) -> list[str]:
    """Raises SafetensorError where the file does not end where its header says that the last tensor does."""
    with safe_open(path, framework="np") as stream:
        return list(stream.keys())


def weight_files(folder: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it, of one part of a complete checkpoint."""
    name = WEIGHTS[folder.name]
    index = _config(folder / f"{name}.index.json").get("weight_map")
    return {key: folder / file for key, file in (index or dict.fromkeys(_tensor_names(folder / name), name)).items()}
