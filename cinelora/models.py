"""Where the frozen base lies and what it is. Standard library only, so planning loads no torch.

In: ModelConfig. Out: a folder in diffusers layout and the hash of its content.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cinelora.config import ModelConfig
from cinelora.errors import UserError

BUILTIN = "builtin:"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "image_encoder", "image_processor", "scheduler")
SHIPPED = {"small": Path(__file__).resolve().parents[1] / "assets" / "wan-small"}  # in the repository
WHOLE_FILE = 64 * 2**20  # bytes; larger weight files are hashed by size, header and evenly spaced blocks
BLOCK = 2**20


def model_folder(config: ModelConfig, cache_dir: Path) -> Path:
    """The folder of `config.path`; a built-in model is written on first use.

    Raises UserError if a part of the diffusers layout is missing.
    """
    if config.path.startswith(BUILTIN):
        return _builtin_folder(config.path.removeprefix(BUILTIN), cache_dir)
    folder = Path(config.path)
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"model.path={config.path}: {', '.join(missing)} missing; give a folder in diffusers layout holding "
            f"{', '.join(PARTS)}"
        )
    return folder


def _builtin_folder(name: str, cache_dir: Path) -> Path:
    if name in SHIPPED:
        return SHIPPED[name]
    from cinelora import tiny

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
