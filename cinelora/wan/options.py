"""Which settings of the denoiser go together: attention kernel, step cache, one clip on several GPUs.

In: the settings of a trial. Out: nothing, or a UserError with the remedy. Standard library only, so that planning and
the refusal of bad input load no torch. The kernels, the cache and the groups themselves are in `attention.py`,
`acceleration.py` and `parallel.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from cinelora.core.cli import UserError
from cinelora.core.config import Dtype, ModelConfig, StepCache, TrialConfig
from cinelora.core.files import read_json


@dataclass(frozen=True)
class Backend:
    """`package`: what it needs besides torch. `half`: bfloat16 only. `splits`: over sequence workers too."""

    package: str = ""
    half: bool = False
    splits: bool = False


# The attention backends of diffusers that can train. Left out: those without a backward pass (sage) and those for other
# devices (npu, xla, aiter). With an empty name torch chooses, which in bfloat16 on a GPU is flash attention too.
BACKENDS: dict[str, Backend] = {
    "native": Backend(splits=True),
    "_native_cudnn": Backend(half=True, splits=True),
    "_native_efficient": Backend(),
    "_native_flash": Backend(half=True, splits=True),
    "_native_math": Backend(),
    "flex": Backend(),
    "flash": Backend("flash_attn", half=True, splits=True),
    "_flash_3": Backend("flash_attn_interface", half=True),
    "flash_hub": Backend("kernels", half=True, splits=True),
    "_flash_3_hub": Backend("kernels", half=True, splits=True),
    "xformers": Backend("xformers"),
}


def check_attention(model: ModelConfig, here: bool) -> None:
    """UserError where the backend does not exist or suit the other settings; it names those that do.

    `here`: workers run on this machine, so their packages are looked for.
    """
    split = model.sequence_workers > 1

    def unfit(name: str) -> str | None:
        backend = BACKENDS.get(name)
        if backend is None:
            return "no such backend, or none that trains"
        if backend.half and model.dtype is not Dtype.bfloat16:
            return f"computes in bfloat16, model.dtype={model.dtype.value}"
        if split and not backend.splits:
            return f"cannot share tokens among model.sequence_workers={model.sequence_workers}"
        absent = here and backend.package and not find_spec(backend.package)
        return f"package {backend.package} is not installed" if absent else None

    if model.attention and (reason := unfit(model.attention)):
        fit = ", ".join(name for name in BACKENDS if not unfit(name))
        raise UserError(f"model.attention={model.attention}: {reason}; take {fit}, or leave it empty")


def check_cache(config: TrialConfig) -> None:
    """UserError for a step cache with workers that compute each pass together: they would skip different ones."""
    cache, workers = config.sample.cache, config.model.sequence_workers
    shared = "zero.stage=3" if config.zero.stage == 3 else f"model.sequence_workers={workers}" if workers > 1 else ""
    if cache is not StepCache.none and shared:
        raise UserError(
            f"sample.cache={cache.value}: not with {shared}, whose workers share every pass and would skip different "
            "ones; leave one of them out"
        )


class Parallel(Enum):
    """How the processes of a group share out one clip."""

    none = "none"
    ulysses = "ulysses"  # its tokens
    fsdp = "fsdp"  # the weights of the denoiser
    both = "both"


ULYSSES, SHARDED = (Parallel.ulysses, Parallel.both), (Parallel.fsdp, Parallel.both)


def processes_of(mode: Parallel, folder: Path, config: TrialConfig) -> int:
    """How many processes torchrun started. UserError: none, or they cannot share out the denoiser in `folder`."""
    if "RANK" not in os.environ:
        raise UserError(
            f"--parallel {mode.value}: needs several processes; use torchrun --nproc-per-node N -m cinelora.render"
        )
    processes = int(os.environ["WORLD_SIZE"])
    heads = read_json(folder / "transformer" / "config.json")["num_attention_heads"]
    if config.sample.cache is not StepCache.none:
        raise UserError(
            f"--parallel {mode.value}: not with sample.cache={config.sample.cache.value}, since processes that share "
            "every pass would skip different ones; leave out --parallel"
        )
    backend = config.model.attention
    if mode in ULYSSES and backend and not BACKENDS[backend].splits:
        raise UserError(f"--parallel {mode.value}: model.attention={backend} cannot share tokens; take --parallel fsdp")
    for name, count in (("attention heads", heads), ("tokens", config.data.video_tokens)):
        if mode in ULYSSES and count % processes:
            raise UserError(f"--parallel {mode.value}: {count} {name} do not divide by {processes} processes")
    return processes
