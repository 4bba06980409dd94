"""What a trial will cost: estimated from the finished trials of the study, or from arithmetic if there are none.

In: settings of a trial, results of others. Out: seconds, and the source of the estimate. Standard library only.

Work is counted in seconds of an H100, from speeds measured there. Training, evaluation and generation have a rate each
(1: as fast as an H100), scoring a time per clip, the rest is constant. The rates are medians over the finished trials;
without any, they follow from the data sheet of the card.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

from cinelora.core.cli import UserError
from cinelora.core.config import Checkpointing, ClusterConfig, Method, TrialConfig
from cinelora.core.records import TrialResult
from sweeps.denoiser import Denoiser
from sweeps.memory import settled

HELDOUT_TIMES = 5  # forwards a clip for the held-out loss


@dataclass(frozen=True)
class Gpu:
    """A GPU. `tflops`: dense bfloat16, of its data sheet; `gib`: memory that a program sees, in whole GiB."""

    tflops: float
    gib: float


GPUS = {
    "A100": Gpu(312.0, 79),
    "A100-40": Gpu(312.0, 39),
    "H100": Gpu(989.0, 79),
    "H200": Gpu(989.0, 139),
    "L40S": Gpu(362.0, 44),
    "A6000": Gpu(155.0, 47),
}


MEASURED = "H100"
# Of an H100 80GB HBM3 with torch 2.11 in bfloat16, fitted to the times of docs/benchmarks.md, all within 3 %:
LINEAR, ATTENTION = 790e12, 610e12  # operations a second, of linear layers and of the attention products
EAGER, COMPILED = 1.41e-10, 5.45e-11  # seconds a token, width and block for all the rest of one pass


def forward_seconds(net: Denoiser, tokens: int, compiled: bool) -> float:
    """One forward pass of one clip on an H100."""
    rest = tokens * net.width * net.layers * (COMPILED if compiled else EAGER)
    return net.linear(tokens) / LINEAR + net.attention(tokens) / ATTENTION + rest


def training_seconds(
    net: Denoiser, tokens: int, compiled: bool, checkpointing: Checkpointing, blocks: int, frozen: bool
) -> float:
    """Forward and backward pass of one clip on an H100, with `blocks` (0: all) of its blocks checkpointed.

    Backward: linear layers once more (twice if their weights train), attention twice and a half, since fused attention
    computes its scores again, all the rest twice. A checkpointed block repeats its forward pass; where self-attention
    is kept, without that, and without the last linear layer, whose result nobody needs.
    """
    linear, attention = net.linear(tokens) / LINEAR, net.attention(tokens) / ATTENTION
    rest = tokens * net.width * net.layers * (COMPILED if compiled else EAGER)
    seconds = linear * (2 if frozen else 3) + attention * 3.5 + rest * 3
    if checkpointing is Checkpointing.none:
        return seconds
    again = linear + attention + rest
    if checkpointing is Checkpointing.attention:
        last = 2.0 * tokens * net.width * net.feed_forward * net.layers / LINEAR
        again = linear - last + rest
    return seconds + again * min(1.0, (blocks or net.layers) / net.layers)


@dataclass(frozen=True)
class Workload:
    """Seconds that one trial, on its whole gang, would take one H100, and the clips it generates."""

    train: float
    evaluate: float
    generate: float
    clips: int
    workers: int
    step: float  # of one optimiser step
    clip: float  # until a clip is generated, of each worker that shares it
    silent: float  # the most of a worker between two reports of its progress

    @property
    def seconds(self) -> float:
        """Of training, evaluation and generation."""
        return self.train + self.evaluate + self.generate

    @staticmethod
    def of(config: TrialConfig, net: Denoiser, clips: int, workers: int) -> Workload:
        tokens, train, compiled = config.data.video_tokens, config.train, config.model.compile
        kind, frozen = settled(config), config.method is not Method.full
        one = training_seconds(net, tokens, compiled, kind, train.checkpointed_blocks, frozen)
        step = train.batch_size * one
        forward, passes = forward_seconds(net, tokens, compiled), 2 if config.sample.guidance > 1 else 1
        curve = (train.steps // train.heldout_every + 1) * min(train.heldout_windows, clips) * HELDOUT_TIMES * forward
        clip = config.sample.steps * passes * forward
        if not config.method.has_model:
            return Workload(0.0, 0.0, 0.0, clips, workers, step, clip, 0.0)
        made = clips if config.sample.clips else 0
        sampler_step = min(config.sample.batch_size, made) * passes * forward
        return Workload(
            train=step * train.steps + curve if config.method.trains else 0.0,
            evaluate=clips * HELDOUT_TIMES * forward,
            generate=made * clip,
            clips=made,
            workers=workers,
            step=step,
            clip=clip / config.model.sequence_workers if made else 0.0,
            silent=max(step / workers, sampler_step / config.model.sequence_workers),
        )


@dataclass(frozen=True)
class Rates:
    """`train`, `evaluate`, `generate`: of a worker, 1 is an H100; `score`: seconds a clip; `rest`: seconds."""

    train: float
    evaluate: float
    generate: float
    score: float
    rest: float

    def seconds(self, work: Workload) -> float:
        """Of a whole trial on its gang, base loaded."""
        computed = work.train / self.train + work.evaluate / self.evaluate + work.generate / self.generate
        return (computed + work.clips * self.score) / work.workers + self.rest

    def pace(self, work: Workload) -> tuple[float, float]:
        """(seconds an optimiser step, seconds until a clip is generated)."""
        return work.step / work.workers / self.train, work.clip / self.generate

    def silence(self, work: Workload) -> float:
        """The longest time, in seconds, between two reports of a healthy trial."""
        return work.silent / min(self.train, self.generate)


@dataclass(frozen=True)
class CostModel:
    """Rates and their source. `error`: mean relative error of a trial when predicted from the others; not `clips`: of
    trials that generated none, so generation has the rate of the held-out loss, whose passes are the same."""

    rates: Rates
    trials: int
    error: float | None
    device: str = ""
    clips: bool = True

    @property
    def source(self) -> str:
        if not self.trials:
            scaled = "" if self.device == MEASURED else f", scaled by the data sheet of {self.device}"
            return f"no trial finished yet: speeds measured on an {MEASURED}{scaled}"
        error = "" if self.error is None else f", mean error {self.error:.0%} when each is predicted from the others"
        unknown = "" if self.clips else " without clips: decoding and scoring them is not counted"
        return f"fitted on {self.trials} finished trials{unknown}{error}"


def assumed(cluster: ClusterConfig) -> CostModel | None:
    """From the data sheet of one worker's device; None without `cluster.device`. Scoring and start-up are unknown: 0.

    Raises UserError for an unknown device.
    """
    if not cluster.device:
        return None
    if cluster.device not in GPUS:
        raise UserError(f"cluster.device={cluster.device}: unknown; take one of {', '.join(GPUS)}, or leave it empty")
    rate = GPUS[cluster.device].tflops / GPUS[MEASURED].tflops * max(1.0, cluster.gpus)
    return CostModel(Rates(rate, rate, rate, 0.0, 0.0), 0, None, cluster.device)


def fitted(done: Iterable[tuple[Workload, TrialResult]]) -> CostModel | None:
    """Medians over finished trials; None without any that trained and, unless none shall, generated."""
    known = [(work, result) for work, result in done if result.restarts == 0]  # a restart records its last run only
    rates = _rates(known)
    if rates is None:
        return None
    errors = []
    for index, (work, result) in enumerate(known):
        others = _rates(known[:index] + known[index + 1 :])
        if others is not None:
            errors.append(abs(others.seconds(work) / sum(result.seconds.values()) - 1))
    return CostModel(rates, len(known), fmean(errors) if errors else None, clips=any(work.clips for work, _ in known))


def _rates(known: list[tuple[Workload, TrialResult]]) -> Rates | None:
    def rate(part: str) -> float | None:
        found = [
            getattr(work, part) / (result.seconds[part] * work.workers)
            for work, result in known
            if getattr(work, part) > 0 and result.seconds.get(part, 0) > 0
        ]
        return median(found) if found else None

    train, evaluate, generate = rate("train"), rate("evaluate"), rate("generate")
    generate = generate if any(work.clips for work, _ in known) else evaluate
    if train is None or evaluate is None or generate is None:
        return None
    score = median(result.seconds["score"] * work.workers / max(1, work.clips) for work, result in known)
    rest = median(result.seconds["overhead"] + result.seconds.get("compiling", 0.0) for _, result in known)
    return Rates(train, evaluate, generate, score, rest)


def gpu_hours(seconds: Mapping[str, float], work: Mapping[str, Workload], gpus: float) -> float:
    """GPU-hours of these trials; worker-hours where a worker has no GPU."""
    return sum(seconds[trial] * work[trial].workers * (gpus or 1) for trial in seconds) / 3600
