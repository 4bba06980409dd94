"""The flow loss of held-out windows: what an adapter has learnt, clip by clip, without generating anything.

In: a model with its adapter in place, encodings, windows. Out: one loss per window, the mean over five fixed times.
The noise is keyed by window and time, so windows are compared in pairs over all trials of a study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
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
    model: Any,
    config: TrialConfig,
    encodings: Encodings,
    windows: Sequence[Window],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float64]:
    """Mean flow loss over `flow.HELDOUT_TIMES` of each window, (N,); the same on every worker.

    Data groups take batches in turn. `on_progress` sees this worker's passes: at 14B all of them take an hour.
    """
    size, dtype = config.data.heldout_batch, TORCH_DTYPE[config.model.dtype]
    jobs = list(product(range(0, len(windows), size), enumerate(flow.HELDOUT_TIMES)))
    table = torch.zeros(len(windows), len(flow.HELDOUT_TIMES), dtype=torch.float64)
    share = distributed.deal(jobs, config.model.sequence_workers)
    for turn, ((start, (column, time)), counts) in enumerate(share, start=1):
        chunk = list(windows[start : start + size])
        clean = encodings.latents(chunk)
        noise = torch.stack([draw_noise(tuple(clean.shape[1:]), "heldout", w.window_id, str(time)) for w in chunk])
        batch = make_batch(clean, encodings.conditions(chunk), noise, [time] * len(chunk), dtype)
        losses = batch.losses(model).double().cpu()
        if counts:
            table[start : start + len(chunk), column] = losses
        on_progress(turn, len(share))
    return np.asarray(distributed.sum_over_workers(table).mean(1).numpy(), dtype=np.float64)
