"""Process groups: one process per worker of a gang, in step with each other.

In: rank, world size, address. Out: an initialised torch.distributed, and what the other files ask of it.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import torch
import torch.distributed as torch_dist


def device_name() -> str:
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def quiet_deepspeed() -> Any:
    """Import DeepSpeed without its CPU helper op (minutes of compiling on first use) and its chatter."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def start(rank: int, world_size: int, address: str, port: int) -> None:
    """Join the gang's process group (nccl on GPUs, else gloo), leaving the one this process is in."""
    leave()
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK="0",  # Ray shows each worker its own devices
        WORLD_SIZE=str(world_size),
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
    )
    deepspeed = quiet_deepspeed()
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def leave() -> None:
    """Leave the process group, and make DeepSpeed forget it: its caches would train on the old one, silently.

    The base in memory may stay, except one that ZeRO stage 3 has sharded over the group.
    """
    if not torch_dist.is_initialized():
        return
    from deepspeed.comm import comm
    from deepspeed.utils import groups

    torch_dist.destroy_process_group()
    comm.cdb = None
    for name, value in vars(groups).items():
        if isinstance(value, torch_dist.ProcessGroup):
            setattr(groups, name, None)
        elif isinstance(value, dict) and not name.startswith("__"):
            value.clear()


def rank() -> int:
    return torch_dist.get_rank() if torch_dist.is_initialized() else 0


def world_size() -> int:
    return torch_dist.get_world_size() if torch_dist.is_initialized() else 1


def sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    """Elementwise sum of a small float64 tensor over the gang."""
    if world_size() > 1:
        values = values.to(device_name())
        torch_dist.all_reduce(values)
    return values.cpu()


def gather_objects(value: Any) -> list[Any]:
    """Every worker's value, on every worker, in rank order. For small records of our own processes."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch_dist.all_gather_object(values, value)
    return values
