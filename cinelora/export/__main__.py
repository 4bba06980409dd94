"""An adapter for other programs: a LoRA for diffusers or ComfyUI, or the base with the adapter merged, and its card.

    python -m cinelora.export studies/quick/trials/ID --out out/film.safetensors                     diffusers
    python -m cinelora.export studies/quick/trials/ID --out out/film.safetensors --format comfyui    or musubi
    python -m cinelora.export studies/quick/trials/ID --out out/merged --merge                       a folder of shards

In: the folder of a finished LoRA trial. Out: safetensors, and README.md in the same folder (with --merge: inside it).
Nothing is overwritten. Exit status 0, or 2 after one line on stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.files import check_writable, whole_file, whole_folder
from cinelora.core.paths import StudyFolder, TrialFolder
from cinelora.core.records import TrialResult, TrialSpec, read_trial
from cinelora.export.formats import FORMATS, MERGED_LOADING, AdapterFile, write_merged
from cinelora.export.model_card import UNKNOWN_LICENCE, model_card
from cinelora.wan.checkpoint import base_folder
from cinelora.wan.low_rank import read_factors

CARD = "README.md"


def export(options: argparse.Namespace) -> Path:
    """Write the weights and their card; returns where the weights are. Raises UserError."""
    out, folder = options.out, TrialFolder(options.trial.resolve())
    study = StudyFolder(folder.root.parent.parent)
    spec, result, adapter = finished_adapter(folder)
    adapters = [adapter]
    if spec.config.first:
        adapters.insert(0, finished_adapter(study.trial(spec.config.first))[2])
    check_out(out, options.merge)
    model = spec.config.model
    loading = MERGED_LOADING if options.merge else FORMATS[options.format].loading
    loading = loading.format(base=model.hub or "BASE", file=out.name, dtype=model.dtype.value)
    card = model_card(spec, result, study.report, loading, options.licence, options.merge)
    if options.merge:
        base = base_folder(spec, options.cache, options.base)
        with whole_folder(out) as temporary:
            write_merged(adapters, base, model.dtype, temporary)
            (temporary / CARD).write_text(card, "utf-8", "backslashreplace")
        return Path(out)
    FORMATS[options.format].write(adapters, out)
    with whole_file(out.parent / CARD) as temporary:
        temporary.write_text(card, "utf-8", "backslashreplace")
    return Path(out)


def finished_adapter(folder: TrialFolder) -> tuple[TrialSpec, TrialResult, AdapterFile]:
    """(spec, result, adapter) of a finished LoRA trial. Raises UserError for anything else."""
    spec, result = read_trial(folder)
    if not spec.config.method.adapts:
        raise UserError(
            f"{folder.root}: has no adapter, it is the trial `{spec.config.method.value}`; give one of a rank"
        )
    if result is None:
        raise UserError(f"{folder.root}: has no result.json; export it when it has finished")
    if not folder.adapter_file.is_file():
        raise UserError(f"{folder.adapter_file}: missing; copy the whole trial folder")
    next(read_factors(folder.adapter_file), None)  # a damaged file would be copied as it is
    return spec, result, AdapterFile(folder.adapter_file, spec.config.lora.scale)


def check_out(out: Path, merged: bool) -> None:
    """Raises UserError where something would be overwritten, or for another kind of file."""
    if not merged and out.suffix != ".safetensors":
        raise UserError(f"--out {out}: must end in .safetensors; no other kind of file is written")
    for path in (out,) if merged else (out, out.parent / CARD):
        if path.exists():
            raise UserError(f"--out {out}: {path} exists; name another file in a folder of its own")
    check_writable("--out", out.parent)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = Parser(prog="python -m cinelora.export", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("trial", type=Path, help="folder of a finished LoRA trial, STUDY/trials/ID")
    add("--out", type=Path, required=True, help="the .safetensors file to write; with --merge: the folder")
    add("--format", choices=list(FORMATS), default="diffusers", help="names of layers and place of the scale")
    add("--merge", action="store_true", help="write the denoiser with the adapter in its weights")
    add("--licence", default=UNKNOWN_LICENCE, help="for the card; the licence of the base model says what is allowed")
    add("--base", default="", help="with --merge: where the base lies on this machine (default: as in the trial)")
    add("--cache", type=Path, default=Path(".cache"), help="with --merge: where built-in bases are (default: .cache)")
    options = parser.parse_args(arguments)
    if options.merge and options.format != "diffusers":
        raise UserError(f"--merge --format {options.format}: a merged base is written in diffusers layout only")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status 0, or 2 after one line on stderr."""
    return exit_status(lambda: print(export(parse(arguments))))


if __name__ == "__main__":
    raise SystemExit(main())
