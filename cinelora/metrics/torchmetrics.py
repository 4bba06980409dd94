"""Frechet and kernel video distance as torchmetrics: streaming, float64, the same on any number of processes.

In: batches of reference or of generated clips and a feature net, or features (B, D) directly. Out: a float64 number.
Of this package it needs `distances` alone: it serves any video model.
B clips of a batch, N of a set, D features, K rows kept.

    distance = FrechetVideoDistance(features=net)        # net: a batch of clips -> (B, D)
    distance.update(real_clips, real=True)
    distance.update(generated_clips, real=False)
    distance.compute()

A Frechet or kernel distance depends on the feature net: report net, frames, size and N with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from cinelora.metrics.distances import Gaussian, frechet_between, kernel_distance, kernel_preset, warn_if_unreliable

FeatureNet = Callable[[Tensor], Tensor]


class _DistanceOfSets(Metric):
    """Two lists of float64 rows, of real and of generated clips; joined over processes by stacking.

    `reset_real_features=False` keeps the real clips through `reset`, for many generated sets against one real set.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    real_rows: list[Tensor]
    generated_rows: list[Tensor]

    def __init__(self, features: FeatureNet | None = None, reset_real_features: bool = True, **kwargs: Any) -> None:
        """`features`: a batch of clips, as the net wants them -> (B, D), run in eval mode and without gradients;
        None: `update` is given (B, D). TypeError: `features` cannot be called. Others: `torchmetrics.Metric`."""
        super().__init__(**kwargs)
        if features is not None and not callable(features):
            raise TypeError(f"features must be a feature net or None, not {type(features).__name__}")
        self.features = features
        self.reset_real_features = reset_real_features
        self.add_state("real_rows", [], dist_reduce_fx="cat")
        self.add_state("generated_rows", [], dist_reduce_fx="cat")

    def update(self, clips: Tensor, real: bool) -> None:
        """Add a batch: `clips` as the feature net takes them or features (B, D), any real dtype, B 0 or more.

        ValueError: features not 2-D, D other than before, NaN or infinity.
        """
        self._leave_joined()
        rows = self._features_of(clips)
        known = next((each for each in (*self.real_rows, *self.generated_rows)), None)
        kept = self._kept(rows)
        if known is not None and known.shape[1] != kept.shape[1]:
            extra = kept.shape[1] - rows.shape[1]
            raise ValueError(f"features of {rows.shape[1]} dimensions after {known.shape[1] - extra}")
        (self.real_rows if real else self.generated_rows).append(kept)
        self._shorten(self.real_rows if real else self.generated_rows)

    def forward(self, clips: Tensor, real: bool) -> None:
        """`update`; a batch of one set has no distance of its own to return."""
        self.update(clips, real)

    def reset(self) -> None:
        """Forget all clips; the real ones only with `reset_real_features`."""
        real_rows = list(self.real_rows)
        super().reset()
        if not self.reset_real_features:
            self.real_rows = real_rows

    def sync(self, dist_sync_fn: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> None:
        """As `Metric.sync`; a process without a clip of one set takes part."""
        self._leave_joined()
        super().sync(dist_sync_fn or _gather_rows, *args, **kwargs)

    def _leave_joined(self) -> None:
        """Back to this process's own rows: a `compute` that raised among several processes leaves the joined ones."""
        if self._is_synced:
            self.unsync()

    def _features_of(self, clips: Tensor) -> Tensor:
        """(B, D) float64."""
        if isinstance(self.features, torch.nn.Module):
            self.features.eval()  # whatever `train()` on a parent did: batch statistics would make B matter
        rows = clips if self.features is None else self.features(clips)
        if rows.ndim != 2 or rows.shape[1] == 0:
            raise ValueError(f"features have shape {tuple(rows.shape)}: give (clips, dimensions)")
        rows = rows.detach().to(self.device, torch.float64)
        if not torch.isfinite(rows).all():
            raise ValueError(f"features hold NaN or infinity: {int((~torch.isfinite(rows)).sum())} values")
        return rows

    def _kept(self, rows: Tensor) -> Tensor:
        """The rows that a batch (B, D) adds to the state."""
        return rows

    def _shorten(self, blocks: list[Tensor]) -> None:
        """Bound the memory of a state, in place; here it is not bounded."""

    def _both(self) -> tuple[Tensor, Tensor]:
        """Rows (K, D) or (K, D + 1) of the real and of the generated clips. ValueError: none of one."""
        found = []
        for blocks, name in ((self.real_rows, "real"), (self.generated_rows, "generated")):
            rows = dim_zero_cat(blocks) if len(blocks) else torch.zeros(0)  # a tensor already when joined
            if len(rows) == 0:
                raise ValueError(f"no {name} clips: give them by update(..., real={name == 'real'})")
            found.append(rows)
        return found[0], found[1]


class FrechetVideoDistance(_DistanceOfSets):
    """Squared Frechet distance of Gaussians fitted to features of real and generated clips; 0 or more, lower is better.

    FVD (Unterthiner et al. 2018, arXiv 1812.01717) when the net is I3D; covariances with divisor N - 1; equal to
    `distances.frechet_distance` of all features to rounding, however they are batched or spread over processes.

    The state of a set is rows (1, x). As soon as there are more than 2 (D + 1) they are replaced by the triangular
    factor of their QR decomposition, at most D + 1 rows of the same sum of outer products: it holds count, mean and
    covariance, is joined by stacking, and loses half as many digits as sums of outer products would. Memory: at
    most about 2 (D + 1)^2 numbers a set plus a batch. Devices without float64 (MPS) are not supported.

    `compute` raises ValueError with fewer than 2 clips of either set, and warns `distances.UnreliableDistance` with
    N at most D or clips without any spread.
    """

    plot_lower_bound = 0.0

    def compute(self) -> Tensor:
        """The distance, a float64 scalar tensor."""
        real, generated = (
            _gaussian(rows, name) for rows, name in zip(self._both(), ("real", "generated"), strict=True)
        )
        warn_if_unreliable(real, generated)
        return torch.tensor(frechet_between(real, generated), dtype=torch.float64, device=self.device)

    def _kept(self, rows: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1)

    def _shorten(self, blocks: list[Tensor]) -> None:
        width = blocks[0].shape[1]
        if sum(len(block) for block in blocks) > 2 * width:
            device = blocks[-1].device  # earlier ones were moved by `compute_on_cpu`
            blocks[:] = [torch.linalg.qr(torch.cat([block.to(device) for block in blocks]), mode="r").R]


class KernelVideoDistance(_DistanceOfSets):
    """A published kernel distance (polynomial MMD) between the features of real and generated clips; lower is better.

    `preset` is a name of `distances.KERNEL_PRESETS`: "kid" (may be negative: it is unbiased), "jedi"
    (Luo et al. 2025, arXiv 2410.05203; V-JEPA features). Over all pairs of clips, not over random
    subsets. Equal to `distances.kernel_distance` of all features to rounding, however they are batched or
    spread. Memory: N D numbers a set, and N x M when computing. ValueError: unknown preset; `compute` with
    fewer than 2 clips of either set.
    """

    def __init__(
        self,
        features: FeatureNet | None = None,
        preset: str = "kid",
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(features, reset_real_features, **kwargs)
        kernel_preset(preset)
        self.preset = preset

    def compute(self) -> Tensor:
        """The distance, a float64 scalar tensor."""
        real, generated = (rows.cpu().numpy() for rows in self._both())
        return torch.tensor(kernel_distance(real, generated, self.preset), dtype=torch.float64, device=self.device)


def _gaussian(rows: Tensor, name: str) -> Gaussian:
    """From rows (1, x) or their triangular factor, (K, D + 1).

    Of the factor R of all of them: the first row is +-sqrt(N) (1, mean), the rest is the factor of the scatter.
    """
    count = round(float(rows[:, 0] @ rows[:, 0]))
    if count < 2:
        raise ValueError(f"{count} {name} clip(s): a spread needs at least 2")
    factor = torch.linalg.qr(rows, mode="r").R.cpu().numpy()
    return Gaussian(count, factor[0, 1:] / factor[0, 0], factor[1:, 1:] / np.sqrt(count - 1))


def _gather_rows(rows: Tensor, group: Any = None) -> list[Tensor]:
    """`gather_all_tensors` for (K, D) of any K: a process without rows knows no D and sends (0, 0)."""
    own = rows.to(torch.float64) if rows.ndim == 2 else rows.new_zeros((0, 0), dtype=torch.float64)
    gathered = [each.to(rows.device) for each in gather_all_tensors(own.to(_gathering_device(group)), group)]
    width = max(each.shape[1] for each in gathered)
    return [each if len(each) else each.new_zeros((0, width)) for each in gathered]


def _gathering_device(group: Any = None) -> torch.device:
    """The same kind in all processes, wherever their rows are: the CPU, unless the backend takes none there, as NCCL.

    torch writes the backends of a group as `cpu:gloo,cuda:nccl`.
    """
    kinds = [pair.partition(":")[0] for pair in torch.distributed.get_backend_config(group).split(",")]
    return torch.device("cpu" if "cpu" in kinds else kinds[0])
