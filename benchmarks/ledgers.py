"""Simulated studies with planted effects: records as a finished study folder gives them, without the folder.

In: a `Kind` (the effects planted in the ranks) and a random generator. Out: `analysis.study.load.Study`, held in
memory, and its true values. Two scores are planted: `heldout_loss`, a number per clip, and `kvd[tnv2]`, through
Gaussian features whose distance has a closed form; `fvd[tnv2]`, `jedi[vjepa]`, `kvd[vjepa]` follow from it. All sizes
are those of the shipped pilot (study `quick` on its first film: docs/decisions.md, 52; 96 clips, 3 seeds).
R ranks, S seeds, N clips, D features; z: standard normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.linalg import hadamard
from scipy.stats import norm

from analysis.study.files import CURVE_COLUMNS, ClipValues, Features
from analysis.study.load import Reference, Study, Trial
from cinelora.core.config import LoraConfig, Method, TrialConfig
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, reference_key
from cinelora.metrics.distances import Array

RANKS = (4, 8, 16, 32, 64, 128)
CLIPS = tuple(f"c{index:02d}" for index in range(96))
WITHIN_SHOT = 0.5  # correlation of clips of one shot; assumed, since the clips of the pilot are of 96 shots
FAR = 3.3  # standard deviations; beyond it a distance could fall below that of no shift
LOSS, KVD, FVD, GAP = "heldout_loss", "kvd[tnv2]", "fvd[tnv2]", "consistency_gap[mnv2]"
JEDI, KVD_VJEPA = "jedi[vjepa]", "kvd[vjepa]"


@dataclass(frozen=True)
class Spread:
    """Standard deviations of one score: of clips, and what a training seed adds to all ranks and to one."""

    base_clip: float
    clip: float  # how much a clip gains, whatever the rank
    rank_clip: float
    seed_clip: float
    rest: float
    seed: float  # the same for every rank of a seed
    rank_seed: float


@dataclass(frozen=True)
class Plant:
    """A score of the base and the gain that a share of 1 stands for."""

    base: float
    gain: float
    spread: Spread


# Variance components of the pilot (ranks 1 to 16 x seeds x clips), as standard deviations. Its loss shows no common
# seed effect (the estimate is below zero); one of the size of `rank_seed` is planted all the same.
PILOT_LOSS = Plant(0.517, 0.19, Spread(0.205, 0.110, 0.0070, 0.0059, 0.0078, seed=0.0023, rank_seed=0.0023))
# Clips enter a distance through their features (`_noise`), so that only the seeds' spreads are used here.
PILOT_GAP = Plant(0.0466, 0.008, Spread(0, 0, 0, 0, 0, seed=0.0005, rank_seed=0.0005))  # clips: `gap_values`
PILOT_KVD = Plant(2.75, 1.9, Spread(0, 0, 0, 0, 0, seed=0.207, rank_seed=0.065))


@dataclass(frozen=True)
class Kind:
    """`shares[rank]` of the gain over the base that a rank truly has, of both scores alike."""

    name: str
    shares: tuple[float, ...]
    clips_per_shot: int = 1
    seeds: int = 3
    loss: Plant = PILOT_LOSS
    kvd: Plant = PILOT_KVD

    def difference(self, score: str, rank: int) -> float:
        """The true value of rank minus base: the mean over all training seeds and all clips.

        The true fvd is the squared shift and a part that the ranks share with the base.
        """
        if (true := TRUE_OF_SHIFT.get(score)) is not None:
            levels = self.kvd.base - self.kvd.gain * self.shares[RANKS.index(rank)] - _normal(self.kvd.spread)
            return float(np.mean(true(shift_for(levels))) - np.mean(true(shift_for(np.array(self.kvd.base)))))
        plant = {LOSS: self.loss, KVD: self.kvd, GAP: PILOT_GAP}[score]
        return -plant.gain * self.shares[RANKS.index(rank)]


def ledger(kind: Kind, random: np.random.Generator) -> Study:
    """One study of that kind: base, RANKS x seeds, all finished."""
    losses = _losses(kind, random)
    real, generated = _features(kind, random)
    specs = (
        _spec(Method.base, 8, 0),
        *(_spec(Method.lora, rank, seed) for rank in RANKS for seed in range(kind.seeds)),
    )
    trials = tuple(
        Trial(spec, _result(spec), {"tnv2": _held(rows)}, {LOSS: ClipValues(CLIPS, values)}, lambda: _NO_CURVE)
        for spec, rows, values in zip(specs, generated, losses, strict=True)
    )
    shots = {clip: f"shot{index // kind.clips_per_shot:02d}" for index, clip in enumerate(CLIPS)}
    captions = dict.fromkeys(CLIPS, "")
    reference = Reference({"tnv2": _held(real)}, {}, shots, captions)
    return Study(kind.name, StudyFolder(Path("nowhere")), specs, trials, (), {reference_key(specs[0]): reference})


def _losses(kind: Kind, random: np.random.Generator) -> Array:
    """Held-out losses of the base and then of rank by rank and seed by seed, (1 + R S, N)."""
    plant, spread, n, r, s = kind.loss, kind.loss.spread, kind.clips_per_shot, len(RANKS), kind.seeds
    base = plant.base + spread.base_clip * _clips(random, n)
    gains = plant.gain * np.array(kind.shares)[:, None, None] + spread.clip * _clips(random, n)
    gains = gains + spread.rank_clip * _clips(random, n, r, 1) + spread.seed_clip * _clips(random, n, 1, s)
    gains = gains + spread.rest * _clips(random, n, r, s) + _seeds(kind, spread, random)[:, :, None]
    return np.vstack([base, (base - gains).reshape(r * s, -1)])


WITH_BASE_GAP, BETWEEN_RANKS = 0.77, 0.95  # correlations in the pilot of deviations from the real clip's consistency


def gap_values(kind: Kind, random: np.random.Generator) -> Array:
    """Gaps of the base and then of rank by rank and seed by seed, (1 + R S, N): sizes of normal deviations, so that
    their means are known."""
    n, r, s = kind.clips_per_shot, len(RANKS), kind.seeds
    shared = np.sqrt(WITH_BASE_GAP) * _clips(random, n)
    base = shared + np.sqrt(1 - WITH_BASE_GAP) * _clips(random, n)
    ranks = shared + np.sqrt(BETWEEN_RANKS - WITH_BASE_GAP) * _clips(random, n)
    ranks = ranks + np.sqrt(1 - BETWEEN_RANKS) * _clips(random, n, r, s)
    levels = PILOT_GAP.base - PILOT_GAP.gain * np.array(kind.shares)[:, None] - _seeds(kind, PILOT_GAP.spread, random)
    of_normal = np.sqrt(np.pi / 2)  # deviation of a normal distribution over the mean of its sizes
    return np.abs(of_normal * np.vstack([PILOT_GAP.base * base, (levels[:, :, None] * ranks).reshape(r * s, -1)]))


def _seeds(kind: Kind, spread: Spread, random: np.random.Generator) -> Array:
    """What a training seed adds to a gain, (R, S); one in a thousand lies beyond FAR and is drawn in to it."""
    common, own = random.normal(size=kind.seeds), random.normal(size=(len(RANKS), kind.seeds))
    most = FAR * np.hypot(spread.seed, spread.rank_seed)
    return np.asarray(np.clip(spread.seed * common + spread.rank_seed * own, -most, most), dtype=np.float64)


def _clips(random: np.random.Generator, per_shot: int, *shape: int) -> Array:
    """z of every clip, (*shape, N), clips of a shot correlated."""
    own = random.normal(size=(*shape, len(CLIPS)))
    if per_shot == 1:
        return own
    of_shot = np.repeat(random.normal(size=(*shape, len(CLIPS) // per_shot)), per_shot, axis=-1)
    return np.asarray(np.sqrt(WITHIN_SHOT) * of_shot + np.sqrt(1 - WITHIN_SHOT) * own, dtype=np.float64)


# Features. The real clips are N(0, C), those of a model N(m, NARROW^2 C) with m along one axis of C: in the pilot the
# eigenvalues of the 448 standardised TransNetV2 features fall as 0.27, 0.22, 0.13, 0.11, 0.07 of their sum, the models'
# clips have 0.55 of the variance of the real ones, and the base's mean lies on an axis with 0.16 of the variance of the
# real clips.
DIMENSIONS = 32
DECAY = 0.73
AXIS = 2
NARROW = 0.75
# Shares of a feature's variance that clips have in common: a model's with the real one, a rank's with the base's, both
# as correlated as there (0.4, 0.73); the rest divided so that gains spread as there (`planted.sizes` prints both).
WITH_TRUTH, WITH_BASE, OF_ALL_RANKS, OF_RANK, OF_SEED, OF_TRIAL = 0.16, 0.57, 0.06, 0.015, 0.11, 0.085
OF_BASE = 1 - WITH_TRUTH - WITH_BASE


def variances() -> Array:
    """Eigenvalues of C, (D,), of mean 1."""
    falling = DECAY ** np.arange(DIMENSIONS)
    return np.asarray(falling * DIMENSIONS / falling.sum(), dtype=np.float64)


# Features of V-JEPA are not standardised, so that JEDi sees their mean. How long that is was not measured; planted is
# one as long as the clips' deviations from it, along all axes alike.
MEAN = 1.0


def true_distance(shift: Array, degree: int = 3, coef0: float = 1.0, mean: float = 0.0) -> Array:
    """Squared MMD of N(a, C) and N(a + shift along AXIS, NARROW^2 C), a = `mean` along each axis, under
    (x.y / D + coef0)^degree, degree 2 or 3; (K,) in and out.

    Expanded in powers of x.y the kernel is a sum of products of the first three moments.
    """
    first, real = np.full((1, DIMENSIONS), mean), variances()
    second = first + np.asarray(shift).reshape(-1, 1) * (np.arange(DIMENSIONS) == AXIS)
    x, y = (first, real), (second, NARROW**2 * real)

    def mean_kernel(one: tuple[Array, Array], other: tuple[Array, Array]) -> Array:
        (m, s), (n, r) = one, other  # of independent N(m, S) and N(n, R)
        inner = (m * n).sum(1)
        spread = (m**2) @ r + (n**2) @ s + s @ r
        powers = (1.0, inner, inner**2 + spread, inner**3 + 3 * inner * spread + 6 * (m * n) @ (r * s))
        weights = (comb(degree, each) * coef0 ** (degree - each) / DIMENSIONS**each for each in range(degree + 1))
        return np.asarray(sum(weight * power for weight, power in zip(weights, powers, strict=False)))

    return np.asarray(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y), dtype=np.float64)


TRUE_OF_SHIFT: dict[str, Callable[[Array], Array]] = {
    FVD: np.square,
    JEDI: lambda shift: 100 * true_distance(shift, 2, 0.0, MEAN),
    KVD_VJEPA: lambda shift: true_distance(shift, mean=MEAN),
}


def of_vjepa(study: Study) -> Study:
    """`study` with its features as those of V-JEPA, about a mean."""
    mean = MEAN * hadamard(DIMENSIONS).sum(0) / np.sqrt(DIMENSIONS)

    def moved(own: Trial | Reference) -> dict[str, Features]:
        return {"vjepa": _held(own.features["tnv2"].of(CLIPS) + mean)}

    trials = tuple(replace(each, features=moved(each)) for each in study.trials)
    references = {key: replace(each, features=moved(each)) for key, each in study.references.items()}
    return replace(study, trials=trials, references=references)


@cache
def _distances() -> tuple[Array, Array]:
    """Shifts, and the true kvd of each, from the least on."""
    shifts = np.linspace(0, 12, 100_001)
    found = true_distance(shifts)
    return shifts[found.argmin() :], found[found.argmin() :]


def shift_for(distance: Array) -> Array:
    """The shift at which the true kvd is `distance`. ValueError: no shift is so near."""
    shifts, found = _distances()
    if np.min(distance) < found[0] or np.max(distance) > found[-1]:
        raise ValueError(f"a true kvd of {np.min(distance):.3g} is below the {found[0]:.3g} of no shift")
    return np.interp(distance, found, shifts)


def _normal(spread: Spread) -> Array:
    """What a training seed adds to a gain: 1001 quantiles of its normal distribution."""
    return np.asarray(np.hypot(spread.seed, spread.rank_seed) * norm.ppf((np.arange(1001) + 0.5) / 1001))


@cache
def _axes() -> Array:
    """z of D axes -> features of covariance C and variance 1 each, (D, D)."""
    return np.asarray(np.sqrt(variances())[:, None] * hadamard(DIMENSIONS) / np.sqrt(DIMENSIONS), dtype=np.float64)


def _features(kind: Kind, random: np.random.Generator) -> tuple[Array, Array]:
    """Of the true clips (N, D), and of the base and then rank by rank and seed by seed (1 + R S, N, D)."""
    r, s = len(RANKS), kind.seeds

    def noise(share: float, *shape: int) -> Array:
        drawn = _clips(random, kind.clips_per_shot, *shape, DIMENSIONS)
        return np.asarray(np.sqrt(share) * np.moveaxis(drawn, -1, -2), dtype=np.float64)

    true = noise(1.0)
    shared = np.sqrt(WITH_TRUTH) * true + noise(WITH_BASE)
    base = shared + noise(OF_BASE)
    ranks = shared + noise(OF_ALL_RANKS) + noise(OF_RANK, r, 1) + noise(OF_SEED, 1, s) + noise(OF_TRIAL, r, s)
    clips = NARROW * np.concatenate([base[None], ranks.reshape(r * s, *base.shape)])
    plant = kind.kvd
    levels = plant.base - plant.gain * np.array(kind.shares)[:, None] - _seeds(kind, plant.spread, random)
    # a shift is in features, whose axis has the standard deviation that `_axes` multiplies with
    clips[:, :, AXIS] += shift_for(np.array([plant.base, *levels.ravel()]))[:, None] / np.sqrt(variances()[AXIS])
    return true @ _axes(), clips @ _axes()


def _held(rows: Array) -> Features:
    return Features(CLIPS, lambda: rows)


_NO_CURVE = pd.DataFrame(columns=list(CURVE_COLUMNS))


@cache
def _spec(method: Method, rank: int, seed: int) -> TrialSpec:
    name = "base" if method is Method.base else f"r{rank}s{seed}"
    return TrialSpec(name, TrialConfig(method=method, seed=seed, lora=LoraConfig(rank=rank)), {"model": "a"})


def _result(spec: TrialSpec) -> TrialResult:
    """The facts of a trial; its scores stand elsewhere."""
    config, base = spec.config, spec.config.method is Method.base
    return TrialResult(
        trial_id=spec.trial_id,
        method=config.method.value,
        arm="",
        rank=0 if base else config.lora.rank,
        alpha=0.0 if base else config.lora.effective_alpha,
        scale=0.0 if base else config.lora.scale,
        scaling=config.lora.scaling.value,
        targets=config.lora.targets.value,
        learning_rate=config.train.learning_rate,
        seed=config.seed,
        steps=config.train.steps,
        trainable_parameters=config.lora.rank,
        adapter_bytes=config.lora.rank,
        adapter_sha256="",
        train_loss=None,
        heldout_loss=None,
        other_loss=None,
        clips=len(CLIPS),
        seconds={},
        seconds_per_step=None,
        peak_memory_gib=0.0,
        world_size=1,
        restarts=0,
        protocol={},
        unavailable={},
    )
