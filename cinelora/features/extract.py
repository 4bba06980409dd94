"""From frames to features and clip metrics, a few clips at a time.

In: a `Batch`: uint8 RGB frames (N, T, H, W, 3), levels 0..255, loaded feature nets by name, and what metrics compare
with. Out: `Scored`: features (N, D) by net and values (N,) by metric, in the order of the clips. Trials and
`python -m cinelora.score` both score through here. N clips, T frames, D feature dimensions.
Which metrics there are: `cinelora/metrics/catalogue.py`; a clip metric has its function in `CLIP_METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from cinelora.features import motion
from cinelora.features.clip_scores import consistency, image_similarity, psnr, similarity, ssim
from cinelora.features.motion import PairStats, pair_stats
from cinelora.features.nets import NETS
from cinelora.features.nets.clip import text_features
from cinelora.features.nets.frames import Floats, Frames, check_frames
from cinelora.features.results import Scored
from cinelora.metrics.catalogue import ABSDIFF, APART, COLOURS, NEIGHBOURS, Metric, study_metrics
from cinelora.metrics.distances import Array
from cinelora.metrics.few_clips import colour_histograms


@dataclass(frozen=True)
class Batch:
    """A few clips and what is computed from them once. ValueError: frames of another type, or of two shapes."""

    nets: Mapping[str, Any]
    frames: Frames
    reference: Frames | None = None  # the reference clip of each, for metrics that compare
    dropped: int = 0  # 1: frame 0 is not scored
    fps: float | None = None
    captions: Sequence[str] = ()
    reference_pairs: Mapping[str, PairStats] = field(default_factory=dict)  # by flow, where they are known
    device: str = "cpu"  # of PSNR and SSIM; a net computes where its weights are
    _known: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for frames in (self.frames, self.reference):
            if frames is not None:
                check_frames(frames)
        if self.reference is not None and self.reference.shape != self.frames.shape:
            raise ValueError(f"frames are {self.frames.shape}, reference is {self.reference.shape}: they must agree")

    def features(self, name: str) -> Floats:
        """(N, D): of a video net, the mean over the scored frames of a frame net, or the colour histograms."""
        scored = self.frames[:, self.dropped :]
        if name == COLOURS:
            return colour_histograms(scored).reshape(len(scored), -1).astype(np.float32)
        if NETS[name].facts.kind == "video":
            return NETS[name].extract(self.nets[name], scored[:, : NETS[name].facts.most_frames])
        return np.asarray(self.per_frame(name)[:, self.dropped :].mean(axis=1))

    def values(self, metric: Metric) -> Array:
        """(N,) of a clip metric. ValueError: it compares with reference clips, and there are none."""
        compute = CLIP_METRICS.get(metric.name) or CLIP_METRICS[metric.family]
        return compute(self, metric.inside)

    def per_frame(self, net: str) -> Floats:
        """(N, T, D) of a frame net, frame 0 included."""
        return self._once(net, lambda: NETS[net].extract(self.nets[net], self.frames))

    def compared(self, net: str) -> tuple[Floats, Floats]:
        """(N, T) to the reference clips, if there are, and (N, T - 1) to the frame before, by a net of pairs."""
        return self._once(net, lambda: NETS[net].extract(self.nets[net], self.frames, self.reference))

    def pairs(self, flow: str) -> PairStats:
        return self._once(f"flow {flow}", lambda: pair_stats(self.frames, flow))

    def pairs_of_reference(self, flow: str) -> PairStats:
        return self.reference_pairs.get(flow) or pair_stats(self.reference_frames(), flow)

    def reference_frames(self) -> Frames:
        if self.reference is None:
            raise ValueError("this metric compares with reference clips: give them")
        return self.reference

    def _once(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]


def _image_similarity(batch: Batch, net: str) -> Array:
    image = NETS[net].extract(batch.nets[net], batch.reference_frames()[:, :1])[:, 0]
    return image_similarity(batch.per_frame(net), image, batch.dropped)


def _similarity(apart: int, batch: Batch, net: str) -> Array:
    return similarity(batch.per_frame(net), apart)


def _clip_sim(batch: Batch, net: str) -> Array:
    captions = text_features(batch.nets[net], batch.captions)
    return 100.0 * image_similarity(batch.per_frame(net), captions, batch.dropped)


def _to_reference(net: str, batch: Batch, _: str) -> Array:
    batch.reference_frames()
    return batch.compared(net)[0][:, batch.dropped :].astype(np.float64).mean(axis=1)


def _neighbours(batch: Batch, net: str) -> Array:
    return batch.compared(net)[1].astype(np.float64).mean(axis=1)


def _dynamic_degree(batch: Batch, flow: str) -> Array:
    if batch.fps is None:
        raise ValueError("dynamic_degree needs the frame rate")
    return motion.dynamic_degree(batch.frames, batch.fps, flow)


# By family, or by name where a family has two formulas: (batch, text in the brackets) -> (N,).
CLIP_METRICS: dict[str, Callable[[Batch, str], Array]] = {
    "consistency": lambda batch, net: consistency(batch.per_frame(net)),
    **{f"similarity_{apart}": partial(_similarity, apart) for apart in APART},
    "image_similarity": _image_similarity,
    "clip_sim": _clip_sim,
    "lpips": partial(_to_reference, "lpips"),
    "stlpips": partial(_to_reference, "stlpips"),
    "neighbours": _neighbours,
    NEIGHBOURS: _neighbours,
    ABSDIFF: lambda batch, _: motion.frame_difference(batch.frames),
    "psnr": lambda batch, _: psnr(batch.frames, batch.reference_frames(), batch.dropped, batch.device),
    "ssim": lambda batch, _: ssim(batch.frames, batch.reference_frames(), batch.dropped, batch.device),
    "temporal_flickering": lambda batch, _: motion.temporal_flickering(batch.frames),
    "tdelta": lambda batch, net: motion.tdelta(batch.per_frame(net)),
    "motion": lambda batch, flow: motion.motion(batch.pairs(flow)),
    "warp_error": lambda batch, flow: motion.warp_error(batch.pairs(flow)),
    "warp_excess": lambda batch, flow: motion.warp_excess(batch.pairs(flow), batch.pairs_of_reference(flow)),
    "dynamic_degree": _dynamic_degree,
}


def score_batch(batch: Batch, clip_ids: Sequence[str], metrics: Iterable[Metric], features: Iterable[str]) -> Scored:
    """The clip `metrics` and the `features`, by net, of a batch; numbers that are not finite are left in."""
    return Scored(
        list(clip_ids),
        {name: batch.features(name) for name in features},
        {each.name: batch.values(each) for each in metrics},
    )


def clip_metrics(nets: Iterable[str], flow: str = "", frames: int | None = None) -> list[Metric]:
    """The clip metrics of a trial with these nets and this flow that frames and captions suffice for.

    `frames` of a clip: of a curve only the points that so short a clip has.
    """
    known = [each for each in study_metrics(nets, flow) if {each.name, each.family} & CLIP_METRICS.keys()]
    return [each for each in known if frames is None or not each.entry.curve or frames >= each.entry.least_frames]


def feature_sets(nets: Iterable[str]) -> list[str]:
    """The features that a trial keeps: of all nets but those that compare two clips, and the colours."""
    return [*(name for name in nets if NETS[name].facts.kind != "pair"), COLOURS]
