"""Where the frozen base lies and what it is. Loads no torch, so planning does not.

In: ModelConfig. Out: a folder in diffusers layout and the hash of its content.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.config import ModelConfig
from cinelora.wan.modelfiles import PARTS, incomplete, other_model

BUILTIN = "builtin:"
EXAMPLE = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
ASSETS = Path(__file__).resolve().parents[2] / "assets"
SHIPPED = {"small": ASSETS / "wan-small"}  # in the repository
SHAPES = {hub: ASSETS / "wan21-i2v-14b" for hub in (EXAMPLE, EXAMPLE.replace("480P", "720P"))}  # configs, no weights
WHOLE_FILE = 64 * 2**20  # bytes; larger weight files are hashed by size, header and evenly spaced blocks
BLOCK = 2**20


def model_folder(config: ModelConfig, cache_dir: Path) -> Path:
    """The folder of `config.path`, or where the hub's own cache has `config.hub`; a built-in is written on first use.

    Nothing is downloaded. Raises UserError if the checkpoint is not there, not whole, or of another model.
    """
    if config.path.startswith(BUILTIN):
        return _builtin_folder(config.path.removeprefix(BUILTIN), cache_dir)
    folder = Path(config.path) if config.path else _hub_folder(config)
    place = f"model.path={folder}" if config.path else f"model.hub={config.hub} in {folder}"
    if (text := other_model(folder)) is not None:
        raise UserError(f"{place}: {text}; give a folder like that of {fetching(EXAMPLE)}")
    if (text := incomplete(folder)) is not None:
        raise UserError(f"{place}: {text}; fetch: {fetching(config.hub or EXAMPLE, config.revision, config.path)}")
    return folder


def config_folder(config: ModelConfig, cache_dir: Path) -> Path:
    """Where the configs of a model lie: `model_folder`, or the published shape of a hub model that is not here.

    Enough to reckon with, not to run. Raises UserError as `model_folder` where no shape is known.
    """
    try:
        return model_folder(config, cache_dir)
    except UserError:
        if config.path or config.hub not in SHAPES:
            raise
        return SHAPES[config.hub]


def fetching(hub: str, revision: str = "", path: str = "") -> str:
    """The command that fetches a checkpoint, or what is not there of it, into a folder or the hub's cache."""
    pinned = f" --revision {revision}" if revision else ""
    return f"hf download {hub}{pinned}" + (f" --local-dir {path}" if path else "")


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


def _builtin_folder(name: str, cache_dir: Path) -> Path:
    if name in SHIPPED:
        return SHIPPED[name]
    from cinelora.wan import tiny

    if name not in tiny.BUILTINS:
        known = ", ".join((*SHIPPED, *tiny.BUILTINS))
        raise UserError(f"model.path={BUILTIN}{name}: no such built-in model; there are {known}")
    return tiny.ensure(name, cache_dir)


def model_fingerprint(folder: Path, revision: str) -> str:
    """SHA-256 over revision, file names, small files whole and large files by size, header and sampled blocks.

    Hashing 33 GB at every plan would take minutes; 17 blocks of 1 MiB a file tell checkpoints apart.
    """
    digest = hashlib.sha256(revision.encode())
    for path in sorted(p for part in PARTS for p in (folder / part).rglob("*") if p.is_file()):
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
