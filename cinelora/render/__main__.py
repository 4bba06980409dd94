"""One picture and one text, rendered by the base and by the adapters of a study, from the same noise.

    python -m cinelora.render studies/quick --image first.png --prompt "..." --out out/              one clip a rank
    python -m cinelora.render studies/quick --image clip.mp4@1.5 --prompt "..." --ranks 4,8 --frames 65 --out out/
    torchrun --nproc-per-node 2 -m cinelora.render ... --parallel ulysses                            a clip on two GPUs

In: a study with finished adapters. Out: base.mp4, rank-8.mp4, ..., sheet.png with frames of each, and render.json with
all settings and, of clips longer than the model's window, how well the seams hold. A table on stdout, progress on
stderr. Nothing is overwritten. Exit status 0, or 2 after one line on stderr.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinelora.core.cli import Parser, UserError, exit_status
from cinelora.core.config import TrialConfig
from cinelora.core.files import check_writable, write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import to_dict
from cinelora.render.selection import (
    FinishedAdapter,
    by_clip_name,
    finished_adapters,
    read_keyframe,
    select,
    shared_config,
)
from cinelora.wan.checkpoint import base_folder
from cinelora.wan.options import Parallel, processes_of
from cinelora.wan.tiny import quiet_transformers

if TYPE_CHECKING:
    from cinelora.render.session import RenderedClip, RenderJob


BASE, RECORD, SHEET = "base", "render.json", "sheet.png"


def render(options: argparse.Namespace) -> None:
    """Render and write the clips, their sheet and record; the first process of a group prints the table."""
    selected = select(finished_adapters(StudyFolder(options.study)), options.trials, options.ranks)
    config, adapters = shared_config(selected), by_clip_name(selected)
    frames = options.frames or config.data.frames
    check_length(frames, config.data.frames, options.overlap)
    check_out(options.out, [BASE, *adapters])
    keyframe = read_keyframe(options.image, config.data)
    folder = base_folder(selected[0].spec, options.cache, options.base)
    mode, processes = Parallel(options.parallel), 1
    if mode is not Parallel.none:
        processes = processes_of(mode, folder, config)
        from cinelora.wan.parallel import join

        join()
    quiet_transformers()
    from cinelora.render.contact_sheet import write_sheet
    from cinelora.render.session import RenderJob, render_clips
    from cinelora.wan.encoding import TEXT_TOKENS, long_texts

    for tokens in long_texts(folder, [options.prompt]).values():
        raise UserError(f"--prompt: {tokens} tokens, the model reads {TEXT_TOKENS}; shorten it")
    job = RenderJob(
        folder=folder,
        config=config,
        files={BASE: (), **{name: each.files for name, each in adapters.items()}},
        keyframe=keyframe,
        prompt=options.prompt,
        frames=frames,
        overlap=options.overlap,
        seed=options.seed,
        mode=mode,
        net=net_weights(config, options.cache),
        out=options.out,
    )
    clips = render_clips(job)
    if processes > 1 and not _is_first():
        return
    pictures = {name: clip.pictures for name, clip in clips.items()}
    steps = {name: clip.steps for name, clip in clips.items()}
    write_sheet(options.out / SHEET, pictures, steps, config.data.frames, options.overlap)
    write_json(options.out / RECORD, record(options, job, adapters, clips) | {"processes": processes})
    print(table(clips))


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def check_length(frames: int, window: int, overlap: int) -> None:
    """Raises UserError for a clip of `frames` that windows of `window` frames cannot be joined to."""
    if frames < 2:
        raise UserError(f"--frames {frames}: must be 2 or more")
    if not 1 <= overlap <= window // 2:
        raise UserError(f"--overlap {overlap}: must lie in 1..{window // 2}, half the window of {window} frames")


def check_out(out: Path, names: Sequence[str]) -> None:
    """Raises UserError where a file would be overwritten."""
    for path in [out / RECORD, out / SHEET, *(out / f"{name}.mp4" for name in names)]:
        if path.exists():
            raise UserError(f"--out {out}: {path} exists; name another folder")
    check_writable("--out", out)


def net_weights(config: TrialConfig, cache: Path) -> Path | None:
    """Weights of the net behind tdelta: those of the study, or those in the cache, or none."""
    places = [Path(config.score.mnv2)] if config.score.mnv2 else []
    return next((path for path in [*places, cache / "weights" / "mnv2.safetensors"] if path.is_file()), None)


def record(
    options: argparse.Namespace,
    job: RenderJob,
    adapters: Mapping[str, FinishedAdapter],
    clips: Mapping[str, RenderedClip],
) -> dict[str, Any]:
    """All that the clips depend on, and their seams: render.json."""
    config, data = job.config, to_dict(job.config.data)
    return {
        **{name: str(getattr(options, name)) for name in ("study", "image")},
        **{name: getattr(options, name) for name in ("prompt", "seed", "overlap", "parallel")},
        **{"frames": job.frames, "window": config.data.frames, "base": str(job.folder)},
        **{name: data[name] for name in ("fps", "height", "width", "resize")},
        **{"model": to_dict(config.model), "sample": to_dict(config.sample)},
        "clips": {
            name: {
                "file": f"{name}.mp4",
                **(_adapter_record(adapters[name]) if name in adapters else {"rank": 0}),
                "continuity": clip.continuity,
            }
            for name, clip in clips.items()
        },
    }


def _adapter_record(adapter: FinishedAdapter) -> dict[str, Any]:
    return {
        "rank": adapter.result.rank,
        "trial": adapter.spec.trial_id,
        "first": adapter.spec.config.first or None,
        "scale": adapter.result.scale,
        "adapter_sha256": adapter.result.adapter_sha256,
    }


def table(clips: Mapping[str, RenderedClip]) -> str:
    """Seconds of each clip and, of long clips, the largest change at a seam over the median inside windows."""
    measures = [name for name, each in next(iter(clips.values())).continuity.items() if each["seams"]]
    lines = [f"{'clip':<24}{'seconds':>9}" + "".join(f"{name:>20}" for name in measures)]
    for name, clip in clips.items():
        line = f"{name:<24}{clip.seconds:>9.1f}"
        for found in (clip.continuity[measure] for measure in measures):
            inside, seams = found["inside_largest_ratio"], found["seam_ratios"]
            line += f"{'n/a' if inside is None else f'{max(seams):.2f} ({inside:.2f})':>20}"
        lines.append(line)
    if measures:
        lines.append("Change from frame to frame over its median inside windows: largest at a seam (largest inside).")
    return "\n".join(lines)


def _ranks(text: str) -> list[int]:
    if not all(each.isdecimal() for each in text.split(",")):
        raise UserError(f"--ranks {text}: give whole numbers, e.g. 4,8")
    return [int(each) for each in text.split(",")]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = Parser(prog="python -m cinelora.render", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("study", type=Path, help="the study folder")
    add("--image", required=True, help="the picture to start from: an image file, or FILE@SECONDS of a video")
    add("--prompt", required=True, help="the text")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trials", nargs="+", default=[], metavar="ID", help="render these trials")
    which.add_argument("--ranks", type=_ranks, default=[], help="render these ranks, e.g. 4,8 (default: every rank)")
    add("--frames", type=int, help="length of the clip; above the model's window in overlapping windows")
    add("--seed", type=int, default=0, help="of the noise, the same for all clips (default 0)")
    add("--overlap", type=int, default=1, help="frames that neighbouring windows share (default 1)")
    add("--parallel", choices=[each.value for each in Parallel], default="none", help="split a clip over processes")
    add("--cache", type=Path, default=Path(".cache"), help="where built-in bases and mnv2 are (default: .cache)")
    add("--base", default="", help="where the base lies on this machine (default: as in the trials)")
    add("--out", type=Path, required=True, help="folder for the clips and render.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status 0, or 2 after one line on stderr."""
    return exit_status(lambda: render(parse(arguments)), quiet=not _is_first())


if __name__ == "__main__":
    raise SystemExit(main())
