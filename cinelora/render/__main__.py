"""One picture and one text, rendered by the base and by the adapters of a study, from the same noise.

    python -m cinelora.render studies/quick --image first.png --prompt "..." --out out/              one clip a rank
    python -m cinelora.render studies/quick --image clip.mp4@1.5 --prompt "..." --ranks 4,8 --frames 65 --out out/
    torchrun --nproc-per-node 2 -m cinelora.render ... --parallel ulysses                            a clip on two GPUs

In: a study with finished adapters. Out: base.mp4, rank-8.mp4, ..., sheet.png with frames of each, and render.json with
all settings; of clips longer than the model's window how well the seams hold; a table on stdout, progress on stderr.
Nothing is overwritten. Exit status 0, or 2 after one line on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinelora.core.cli import Parser, UserError
from cinelora.core.config import TrialConfig
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import to_dict
from cinelora.render.keyframe import read_keyframe
from cinelora.render.selection import Entry, check_alike, chosen, finished, named
from cinelora.wan.checkpoint import base_folder
from cinelora.wan.options import Parallel, processes_of

if TYPE_CHECKING:
    from cinelora.render.long_clips import Continuity
    from cinelora.render.session import RenderedClip, RenderJob


BASE, RECORD, SHEET = "base", "render.json", "sheet.png"


def render(options: argparse.Namespace) -> str:
    """Make and write the clips; returns the table, or "" in all processes of a group but the first."""
    entries = chosen(finished(StudyFolder(options.study)), options.trials, options.ranks)
    config, clips = check_alike(entries), named(entries)
    check_shot(options.frames or config.data.frames, config.data.frames, options.overlap)
    check_out(options.out, [BASE, *clips])
    keyframe = read_keyframe(options.image, config.data)
    folder = base_folder(entries[0].spec, options.cache, options.base)
    mode, processes = Parallel(options.parallel), 1
    if mode is not Parallel.none:
        processes = processes_of(mode, folder, config)
        from cinelora.wan.parallel import join

        join()
    _hush()
    from cinelora.render.contact_sheet import write_sheet
    from cinelora.render.session import RenderJob, render_clips

    job = RenderJob(
        folder=folder,
        config=config,
        files={BASE: (), **{name: each.files for name, each in clips.items()}},
        keyframe=keyframe,
        prompt=options.prompt,
        frames=options.frames or config.data.frames,
        overlap=options.overlap,
        seed=options.seed,
        mode=mode,
        net=net_weights(config, options.cache),
        out=options.out,
    )
    rendered = render_clips(job)
    if processes > 1 and not _first():
        return ""
    pictures, steps = ({name: getattr(each, part) for name, each in rendered.items()} for part in ("pictures", "steps"))
    write_sheet(options.out / SHEET, pictures, steps, config.data.frames, options.overlap)
    write_json(options.out / RECORD, record(options, job, clips, rendered) | {"processes": processes})
    return table(rendered)


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _hush() -> None:
    """No bars and no advice of transformers, which would hide our lines."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.disable_progress_bar()


def check_shot(frames: int, window: int, overlap: int) -> None:
    """Raises UserError."""
    if frames < 2:
        raise UserError(f"--frames {frames}: must be 2 or more")
    if not 1 <= overlap <= window // 2:
        raise UserError(f"--overlap {overlap}: must lie in 1..{window // 2}, half the window of {window} frames")


def check_out(out: Path, names: Sequence[str]) -> None:
    """That nothing would be overwritten. Raises UserError."""
    for path in [out / RECORD, out / SHEET, *(out / f"{name}.mp4" for name in names)]:
        if path.exists():
            raise UserError(f"--out {out}: {path} exists; name another folder")


def net_weights(config: TrialConfig, cache: Path) -> Path | None:
    """Of the net behind tdelta: those of the study, or in the cache, or none."""
    places = [Path(config.score.mnv2)] if config.score.mnv2 else []
    return next((path for path in [*places, cache / "weights" / "mnv2.safetensors"] if path.is_file()), None)


def record(
    options: argparse.Namespace, job: RenderJob, entries: Mapping[str, Entry], rendered: Mapping[str, RenderedClip]
) -> dict[str, Any]:
    """All that the clips hang on, and their seams."""
    config = job.config
    asked = {name: str(getattr(options, name)) for name in ("study", "image")}
    asked |= {name: getattr(options, name) for name in ("prompt", "seed", "overlap", "parallel")}
    data = {name: to_dict(config.data)[name] for name in ("fps", "height", "width", "resize")}
    shot = {"frames": job.frames, "window": config.data.frames, "base": str(job.folder)}
    clips = {
        name: {
            "file": f"{name}.mp4",
            **(_facts(entries[name]) if name in entries else {"rank": 0}),
            "continuity": {measure: each.to_json() for measure, each in clip.held.items()},
        }
        for name, clip in rendered.items()
    }
    return {**asked, **shot, **data, **{p: to_dict(getattr(config, p)) for p in ("model", "sample")}, "clips": clips}


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "rank": entry.result.rank,
        "trial": entry.spec.trial_id,
        "first": entry.spec.config.first or None,
        "scale": entry.result.scale,
        "adapter_sha256": entry.result.adapter_sha256,
    }


def table(rendered: Mapping[str, RenderedClip]) -> str:
    """Seconds of each clip and, of long clips, the largest change at a seam over the median inside windows."""
    measures = [name for name, each in next(iter(rendered.values())).held.items() if each.across]
    lines = [f"{'clip':<24}{'seconds':>9}" + "".join(f"{name:>20}" for name in measures)]
    for name, clip in rendered.items():
        lines.append(f"{name:<24}{clip.seconds:>9.1f}" + "".join(f"{_ratios(clip.held[m]):>20}" for m in measures))
    if measures:
        lines.append(
            "Change of a frame to the next over the median inside windows: largest at a seam (largest inside)."
        )
    return "\n".join(lines)


def _ratios(found: Continuity) -> str:
    seam, inside = found.ratio(max(found.across)), found.ratio(found.largest_inside)
    return "n/a" if seam is None or inside is None else f"{seam:.2f} ({inside:.2f})"


def _ranks(text: str) -> list[int]:
    if not all(each.isdecimal() for each in text.split(",")):
        raise UserError(f"--ranks {text}: give whole numbers, e.g. 4,8")
    return [int(each) for each in text.split(",")]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = Parser(prog="python -m cinelora.render", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("study", type=Path, help="the study folder")
    add("--image", required=True, help="the picture to start from: an image file, or FILE@SECONDS of a video")
    add("--prompt", required=True, help="the text")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trials", nargs="+", default=[], metavar="ID", help="these trials")
    which.add_argument("--ranks", type=_ranks, default=[], help="of these ranks, e.g. 4,8 (default: of every rank)")
    add("--frames", type=int, help="length of the shot; above the model's window in overlapping windows")
    add("--seed", type=int, default=0, help="of the noise, the same for all clips (default 0)")
    add("--overlap", type=int, default=1, help="frames that neighbouring windows share (default 1)")
    add("--parallel", choices=[each.value for each in Parallel], default="none", help="share out a clip, by torchrun")
    add("--cache", type=Path, default=Path(".cache"), help="where built-in bases and mnv2 are (default: .cache)")
    add("--base", default="", help="where the base lies on this machine (default: as in the trials)")
    add("--out", type=Path, required=True, help="folder for the clips and render.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status 0, or 2 after one line on stderr."""
    try:
        text = render(parse(arguments))
    except UserError as error:
        if _first():
            print(f"cinelora: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cinelora: stopped", file=sys.stderr)
        return 130
    if text:
        print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
