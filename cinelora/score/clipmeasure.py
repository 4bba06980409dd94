"""From clips to numbers, a few clips at a time: features for set metrics, values of clip metrics.

In: clips of one form, nets, metrics. Out: `Measured`: features (N, D) by net, values (N,) by metric, in the order of
the clips. N clips, T frames, D feature dimensions; frames are uint8 (N, T, H, W, 3), levels 0..255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinelora.core.cli import UserError
from cinelora.features import clip_scores as scores
from cinelora.features.motion import FEATURE_SCORES, PIXEL_SCORES, Footage
from cinelora.features.nets import NETS
from cinelora.score.clips import Clip, Form, Look, read_clip
from cinelora.score.request import ABSDIFF, Metric

Array = NDArray[np.float64]
Frames = NDArray[np.uint8]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measured:
    """Of N clips: `features[net]` (N, D) float64, for frame nets the mean over scored frames; `values[metric]` (N,)."""

    features: Mapping[str, Array]
    values: Mapping[str, Array]


@dataclass(frozen=True)
class Batch:
    """A few clips, their true ones where metrics compare, and what is worked out from them once."""

    frames: Frames
    truth: Frames | None
    dropped: int  # 1: frame 0 is not scored
    fps: float | None
    nets: Mapping[str, Any]

    @cached_property
    def _known(self) -> dict[str, Any]:
        return {}

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def per_frame(self, net: str) -> NDArray[np.float32]:
        """(N, T, D) of a frame net, frame 0 included."""
        return self.once(net, lambda: NETS[net].extract(self.nets[net], self.frames))

    def of_clips(self, net: str) -> Array:
        """(N, D): of a video net, or the mean over the scored frames of a frame net."""
        if NETS[net].facts.kind == "video":
            return np.asarray(NETS[net].extract(self.nets[net], self.frames[:, self.dropped :]), np.float64)
        return np.asarray(self.per_frame(net)[:, self.dropped :].mean(axis=1), np.float64)

    def footage(self, flow: str) -> Footage:
        # only dynamic_degree looks at the rate, and it is refused where there is none
        return self.once(f"flow {flow}", lambda: Footage(self.frames, self.fps or 1.0, self.truth, flow))

    def true_clips(self) -> Frames:
        if self.truth is None:
            raise ValueError("this metric compares with the true clips: give truth")
        return self.truth


def _of_pixels(family: str) -> Callable[[Batch, str], Array]:
    return lambda batch, flow: PIXEL_SCORES[family].compute(batch.footage(flow or "dis"))


def _of_features(family: str) -> Callable[[Batch, str], Array]:
    return lambda batch, net: FEATURE_SCORES[family].compute(batch.per_frame(net))


def _motion(batch: Batch, inside: str) -> Array:
    if inside == ABSDIFF:
        return scores.motion(batch.frames, batch.frames, 0)
    return PIXEL_SCORES["motion"].compute(batch.footage(inside))


def _image_similarity(batch: Batch, net: str) -> Array:
    image = NETS[net].extract(batch.nets[net], batch.true_clips()[:, :1])[:, 0]
    return scores.image_similarity(batch.per_frame(net), image, batch.dropped)


def _lpips(batch: Batch, _: str) -> Array:
    pair = (batch.frames[:, batch.dropped :], batch.true_clips()[:, batch.dropped :])
    return np.asarray(NETS["lpips"].extract(batch.nets["lpips"], *pair).mean(axis=1), np.float64)


def _neighbours(batch: Batch, net: str) -> Array:
    steps = NETS[net].extract(batch.nets[net], batch.frames[:, 1:], batch.frames[:, :-1])
    return np.asarray(steps.mean(axis=1), np.float64)


CLIP_VALUES: dict[str, Callable[[Batch, str], Array]] = {
    **{name: _of_pixels(name) for name in ("temporal_flickering", "warp_error", "warp_excess", "dynamic_degree")},
    **{name: _of_features(name) for name in ("consistency", "tdelta")},
    "motion": _motion,
    "image_similarity": _image_similarity,
    "psnr": lambda batch, _: scores.psnr(batch.frames, batch.true_clips(), batch.dropped),
    "ssim": lambda batch, _: scores.ssim(batch.frames, batch.true_clips(), batch.dropped),
    "lpips": _lpips,
    "neighbours": _neighbours,
}


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
