"""Process groups: one process per worker of a gang, in step with each other.

In: rank, world size, address. Out: an initialised torch.distributed, and what the rest of the program needs of it.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist

from cinelora.core.cli import UserError

T = TypeVar("T")
# Read when cuBLAS starts: with a fixed workspace its products give the same bytes again.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Read at the first product on a CPU: MKL, the library on Intel's, else rounds by the number of threads and of rows, so
# that another cluster.cpus_per_worker gives another adapter. Costs nothing that shows: docs/decisions.md, 53.
_CPU = Path("/proc/cpuinfo")
if _CPU.exists() and "GenuineIntel" in _CPU.read_text(errors="replace")[:1000]:
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
_meshes: dict[int, Any] = {}  # of this process group, by sequence workers


def device_name() -> str:
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def quiet_deepspeed() -> Any:
    """Import DeepSpeed without its CPU helper op (minutes of compiling on first use) and its log lines."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def free_port() -> int:
    """A port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def start(rank: int, world_size: int, address: str, port: int) -> None:
    """Join the gang's process group (nccl on GPUs, else gloo), leaving the one this process is in.

    Raises UserError if two of its processes are on one GPU.
    """
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
    if backend == "nccl" and world_size > 1:
        store = next(torch_dist.rendezvous("env://", rank, world_size))[0]  # held until the group has joined it, too
        check_own_gpu(store, rank, world_size, str(torch.cuda.get_device_properties(device_name()).uuid))
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def check_own_gpu(store: torch_dist.Store, rank: int, world_size: int, gpu: str) -> None:
    """Tell the others through `store` which `gpu` this process is on. UserError, in all of them, if two share one:
    NCCL cannot, and would say "invalid usage" or hang."""
    store.set(f"gpu/{rank}", gpu)
    gpus = [store.get(f"gpu/{each}").decode() for each in range(world_size)]
    store.set(f"gpu/read/{rank}", "")
    if rank == 0:  # whose process holds the store
        store.wait([f"gpu/read/{each}" for each in range(world_size)])
    if twice := next((name for name in gpus if gpus.count(name) > 1), None):
        ranks = " and ".join(str(each) for each, name in enumerate(gpus) if name == twice)
        raise UserError(
            f"cluster.workers_per_trial={world_size}: processes {ranks} are on one GPU ({twice}), and NCCL takes one "
            "process a GPU; set cluster.gpus_per_worker=1, or hide the GPUs by CUDA_VISIBLE_DEVICES="
        )


def leave() -> None:
    """Leave the process group, and make DeepSpeed forget it: its caches would train on the old one, silently.

    The base in memory may stay, except one that ZeRO stage 3 has sharded over the group.
    """
    if not torch_dist.is_initialized():
        return
    from deepspeed.comm import comm
    from deepspeed.utils import groups

    torch_dist.destroy_process_group()
    _meshes.clear()
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


@dataclass(frozen=True)
class DataGroup:
    """`index` of `count`: which share of the clips a worker sees. One of those that see the same `leads`."""

    index: int
    count: int
    leads: bool


def data_group(sequence_workers: int) -> DataGroup:
    """This worker's; `sequence_workers` neighbours see the same clips, each a part of their tokens."""
    index, place = divmod(rank(), sequence_workers)
    return DataGroup(index, world_size() // sequence_workers, place == 0)


def deal(jobs: Sequence[T], sequence_workers: int) -> list[tuple[T, bool]]:
    """This worker's jobs, and whether its result of each counts. Data groups take jobs in turn.

    ZeRO-3 needs every worker in every forward pass, so all get equally many: a group without a job repeats the first,
    and its result does not count. Of the workers that see the same clips, only the leader's counts.
    """
    group = data_group(sequence_workers)
    mine = [turn * group.count + group.index for turn in range(math.ceil(len(jobs) / group.count))]
    return [(jobs[index if index < len(jobs) else 0], index < len(jobs) and group.leads) for index in mine]


def sequence_mesh(workers: int) -> Any:
    """The gang as (data group, ring 1, Ulysses `workers`), the names diffusers looks for; made once a process group."""
    if workers not in _meshes:
        shape, names = (world_size() // workers, 1, workers), ("data", "ring", "ulysses")
        kind = device_name().partition(":")[0]
        _meshes[workers] = torch_dist.device_mesh.init_device_mesh(kind, shape, mesh_dim_names=names)
    return _meshes[workers]


def sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    """Elementwise sum of a small float64 tensor over the gang."""
    if world_size() > 1:
        values = values.to(device_name())
        torch_dist.all_reduce(values)
    return values.cpu()


def any_worker(holds: bool) -> bool:
    """Whether it holds on any worker of the gang; all of them must call this."""
    return bool(sum_over_workers(torch.tensor([float(holds)], dtype=torch.float64)))


def gather_objects(value: Any) -> list[Any]:
    """Every worker's value, on every worker, in rank order. For small records of our own processes."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    torch_dist.all_gather_object(values, value)
    return values
