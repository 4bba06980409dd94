"""Two folders of clips -> every metric that is requested, with its protocol.

In: a `Request`. Out: `Scores`: rows of numbers, what was skipped, what is doubtful. All that can be wrong with the
input is found before a net runs. N generated and M reference clips, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cinelora.core.cli import UserError
from cinelora.features.extract import Batch, score_batch
from cinelora.features.nets import open_net
from cinelora.features.nets.files import Loaded
from cinelora.features.results import Scored, merged
from cinelora.metrics.catalogue import SEED, Metric
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.set_metrics import set_score, unreliable
from cinelora.score.clips import Clip, Form, ReadOptions, Skipped, common_form, find_clips, inspect_clips, read_clip
from cinelora.score.request import check_metrics, default_metrics, scored_frames

OnProgress = Callable[[str, int, int], None]  # (stage, done, total)
ROUNDING = 4 * float(np.finfo(np.float32).eps)  # nets compute in float32: a smaller relative spread is none


@dataclass(frozen=True)
class Request:
    """What to score and how. `metrics` None: all that `weights` (net -> path) allow; `pins`: net -> role -> SHA-256."""

    generated: Path
    reference: Path
    metrics: tuple[Metric, ...] | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)
    pins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reading: ReadOptions = field(default_factory=ReadOptions)
    skip_bad: bool = False
    draws: int = 100
    batch: int = 2
    device: str = "cpu"


@dataclass(frozen=True)
class Row:
    """One metric. `reference`: a clip metric of the reference clips, on average; `per_clip`: clip name -> value."""

    metric: Metric
    value: float
    standard_error: float | None
    protocol: Mapping[str, Any]
    bias: float | None = None
    reference: float | None = None
    per_clip: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Clips:
    """Both folders, inspected. `unpaired` says why they do not match; "" means row i of both belong together."""

    generated: tuple[Clip, ...]
    reference: tuple[Clip, ...]
    form: Form
    unpaired: str
    skipped: tuple[Skipped, ...]
    timeless: int  # folders of images, which carry no time

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.generated), len(self.reference)


@dataclass(frozen=True)
class Scores:
    """What a run found, a row for each metric."""

    clips: Clips
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]


def score_folders(request: Request, on_progress: OnProgress = lambda stage, done, total: None) -> Scores:
    """Every metric of `request`; `on_progress(stage, done, total)` is called after each batch. UserError: bad input."""
    clips, dropped = gather(request, on_progress), request.reading.dropped
    metrics = request.metrics or default_metrics(tuple(request.weights), not clips.unpaired, clips.form, dropped)
    check_metrics(metrics, clips.unpaired, clips.form, clips.counts, dropped)
    loaded = {name: _open(name, request) for name in dict.fromkeys(each.net for each in metrics) if name}
    settings = {name: each.net for name, each in loaded.items()}, request, clips.form
    references = None if clips.unpaired else clips.reference
    generated = measure(clips.generated, references, metrics, *settings, partial(on_progress, "generated:"))
    alone = [each for each in metrics if each.kind != "paired"]
    reference = Scored()
    if alone:
        reference = measure(clips.reference, None, alone, *settings, partial(on_progress, "reference:"))
    for folder, scored in ((request.generated, generated), (request.reference, reference)):
        _check_spread(folder, scored)
    rows = tuple(_row(each, clips, generated, reference, loaded, request) for each in metrics)
    return Scores(clips, rows, _warnings(request, clips, rows))


def gather(request: Request, on_progress: OnProgress) -> Clips:
    """The clips of both folders in one form, row i of both a pair where names match.

    UserError: as `find_clips`, `inspect_clips`, `common_form`; fewer than 2 clips in a folder.
    """
    generated, reference = find_clips(request.generated), find_clips(request.reference)
    pairs, unpaired = pair_up(generated, reference)
    if pairs:
        reference = tuple(pairs[clip] for clip in generated)
    sides = (request.generated, generated, "generated"), (request.reference, reference, "reference")
    looked = [
        inspect_clips(clips, request.skip_bad, partial(on_progress, f"looking at {side}:")) for _, clips, side in sides
    ]
    facts, skipped = [good for good, _ in looked], tuple(each for _, bad in looked for each in bad)
    if pairs:  # a pair is left out whole
        lost = {each.path for each in skipped}
        whole = {clip for pair in pairs.items() if not {each.path for each in pair} & lost for clip in pair}
        facts = [[(clip, each) for clip, each in good if clip in whole] for good in facts]
    for (folder, _, _), good in zip(sides, facts, strict=True):
        if len(good) < 2:
            raise UserError(f"{folder}: {len(good)} clip(s) to score; a set needs 2 or more")
    every = [*facts[0], *facts[1]]
    left = [tuple(clip for clip, _ in good) for good in facts]
    timeless = sum(each.fps is None for _, each in every)
    return Clips(left[0], left[1], common_form(every, request.reading), unpaired, skipped, timeless)


def pair_up(generated: Sequence[Clip], reference: Sequence[Clip]) -> tuple[dict[Clip, Clip], str]:
    """Each generated clip with the reference clip of its name, or no pairs and the reason.

    Names are paths below the folder without ending; where those differ, file stems, if no stem is there twice.
    """
    reason = ""
    for key in (lambda clip: clip.name, lambda clip: clip.name.rsplit("/", 1)[-1]):
        ours, theirs = {key(clip): clip for clip in generated}, {key(clip): clip for clip in reference}
        if ours.keys() == theirs.keys() and len(ours) == len(generated) and len(theirs) == len(reference):
            return {clip: theirs[name] for name, clip in ours.items()}, ""
        odd = sorted(ours.keys() ^ theirs.keys())
        side = "generated" if odd and odd[0] in ours else "reference"
        reason = reason or (f"{side} clip {odd[0]} has none of its name" if odd else "names are not unique")
    return {}, reason


def measure(
    clips: Sequence[Clip],
    references: Sequence[Clip] | None,
    metrics: Sequence[Metric],
    nets: Mapping[str, Any],
    request: Request,
    form: Form,
    on_progress: Callable[[int, int], None],
) -> Scored:
    """Features for set metrics, and clip metrics, a few clips at a time; without `references` paired ones are left out.

    `nets` are loaded ones, by name; `on_progress(done, total)` is called after each batch.
    UserError: a clip cannot be read, or a value or feature is not finite (names the clip).
    """
    features = list(dict.fromkeys(each.net for each in metrics if each.kind == "set"))
    of_clips = [each for each in metrics if each.kind == "clip" or (each.kind == "paired" and references is not None)]
    parts = []
    for start in range(0, len(clips), request.batch):
        part = slice(start, start + request.batch)
        frames, reference = (
            None if side is None else np.stack([read_clip(clip, form, request.reading) for clip in side[part]])
            for side in (clips, references)
        )
        assert frames is not None
        batch = Batch(nets, frames, reference, request.reading.dropped, form.fps)
        scored = score_batch(batch, [clip.name for clip in clips[part]], of_clips, features)
        _check_finite(scored, clips[part])
        parts.append(scored)
        on_progress(min(start + request.batch, len(clips)), len(clips))
    return merged(parts, [clip.name for clip in clips])


def _check_finite(scored: Scored, clips: Sequence[Clip]) -> None:
    named = {f"{net} features": rows for net, rows in scored.features.items()} | scored.values
    for name, rows in named.items():
        for row, clip in zip(rows, clips, strict=True):
            if not np.isfinite(row).all():
                raise UserError(f"{clip.path}: {name}: not a finite number; look at the clip and at the weights")


def _open(name: str, request: Request) -> Loaded:
    """The net, loaded. UserError in the words of this command: the nets name a study's settings."""
    if name not in request.weights:
        facts = WEIGHTS[name]
        files = " and ".join(" or ".join(file.published) for file in facts.files)
        where = f"a folder with {files}" if facts.folder else files
        remedy = "run cinelora-fetch (`make fetch`) or give --cache" if facts.packaged else f"give {where}"
        raise UserError(f"--weights {name}=: needs {facts.title} weights; {remedy}")
    try:
        return open_net(name, request.weights[name], request.pins.get(name), request.device)
    except UserError as error:
        text = str(error).replace(f"score.{name}=", f"--weights {name}=")
        text = text.replace(f"score.{name}_sha256 to the hash of", f"--sha256 {name}=HEX of")
        raise UserError(
            text.replace(f"set score.{name} to '' to do without", f"leave out the {name} metrics")
        ) from error
    except RuntimeError as error:  # an unknown device, or no memory left on it
        raise UserError(f"--device {request.device}: {str(error).splitlines()[0]}") from error


