"""An adapter for other programs: a LoRA for diffusers or ComfyUI, or the base with the adapter merged, and its card.

    python -m cinelora.export studies/quick/trials/ID --out out/film.safetensors                     diffusers
    python -m cinelora.export studies/quick/trials/ID --out out/film.safetensors --format comfyui
    python -m cinelora.export studies/quick/trials/ID --out out/merged --merge                       a folder of shards

In: the folder of a finished LoRA trial. Out: safetensors and README.md beside it (with --merge: in the folder). Nothing
is overwritten. Exit status 0, or 2 after one line on stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cinelora.core.cli import UserError
from cinelora.core.config import Method
from cinelora.core.files import read_json, whole_file, whole_folder
from cinelora.core.paths import ADAPTER_FILE, StudyFolder, TrialFolder
from cinelora.core.records import TrialResult, TrialSpec
from cinelora.export.formats import FORMATS, AdapterFile, write_merged
from cinelora.export.model_card import UNKNOWN_LICENCE, Card
from cinelora.wan.checkpoint import base_folder

CARD = "README.md"


def read_trial(folder: TrialFolder) -> tuple[TrialSpec, TrialResult, Path]:
    """(spec, result, adapter file) of a finished LoRA trial. Raises UserError for anything else."""
    if not folder.spec.is_file():
        raise UserError(f"{folder.root}: holds no spec.json; give the folder of a trial, STUDY/trials/ID")
    try:
        spec = TrialSpec.from_json(read_json(folder.spec))
        result = TrialResult.from_json(read_json(folder.result)) if folder.result.is_file() else None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder.root}: its records are of another version of cinelora ({error})") from error
    if spec.config.method is not Method.lora:
        raise UserError(
            f"{folder.root}: has no adapter, it is the trial `{spec.config.method.value}`; give one of a rank"
        )
    if result is None:
        raise UserError(f"{folder.root}: has no result.json; export it when it has finished")
    adapter = folder.adapter / ADAPTER_FILE
    if not adapter.is_file():
        raise UserError(f"{adapter}: missing; copy the whole trial folder")
    return spec, result, adapter


def check_out(out: Path, merged: bool) -> None:
    """That nothing would be overwritten. Raises UserError."""
    if not merged and out.suffix != ".safetensors":
        raise UserError(f"--out {out}: must end in .safetensors; no other kind of file is written")
    for path in (out,) if merged else (out, out.parent / CARD):
        if path.exists():
            raise UserError(f"--out {out}: {path} exists; name another file in a folder of its own")


def export(options: argparse.Namespace) -> Path:
    """Write what is asked for and its card; returns where the weights are."""
    folder = TrialFolder(options.trial.resolve())
    spec, result, adapter = read_trial(folder)
    adapters = [AdapterFile(adapter, spec.config.lora.scale)]
    study = StudyFolder(folder.root.parent.parent)
    if spec.config.first:
        below, _, its_adapter = read_trial(study.trial(spec.config.first))
        adapters.insert(0, AdapterFile(its_adapter, below.config.lora.scale))
    check_out(options.out, options.merge)
    layout = "merged" if options.merge else options.format
    card = Card(spec, result, study.report, layout, options.out.name, options.licence).text()
    if options.merge:
        base = base_folder(spec, options.cache, options.base)
        with whole_folder(options.out) as temporary:
            write_merged(spec, adapters, base, temporary)
            (temporary / CARD).write_text(card)
        return Path(options.out)
    FORMATS[layout](adapters, options.out)
    with whole_file(options.out.parent / CARD) as temporary:
        temporary.write_text(card)
    return Path(options.out)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)  # one line instead of argparse's usage and message


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser: Any = _Parser(prog="python -m cinelora.export", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("trial", type=Path, help="folder of a finished LoRA trial, STUDY/trials/ID")
    add("--out", type=Path, required=True, help="the .safetensors file to write; with --merge: the folder")
    add("--format", choices=list(FORMATS), default="diffusers", help="names of layers and place of the scale")
    add("--merge", action="store_true", help="write the denoiser with the adapter in its weights")
    add("--licence", default=UNKNOWN_LICENCE, help="for the card; that of the base model says what is allowed")
    add("--base", default="", help="with --merge: where the base lies on this machine (default: as in the trial)")
    add("--cache", type=Path, default=Path(".cache"), help="with --merge: where built-in bases are (default: .cache)")
    options = parser.parse_args(arguments)
    if options.merge and options.format != "diffusers":
        raise UserError(f"--merge --format {options.format}: a merged base is written in diffusers layout only")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status 0, or 2 after one line on stderr."""
    try:
        print(export(parse(arguments)))
    except UserError as error:
        print(f"cinelora: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
