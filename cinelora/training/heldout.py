"""The flow loss of held-out windows: what an adapter has learnt, clip by clip, without generating anything.

In: a model with its adapter in place, encodings, windows. Out: one loss per window, the mean over five fixed times.
The noise is keyed by window and time, so windows are compared in pairs over all trials of a study.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cinelora import distributed
from cinelora.core.config import TrialConfig
from cinelora.core.seeds import draw_noise
from cinelora.data.windows import Window
from cinelora.training import flow
from cinelora.training.batch import make_batch
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import TORCH_DTYPE


@torch.no_grad()
def window_losses(
    model: Any, config: TrialConfig, encodings: Encodings, windows: Sequence[Window]
) -> NDArray[np.float64]:
    """Mean flow loss over `flow.HELDOUT_TIMES` of each window, (N,); the same on every worker.

    Batches are dealt to data groups round robin; one without any repeats the first and does not count it,
    because ZeRO-3 needs every worker in every forward.
    """
    size = config.data.heldout_batch
    starts = range(0, len(windows), size)
    jobs = [(start, column) for start in starts for column in range(len(flow.HELDOUT_TIMES))]
    table = torch.zeros(len(windows), len(flow.HELDOUT_TIMES), dtype=torch.float64)
    group = distributed.data_group(config.model.sequence_workers)
    for turn in range(math.ceil(len(jobs) / group.count)):
        mine = turn * group.count + group.index
        start, column = jobs[mine if mine < len(jobs) else 0]
        chunk = list(windows[start : start + size])
        losses = _batch_losses(model, config, encodings, chunk, flow.HELDOUT_TIMES[column])
        if mine < len(jobs) and group.leads:
            table[start : start + len(chunk), column] = losses
    return np.asarray(distributed.sum_over_workers(table).mean(1).numpy(), dtype=np.float64)


def _batch_losses(
    model: Any, config: TrialConfig, encodings: Encodings, windows: list[Window], time: float
) -> torch.Tensor:
    clean = encodings.latents(windows)
    noise = torch.stack([draw_noise(tuple(clean.shape[1:]), "heldout", w.window_id, str(time)) for w in windows])
    times, dtype = [time] * len(windows), TORCH_DTYPE[config.model.dtype]
    return make_batch(clean, encodings.conditions(windows), noise, times, dtype).losses(model).double().cpu()