def _check_spread(folder: Path, scored: Scored) -> None:
    """UserError where all clips of a folder look the same to a net: no distance means anything then."""
    for net, rows in scored.features.items():
        if np.abs(rows - rows[0].astype(np.float64)).max() <= ROUNDING * np.abs(rows).max():
            raise UserError(f"{folder}: {net} sees {len(rows)} equal clips (constant features); look at them")


def _row(
    metric: Metric, clips: Clips, generated: Scored, reference: Scored, loaded: Mapping[str, Loaded], request: Request
) -> Row:
    protocol = _protocol(metric, clips, loaded, request)
    if metric.kind == "set":
        sets = generated.features[metric.net], reference.features[metric.net]
        found = set_score(metric, *sets, not clips.unpaired, request.draws)
        return Row(metric, found.value, found.standard_error, protocol, found.bias)
    values, real = generated.values[metric.name], reference.values.get(metric.name)
    return Row(
        metric,
        float(values.mean()),
        float(values.std(ddof=1) / np.sqrt(len(values))),
        protocol,
        reference=None if real is None else float(real.mean()),
        per_clip={clip.name: float(value) for clip, value in zip(clips.generated, values, strict=True)},
    )


def _protocol(metric: Metric, clips: Clips, loaded: Mapping[str, Loaded], request: Request) -> dict[str, Any]:
    """Everything that another program must do alike to get this number; JSON-ready."""
    reading, form, entry = request.reading, clips.form, metric.entry
    frames = scored_frames(metric, form, reading.dropped)
    facts: dict[str, Any] = {
        "n": clips.counts[0],
        "reference_n": clips.counts[1],
        "frames": frames,
        "first_frame": "dropped" if reading.drop_first and frames < form.frames else "kept",
        "fps": form.fps,
        "size": [form.height, form.width],
        "resize": f"{reading.resize.value}, Lanczos" if reading.size else "none",
        "better": entry.better,
    }
    if metric.net:
        net = WEIGHTS[metric.net]
        facts |= {
            "features": f"{net.title}, {net.dimension} per {'clip' if net.kind == 'video' else 'frame'}",
            "d": net.dimension,
            "network_size": list(net.size) if net.size else "as given",
            "network_resize": net.resize,
            "weights_sha256": loaded[metric.net].sha256,
        }
        if metric.kind == "set":
            halves = f"{request.draws} random halves, seed {SEED}{'' if clips.unpaired else ', pairs drawn together'}"
            error = "jackknife over groups" if metric.distance.extrapolated else halves if request.draws else "none"
            facts |= {"per_clip": "mean over frames"} if net.kind == "frame" else {}
            facts["standardised"] = "reference mean and standard deviation" if net.standardised else "no"
            facts["error"] = error
    own = {**entry.facts, **entry.more_facts}
    if clips.unpaired:
        own.pop("matched_pairs", None)
    return facts | own


def _warnings(request: Request, clips: Clips, rows: Sequence[Row]) -> tuple[str, ...]:
    notes = [f"{len(clips.skipped)} clip(s) skipped; n counts the rest"] if clips.skipped else []
    if clips.timeless and clips.form.fps is not None:
        notes.append(f"{clips.timeless} image folders carry no time: taken to be at {clips.form.fps:g} fps")
    if not request.weights and request.metrics is None:
        notes.append("no weights at hand, so no fvd and no kvd: run cinelora-fetch (`make fetch`) or give --weights")
    for metric in (row.metric for row in rows if row.metric.kind == "set"):
        if doubt := unreliable(metric.family, min(clips.counts), WEIGHTS[metric.net].dimension):
            notes.append(f"{metric.name}: {doubt}")
    return tuple(notes)
