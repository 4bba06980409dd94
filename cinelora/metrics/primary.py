"""The scores that the report of a study is about. Whatever names a score, a sentence or a W&B view, reads them here.

In: the names of the scores of each trial, and those that the user chose. Out: `PrimaryScores`. Names alone, no numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cinelora.metrics.catalogue import ABSDIFF, FAMILIES, family, metric

LOSS = "heldout_loss"
STEADINESS = "consistency[mnv2]"
MOTION = ABSDIFF
PICTURE = "psnr"
NETS = ("vjepa", "i3d", "videomae", "tnv2")  # whose distance is taken, the best judge of video first
DISTANCES = tuple(f"{of}[{net}]" for net in NETS for of in ("kvd", "jedi", "fvd"))  # kvd first: it has no bias
STANDARD = "kvd[tnv2]"  # where no trial has a distance


@dataclass(frozen=True)
class PrimaryScores:
    """`answered`: the rank is chosen by these. `distance`: the first between sets, or else the best there is."""

    answered: tuple[str, ...]
    distance: str

    @property
    def net(self) -> str:
        """That of the distance."""
        return metric(self.distance).net

    @property
    def distances(self) -> tuple[str, ...]:
        """The distance, and the Frechet distance of its net."""
        return tuple(dict.fromkeys((self.distance, f"fvd[{self.net}]")))

    @property
    def loss_first(self) -> tuple[str, ...]:
        return tuple(sorted(self.answered, key=lambda score: score != LOSS))

    @property
    def compared(self) -> tuple[str, ...]:
        """The scores of the lines to read; the CSV files have all."""
        return tuple(dict.fromkeys((*self.loss_first, PICTURE)))

    @property
    def sampled(self) -> tuple[str, ...]:
        """Those of `compared` that change with the sampling noise."""
        return tuple(score for score in self.compared if score != LOSS)

    @property
    def of_clips(self) -> tuple[str, ...]:
        """Scores that a single clip has."""
        own = (score for score in self.loss_first if score == LOSS or metric(score).kind != "set")
        return tuple(dict.fromkeys((*own, STEADINESS, PICTURE)))


def primary_scores(trials: Collection[Collection[str]], chosen: Sequence[str] = ()) -> PrimaryScores:
    """`chosen`, or the best distance and the held-out loss. A distance that every trial has goes before one of some."""
    shared = (score for score in DISTANCES if trials and all(score in known for known in trials))
    some = (score for score in DISTANCES if any(score in known for known in trials))
    best = next(shared, next(some, STANDARD))
    answered = tuple(chosen) or (best, LOSS)
    return PrimaryScores(answered, next((score for score in answered if is_distance(score)), best))


def is_distance(score: str) -> bool:
    return family(score) in FAMILIES and metric(score).kind == "set"
