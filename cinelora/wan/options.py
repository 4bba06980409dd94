"""The attention backends of diffusers that can train, by name. Standard library only, so planning loads no torch.

Left out: those without a backward pass (sage) and those for other devices (npu, xla, aiter). Empty: torch chooses,
which in bfloat16 on a GPU is flash attention too. `cinelora/wan/attention.py` tries one out where it is to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from cinelora.core.cli import UserError
from cinelora.core.config import Dtype, ModelConfig, StepCache, TrialConfig


@dataclass(frozen=True)
class Backend:
    """`package`: what must be installed beside torch. `half`: bfloat16 only. `splits`: over sequence workers too."""

    package: str = ""
    half: bool = False
    splits: bool = False


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
    """That the backend exists and suits the other settings; `here`: workers run on this machine, so look for packages.

    Raises UserError naming those that can be had.
    """
    if not model.attention:
        return
    split = model.sequence_workers > 1
    fit = [
        name
        for name, each in BACKENDS.items()
        if (each.splits or not split)
        and (model.dtype is Dtype.bfloat16 or not each.half)
        and (not here or not each.package or find_spec(each.package))
    ]
    if model.attention in fit:
        return
    backend, remedy = BACKENDS.get(model.attention), f"take {', '.join(fit)}, or leave it empty"
    if backend is None:
        reason = "no such backend, or none that trains"
    elif backend.half and model.dtype is not Dtype.bfloat16:
        reason = f"computes in bfloat16, model.dtype={model.dtype.value}"
    elif split and not backend.splits:
        reason = f"cannot share tokens among model.sequence_workers={model.sequence_workers}"
    else:
        reason = f"package {backend.package} is not installed"
    raise UserError(f"model.attention={model.attention}: {reason}; {remedy}")


# ~ Denoiser passes that are cut short where the first block hardly changed since the last step: FirstBlockCache.
# ~
# ~ In: the denoiser (bare, or inside an engine) and the sample settings. Out: what to wrap each pass in. Nothing
# ~ stays on
# ~ the model, and nothing passes from one batch of clips to the next. A batch decides as one, so it is part of the
# ~ result.


def check_cache(config: TrialConfig) -> None:
    """That every worker would cut the same passes short. Raises UserError where they wait for one another in a pass."""
    if config.sample.cache is StepCache.none:
        return
    for field, value, alone in (
        ("zero.stage", config.zero.stage, config.zero.stage < 3),
        ("model.sequence_workers", config.model.sequence_workers, config.model.sequence_workers == 1),
    ):
        if not alone:
            raise UserError(
                f"sample.cache={config.sample.cache.value}: not with {field}={value}, whose workers share every pass "
                "and would skip different ones; leave one of them out"
            )
