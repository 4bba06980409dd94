"""What a trial will cost: estimated from the finished trials of the study, or from arithmetic if there are none.

In: settings of a trial, results of others. Out: seconds, and the source of the estimate. Standard library only.

Training, evaluation and generation have a rate each (operations per second and worker), scoring a time per clip, the
rest is constant. The rates are medians over the finished trials; without any, they follow from the peak rate of the
hardware and an assumed utilisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

from cinelora.core.cli import UserError
from cinelora.core.config import ClusterConfig, Method, TrialConfig
from cinelora.core.records import TrialResult
from sweeps.denoiser import Denoiser

HELDOUT_TIMES = 5  # forwards a clip for the held-out loss
UTILISATION = 0.35  # of the peak, assumed where nothing was measured


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


@dataclass(frozen=True)
class Workload:
    """Operations of one trial (of its whole gang), and the clips it generates."""

    train: float
    evaluate: float
    generate: float
    clips: int
    workers: int
    step: float  # operations of one optimiser step
    clip: float  # operations until a clip is generated, of each worker that shares it
    silent: float  # most operations of a worker between two reports of its progress

    @staticmethod
    def of(config: TrialConfig, net: Denoiser, clips: int, workers: int) -> Workload:
        tokens, train = config.data.video_tokens, config.train
        checkpointed = min(1.0, (train.checkpointed_blocks or net.layers) / net.layers)  # share computed twice
        frozen = config.method is not Method.full
        step = train.batch_size * net.step(tokens, checkpointed if train.gradient_checkpointing else 0.0, frozen)
        forward, passes = net.forward(tokens), 2 if config.sample.guidance > 1 else 1
        curve = (train.steps // train.heldout_every + 1) * min(train.heldout_windows, clips) * HELDOUT_TIMES * forward
        clip = config.sample.steps * passes * forward
        sampler_step = min(config.sample.batch_size, clips) * passes * forward
        return Workload(
            train=0.0 if config.method is Method.base else step * train.steps + curve,
            evaluate=clips * HELDOUT_TIMES * forward,
            generate=clips * clip,
            clips=clips,
            workers=workers,
            step=step,
            clip=clip / config.model.sequence_workers,
            silent=max(step / workers, sampler_step / config.model.sequence_workers),
        )


@dataclass(frozen=True)
class Rates:
    """`train`, `evaluate`, `generate`: operations a second and worker; `score`: seconds a clip; `rest`: seconds."""

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
    """Rates and their source. `error`: mean relative error of a trial when predicted from the others."""

    rates: Rates
    trials: int
    error: float | None

    @property
    def source(self) -> str:
        if not self.trials:
            return f"no trial measured yet: peak rate at an assumed {UTILISATION:.0%} utilisation"
        error = "" if self.error is None else f", mean error {self.error:.0%} when each is predicted from the others"
        return f"fitted on {self.trials} finished trials{error}"


def assumed(cluster: ClusterConfig) -> CostModel | None:
    """From the peak rate of one worker's device; None without `cluster.device`. Scoring and start-up are unknown: 0.

    Raises UserError for an unknown device.
    """
    if not cluster.device:
        return None
    if cluster.device not in GPUS:
        raise UserError(f"cluster.device={cluster.device}: unknown; take one of {', '.join(GPUS)}, or leave it empty")
    rate = GPUS[cluster.device].tflops * max(1.0, cluster.gpus_per_worker) * 1e12 * UTILISATION
    return CostModel(Rates(rate, rate, rate, 0.0, 0.0), 0, None)


def fitted(done: Iterable[tuple[Workload, TrialResult]]) -> CostModel | None:
    """Medians over finished trials; None without any that trained and generated."""
    known = [(work, result) for work, result in done if result.restarts == 0]  # a restart records its last run only
    rates = _rates(known)
    if rates is None:
        return None
    errors = []
    for index, (work, result) in enumerate(known):
        others = _rates(known[:index] + known[index + 1 :])
        if others is not None:
            errors.append(abs(others.seconds(work) / sum(result.seconds.values()) - 1))
    return CostModel(rates, len(known), fmean(errors) if errors else None)


def _rates(known: list[tuple[Workload, TrialResult]]) -> Rates | None:
    def rate(part: str) -> float | None:
        found = [
            getattr(work, part) / (result.seconds[part] * work.workers)
            for work, result in known
            if getattr(work, part) > 0 and result.seconds.get(part, 0) > 0
        ]
        return median(found) if found else None

    train, evaluate, generate = rate("train"), rate("evaluate"), rate("generate")
    if train is None or evaluate is None or generate is None:
        return None
    score = median(result.seconds["score"] * work.workers / max(1, work.clips) for work, result in known)
    return Rates(train, evaluate, generate, score, median(result.seconds["overhead"] for _, result in known))


def gpu_hours(seconds: Mapping[str, float], work: Mapping[str, Workload], gpus: float) -> float:
    """GPU-hours of these trials; worker-hours where a worker has no GPU."""
    return sum(seconds[trial] * work[trial].workers * (gpus or 1) for trial in seconds) / 3600
