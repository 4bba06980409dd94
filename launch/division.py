"""Whether a trial can be shared out among the workers of its gang: batches among data groups, tokens within one.

In: a trial's config, its gang, the denoiser's config. Out: nothing, or UserError naming the nearest setting that works.
Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cinelora.core.cli import UserError
from cinelora.core.config import TEMPORAL_FACTOR, DataConfig, TrialConfig
from cinelora.core.studyconfig import ClusterConfig
from cinelora.wan.options import check_attention
from sweeps.flops import video_tokens

SHARDED = 3  # ZeRO stage whose hooks gather weights inside the blocks


def check_division(trial: TrialConfig, cluster: ClusterConfig, rank: int) -> None:
    """Workers into data groups, the batch over these; `rank`: 0 without adapter, as `ClusterConfig.workers`."""
    workers, sharers = cluster.workers(rank), trial.model.sequence_workers
    field = "workers_by_rank" if rank in cluster.workers_by_rank else "workers_per_trial"
    if workers % sharers:
        raise UserError(
            f"model.sequence_workers={sharers}: must divide cluster.{field}={workers}; "
            f"nearest is {nearest_divisor(sharers, workers)}, or cluster.{field}={-(-workers // sharers) * sharers}"
        )
    groups, batch = workers // sharers, trial.train.batch_size
    if batch % groups:
        split = f" / model.sequence_workers={sharers}" if sharers > 1 else ""
        raise UserError(
            f"train.batch_size={batch}: must be a multiple of cluster.{field}={workers}{split}; "
            f"nearest is {max(groups, batch // groups * groups)}"
        )


def check_denoiser(trial: TrialConfig, denoiser: Mapping[str, Any], here: bool) -> None:
    """What this denoiser can be asked; `here`: workers run on this machine."""
    model = trial.model
    check_attention(model, here)
    if model.compile and trial.zero.stage == SHARDED:
        raise UserError(
            f"model.compile=true: not with zero.stage={SHARDED}, which gathers weights inside the blocks; "
            "take zero.stage=2"
        )
    sharers, heads = model.sequence_workers, int(denoiser["num_attention_heads"])
    if sharers == 1:
        return
    tokens = video_tokens(trial.data)
    if heads % sharers or tokens % sharers:
        fit = [count for count in range(2, heads + 1) if heads % count == tokens % count == 0]
        near = min(fit, key=lambda count: (abs(count - sharers), count), default=1)
        raise UserError(
            f"model.sequence_workers={sharers}: must divide the {heads} attention heads and the {tokens} tokens of "
            f"{_size(trial.data)}; nearest is {near}"
        )
    still = tokens // ((trial.data.frames - 1) // TEMPORAL_FACTOR + 1)
    if trial.train.stills and still % sharers:
        raise UserError(
            f"model.sequence_workers={sharers}: must divide the {still} tokens of a still; "
            f"nearest is {nearest_divisor(sharers, still)}, or train.stills=0"
        )


def nearest_divisor(wanted: int, whole: int) -> int:
    """The divisor of `whole` nearest to `wanted`; of two the smaller."""
    return min((d for d in range(1, whole + 1) if whole % d == 0), key=lambda d: (abs(d - wanted), d))


def _size(data: DataConfig) -> str:
    return f"data.frames={data.frames} data.height={data.height} data.width={data.width}"
