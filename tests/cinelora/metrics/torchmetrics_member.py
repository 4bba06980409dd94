"""One of two processes of test_torchmetrics.py: `python -m tests.cinelora.metrics.torchmetrics_member FOLDER RANK`.

Prints one JSON line: the distances of all clips, of a process without made clips, and again after more clips.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch.distributed

from cinelora.metrics.torchmetrics import FrechetVideoDistance, KernelVideoDistance


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    real, made = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("real", "made"))
    line: dict[str, list[float]] = {}
    for metric in (FrechetVideoDistance(), KernelVideoDistance(preset="jedi")):
        for batch in real[rank::2].split(3):
            metric.update(batch, real=True)
        if rank == 1:  # the other has no made clip yet
            metric.update(made[:40], real=False)
        found = [float(metric.compute())]
        metric.update(made[40 + 5 * rank :] if rank else made[40:45], real=False)
        line[type(metric).__name__] = [*found, float(metric.compute())]
    print(json.dumps(line), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
