"""Score any folder of videos against another: FVD, KVD, JEDi, LPIPS, PSNR and consistency, with their protocol.

    python -m cinelora.score --generated out/ --reference real/        all metrics whose weights are available
    python -m cinelora.score --generated out/ --reference real/ --frames 16 --size 224x224 --fps 8 \\
        --metrics fvd[i3d],kvd[tnv2],psnr --weights i3d=i3d_torchscript.pt --out scores.json

In: two folders, searched to their depth, of video files or of folders of numbered images. Out: a table on stdout, JSON
on request, progress on stderr. Exit status 0, or 2 after one line on stderr. Names of metrics: docs/metrics.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cinelora.core.cli import Parser, Progress, UserError, exit_status
from cinelora.core.config import Resize
from cinelora.core.files import check_writable, write_json
from cinelora.metrics.feature_nets import WEIGHTS, pins_by_role
from cinelora.score.clips import ReadOptions
from cinelora.score.request import known, parse_metrics
from cinelora.score.run import Request, score_folders
from cinelora.score.table import as_json, table


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m cinelora.score", description=__doc__.splitlines()[0], epilog=f"Metrics: {known()}.")
    add = parser.add_argument
    add("--generated", type=Path, required=True, help="folder of the clips to score")
    add("--reference", type=Path, required=True, help="folder of the real clips")
    add("--metrics", default="", help="names, comma separated (default: all whose weights are available)")
    add("--weights", action="append", default=[], metavar="NET=PATH,...", help="weight files of nets")
    add("--sha256", action="append", default=[], metavar="NET=HEX", help="trust this file instead of the published one")
    add("--cache", type=Path, default=Path(".cache"), help="where cinelora-fetch put its nets (default: .cache)")
    add("--frames", type=int, help="score the first N frames of each clip (default: all; then all need as many)")
    add("--size", help="HxW pixels to resize to (default: as they are; then all must be of one size)")
    add("--resize", choices=[each.value for each in Resize], help="with --size: squash (default) or centre crop")
    add("--fps", type=float, help="resample by time to so many frames per second (default: frames as they are)")
    first = parser.add_mutually_exclusive_group()
    first.add_argument("--keep-first", dest="drop_first", action="store_false", help="score frame 0 (default)")
    first.add_argument("--drop-first", dest="drop_first", action="store_true", help="leave out frame 0, given to I2V")
    parser.set_defaults(drop_first=False)
    add("--skip-bad", action="store_true", help="leave out clips that cannot be read, and count them")
    add("--draws", type=int, default=100, help="random halves behind the errors of set metrics; 0: none (default 100)")
    add("--batch", type=int, default=2, help="clips in memory at once (default 2)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1, ...")
    add("--out", type=Path, help="also write everything as JSON here")
    return parser


def request_of(arguments: Sequence[str] | None = None) -> tuple[Request, Path | None]:
    """The command line as a `Request`, and where the JSON goes. UserError: an option is unknown or makes no sense."""
    options = _parser().parse_args(arguments)
    for name, least in (("frames", 1), ("draws", 0), ("batch", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: must be {least} or more")
    if options.fps is not None and not 0 < options.fps < float("inf"):
        raise UserError(f"--fps {options.fps}: must be above 0")
    if options.resize and not options.size:
        raise UserError(f"--resize {options.resize}: needs a size; give --size HxW too")
    resize = Resize(options.resize or "squash")
    reading = ReadOptions(options.frames, _size(options.size), resize, options.fps, int(options.drop_first))
    at_hand = {name: options.cache / "weights" / f"{name}.safetensors" for name, net in WEIGHTS.items() if net.packaged}
    weights = {name: path for name, path in at_hand.items() if path.is_file()}
    weights |= {name: Path(path) for name, path in _named(options.weights, "--weights").items()}
    pins = {name: pins_by_role(name, text) for name, text in _named(options.sha256, "--sha256").items()}
    try:
        torch.empty(0, device=options.device)
    except (AssertionError, RuntimeError) as error:  # the first: torch was built without CUDA
        why = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"--device {options.device}: {why}; give a device that torch has here, e.g. cpu") from error
    metrics = parse_metrics(options.metrics) if options.metrics else None
    folders, given = (options.generated, options.reference), (options.skip_bad, options.draws, options.batch)
    return Request(*folders, metrics, weights, pins, reading, *given, options.device), options.out


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UserError(f"--size {text}: give height x width in pixels, e.g. 480x832")
    return int(height), int(width)


def _named(options: Sequence[str], option: str) -> dict[str, str]:
    """["i3d=a,lpips=b"] -> {"i3d": "a", "lpips": "b"}. What follows a comma without name belongs to the one before."""
    found: dict[str, str] = {}
    for text in options:
        last = ""
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if equals and name.strip() in WEIGHTS:
                last = name.strip()
                found[last] = value.strip()
            elif last and not equals:
                found[last] += f",{part}"
            else:
                raise UserError(f"{option} {text}: give NET=..., NET one of {', '.join(WEIGHTS)}")
    return found


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse, score, print; write the JSON if `--out` is given. Raises UserError."""
    request, out = request_of(arguments)
    if out is not None:
        check_writable("--out", out.parent)
        if out.is_dir():
            raise UserError(f"--out {out}: is a folder; name a file in it")
    scores = score_folders(request, Progress("clips"))
    for warning in scores.warnings:
        print(f"cinelora: warning: {warning}", file=sys.stderr)
    print(table(scores, request), flush=True)
    if out is not None:
        write_json(out, as_json(scores, request))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status 0, or 2 after one line on stderr."""
    return exit_status(lambda: run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
