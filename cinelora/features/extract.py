"""From frames to features and clip scores, a few clips at a time.

In: uint8 RGB frames (N, T, H, W, 3), levels 0..255, and loaded feature nets by name. Out: features (N, D) by net and
clip scores (N,) by name, in the order of the clips. N clips, T frames, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinelora.data.windows import Window
from cinelora.features.clip_scores import FrameFeatures, clip_scores, image_similarity, motion, psnr, ssim
from cinelora.features.motion import FEATURE_SCORES, PIXEL_SCORES, Footage, tdelta, temporal_flickering
from cinelora.features.nets import NETS
from cinelora.features.nets.clip import text_features
from cinelora.features.results import Floats, Scored
from cinelora.metrics.catalogue import ABSDIFF, COLOURS, OF_FLOW
from cinelora.metrics.feature_nets import CLIP_NETS, WEIGHTS
from cinelora.metrics.few_clips import colour_histograms

# ~ From clips to numbers, a few clips at a time: features for set metrics, values of clip metrics.
# ~
# ~ In: clips of one form, nets, metrics. Out: `Measured`: features (N, D) by net, values (N,) by metric, in the
# ~ order of
# ~ the clips. N clips, T frames, D feature dimensions; frames are uint8 (N, T, H, W, 3), levels 0..255.

Array = NDArray[np.float64]
Frames = NDArray[np.uint8]


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
        return motion(batch.frames, batch.frames, 0)
    return PIXEL_SCORES["motion"].compute(batch.footage(inside))


def _image_similarity(batch: Batch, net: str) -> Array:
    image = NETS[net].extract(batch.nets[net], batch.true_clips()[:, :1])[:, 0]
    return image_similarity(batch.per_frame(net), image, batch.dropped)


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
    "psnr": lambda batch, _: psnr(batch.frames, batch.true_clips(), batch.dropped),
    "ssim": lambda batch, _: ssim(batch.frames, batch.true_clips(), batch.dropped),
    "lpips": _lpips,
    "neighbours": _neighbours,
}


def score_batch(
    nets: Mapping[str, Any],
    windows: list[Window],
    made: np.ndarray,
    truth: np.ndarray,
    first: bool,
    footage: Footage | None = None,
) -> Scored:
    """Features and clip scores of frames (N, F, H, W, 3) against the truth; `first`: frame 0 counts in features.

    `footage` are the same frames and truth with what optical flow is asked of; without it there are no flow scores.
    """
    ids, captions = [window.window_id for window in windows], [window.caption for window in windows]
    per_frame, features = net_features(nets, made, first)
    of_frames: dict[str, FrameFeatures] = {}
    others = {"temporal_flickering": temporal_flickering(Footage(made, fps=1.0))}  # no rate is asked for
    for name, found in per_frame.items():
        net = nets[name]
        text = text_features(net, captions) if name in CLIP_NETS else None
        of_frames[name] = FrameFeatures(found, NETS[name].extract(net, truth[:, :1])[:, 0], text)
        others[f"tdelta[{name}]"] = tdelta(found)
    if footage is not None:
        others |= {f"{name}[{footage.flow}]": PIXEL_SCORES[name].compute(footage) for name in OF_FLOW}
    pairs = [name for name in nets if WEIGHTS[name].kind == "pair"]
    distances = {name: NETS[name].extract(nets[name], made, truth) for name in pairs}
    rows = clip_scores(made, truth, ids, first, of_frames, distances, others)
    return Scored(ids, {name: list(found) for name, found in features.items()}, rows)


def net_features(
    nets: Mapping[str, Any], frames: np.ndarray, first: bool
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Of frame nets all frames (N, F, D); of `feature_nets` the clips (N, D), for frame nets the mean over frames."""
    start = 0 if first else 1
    per_frame, of_clips = {}, {}
    for name, net in nets.items():
        facts, extract = WEIGHTS[name], NETS[name].extract
        if facts.kind == "video":
            of_clips[name] = extract(net, frames[:, start:][:, : facts.most_frames])
        elif facts.kind == "frame":
            per_frame[name] = extract(net, frames)
            of_clips[name] = per_frame[name][:, start:].mean(axis=1)
    colours = colour_histograms(frames[:, start:]).reshape(len(frames), -1)
    return per_frame, of_clips | {COLOURS: colours.astype(np.float32)}


def feature_nets(nets: Mapping[str, Any]) -> list[str]:
    """The feature sets that are kept: of all nets but those that compare two clips, and the colours."""
    return [*(name for name in nets if WEIGHTS[name].kind != "pair"), COLOURS]
