"""DeepSpeed ZeRO around the adapter: its configuration, its engine, its state, its removal.

In: a transformer with an attached adapter. Out: an engine whose `step` counts whole optimiser steps, the
full (gathered) adapter and optimiser state, and after `release` a base as it was before.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cinelora import distributed
from cinelora.core.config import Dtype, ModelConfig, Offload, TrainConfig, ZeroConfig
from cinelora.wan.lora import NamedParameters

State = dict[str, torch.Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")


def micro_batch(train: TrainConfig, groups: int) -> int:
    """Windows per worker at a time. ValueError if the data groups cannot share the batch."""
    if train.batch_size % groups:
        raise ValueError(f"train.batch_size={train.batch_size} must be a multiple of the {groups} data groups")
    return train.windows_at_once(groups)


def deepspeed_config(train: TrainConfig, zero: ZeroConfig, dtype: Dtype, groups: int) -> dict[str, Any]:
    """DeepSpeed's dictionary. Clipping and accumulation live here, so both act on whole optimiser steps.

    `groups`: of workers that see different windows. With `zero.offload` the optimiser stays torch's AdamW, on the CPU:
    DeepSpeed's own would be compiled first, and an adapter is small.
    """
    micro = micro_batch(train, groups)
    stage: dict[str, Any] = {"stage": zero.stage}
    if zero.stage == 3:
        stage["stage3_param_persistence_threshold"] = zero.persistence_threshold
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if zero.offload is not Offload.none:
        stage["offload_optimizer"] = host
    if zero.offload is Offload.weights:
        stage["offload_param"] = host
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": train.batch_size // (groups * micro),
        "gradient_clipping": train.clip_norm,
        "bf16": {"enabled": dtype is Dtype.bfloat16},
        "zero_optimization": stage,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
    }


def build_engine(
    transformer: Any, parameters: NamedParameters, train: TrainConfig, zero: ZeroConfig, model: ModelConfig
) -> Any:
    """An engine over the whole transformer that trains only `parameters`, with torch's AdamW."""
    deepspeed = distributed.quiet_deepspeed()
    trainable, dtype = [parameter for _, parameter in parameters], model.dtype
    if dtype is Dtype.bfloat16:
        for parameter in trainable:  # what trains runs in bfloat16; the engine keeps float32 copies of it
            parameter.data = parameter.data.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(
        trainable,
        lr=train.learning_rate,
        betas=(train.betas[0], train.betas[1]),
        eps=train.eps,
        weight_decay=train.weight_decay,
    )
    with _frozen_as_it_is():
        engine, *_ = deepspeed.initialize(
            model=transformer,
            model_parameters=trainable,
            optimizer=optimizer,
            config=deepspeed_config(train, zero, dtype, distributed.data_group(model.sequence_workers).count),
        )
    if not hasattr(engine.optimizer, "optimizer"):
        _keep_to_adapter(engine, trainable)
    _undo_first_step(engine, parameters)
    _choose_linear(zero.stage)
    return engine


def _choose_linear(stage: int) -> None:
    """Give engines of stages 0 to 2 torch's own linear layers.

    Stage 3 replaces them for the rest of the process; its own keep no gathered weight, but every input, frozen or not.
    """
    from deepspeed.runtime.zero.linear import zero3_linear_wrap
    from deepspeed.runtime.zero.partition_parameters import InsertPostInitMethodToModuleSubClasses as Patched

    stock = getattr(Patched, "linear_bk", torch.nn.functional.linear)
    torch.nn.functional.linear = zero3_linear_wrap if stage == 3 else stock


def _keep_to_adapter(engine: Any, trainable: list[torch.nn.Parameter]) -> None:
    """Stage 0 in float32: the engine's own functions would search the whole base for these parameters at each step."""
    from deepspeed.runtime.utils import clip_grad_norm_

    engine.zero_grad = engine.optimizer.zero_grad
    engine.clip_fp32_gradients = lambda: clip_grad_norm_(trainable, engine.gradient_clipping())
    engine.enable_backward_allreduce = distributed.world_size() > 1  # else it copies all gradients for no one


@contextmanager
def _frozen_as_it_is() -> Iterator[None]:
    """Within, DeepSpeed casts no parameter: it would cast all to bfloat16, also those that the model keeps in float32.

    Its own list of exceptions (data_types.keep_in_fp32_modules) is for buffers only.
    """
    from deepspeed.runtime.engine import DeepSpeedEngine

    cast = DeepSpeedEngine._cast_module_mixed_precision
    DeepSpeedEngine._cast_module_mixed_precision = lambda *_: None
    try:
        yield
    finally:
        DeepSpeedEngine._cast_module_mixed_precision = cast


def _undo_first_step(engine: Any, parameters: NamedParameters) -> None:
    """Stage 0 in bfloat16 begins with a step on zero gradients, which decays weights and counts. Undo it."""
    if hasattr(engine.optimizer, "fp32_groups"):
        engine.optimizer.optimizer.state.clear()
        for master, (_, parameter) in zip(_whole_masters(engine, parameters) or [], parameters, strict=True):
            master.data.copy_(parameter.detach())


def _whole_masters(engine: Any, parameters: NamedParameters) -> list[torch.Tensor] | None:
    """The tensors AdamW steps, in the order of `parameters`, where each worker holds them whole (stage 0).

    float32: the parameters themselves; bfloat16: DeepSpeed's float32 copies. None where they are sharded.
    """
    if not hasattr(engine.optimizer, "optimizer"):
        return [parameter for _, parameter in parameters]
    groups = getattr(engine.optimizer, "fp32_groups", None)
    return None if groups is None else [master for group in groups for master in group]


def backward(engine: Any, loss: torch.Tensor, last: bool) -> None:
    """One micro-batch's backward pass. After the `last` of an optimiser step the caller calls `engine.step`.

    Stages 2 and 3 sum gradients over the gang first, then over micro-batches. Here stage 0 in float32 does the same,
    against its default, so that all three agree to the bit; stage 1 keeps the other order.
    """
    if hasattr(engine.optimizer, "optimizer"):
        engine.backward(loss)
        if not last:
            engine.step()
        return
    trained = [parameter for group in engine.optimizer.param_groups for parameter in group["params"]]
    sums = [parameter.grad for parameter in trained]
    for parameter in trained:
        parameter.grad = None
    engine.set_gradient_accumulation_boundary(True)  # the mean over the gang now, before the step
    engine.backward(loss)
    for parameter, total in zip(trained, sums, strict=True):
        if total is not None:
            parameter.grad += total


def full_parameters(parameters: NamedParameters) -> State:
    """The adapter as the model computes with it, gathered where stage 3 shards it; every worker calls this."""
    import deepspeed

    tensors = [parameter for _, parameter in parameters]
    sharded = bool(tensors) and hasattr(tensors[0], "ds_id")
    with deepspeed.zero.GatheredParameters(tensors, enabled=sharded):
        return {name: parameter.detach().float().cpu().clone() for name, parameter in parameters}


def gather_state(engine: Any, parameters: NamedParameters) -> State:
    """Float32 master weights and AdamW moments, whole, as `param/..`, `exp_avg/..`, `exp_avg_sq/..`.

    The same file therefore resumes under any ZeRO stage and any world size. Every worker calls this.
    """
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    masters = _whole_masters(engine, parameters)
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    state: State = {}
    for index, (name, parameter) in enumerate(parameters):
        if masters is not None:
            full = {"param": masters[index], **{key: inner.state[masters[index]][key] for key in MOMENTS}}
        else:
            full = {"param": safe_get_full_fp32_param(parameter)}
            full |= {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
        state |= {f"{key}/{name}": tensor.detach().float().cpu().clone() for key, tensor in full.items()}
    return state


def load_parameters(parameters: NamedParameters, state: State) -> None:
    """Put checkpointed weights into the adapter before its engine is built."""
    for name, parameter in parameters:
        parameter.data.copy_(state[f"param/{name}"])


def restore_state(engine: Any, parameters: NamedParameters, state: State, steps: int) -> None:
    """Give a fresh engine the master weights and moments that `gather_state` saw after `steps` steps."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    _materialise_moments(engine, steps)
    masters = _whole_masters(engine, parameters)
    inner = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for index, (name, parameter) in enumerate(parameters):
        if masters is not None:
            masters[index].data.copy_(state[f"param/{name}"])
            for key in MOMENTS:
                inner.state[masters[index]][key].copy_(state[f"{key}/{name}"])
            continue
        safe_set_full_fp32_param(parameter, state[f"param/{name}"].to(parameter.device))
        for key in MOMENTS:
            safe_set_full_optimizer_state(parameter, state[f"{key}/{name}"].to(parameter.device), key)


def _materialise_moments(engine: Any, steps: int) -> None:
    """Zero moments for each (flat) tensor the inner AdamW steps, as torch would create at its first step."""
    outer = engine.optimizer
    inner = getattr(outer, "optimizer", outer)
    flats = getattr(outer, "fp32_partitioned_groups_flat", None)  # stage 3 swaps them in group by group
    if flats is None:
        flats = [p for group in inner.param_groups for p in group["params"]]
    for flat in flats:
        inner.state[flat] = {"step": torch.tensor(float(steps)), **{key: torch.zeros_like(flat) for key in MOMENTS}}
    if hasattr(outer, "_lazy_init_hp_params_optimizer_state"):
        outer._lazy_init_hp_params_optimizer_state()


def local_gradient_norm(parameters: NamedParameters) -> float | None:
    """Norm of the whole step's gradient before clipping, where it lies on the parameters (stage 0)."""
    norms = [p.grad.detach().float().norm() for _, p in parameters if p.grad is not None]
    return float(torch.stack(norms).norm()) if norms else None


def release(engine: Any, parameters: NamedParameters) -> None:
    """Remove the engine from the base.

    DeepSpeed's `destroy` leaves two hooks on the module, each of which keeps the engine and its optimiser in memory. In
    stage 3 closures outlive both, so their tensors are freed here.
    """
    optimizer = engine.optimizer
    engine.destroy()
    for hook in (engine.module_forward_pre_hook, engine.module_forward_post_hook):
        hook.remove()
    if any(hasattr(parameter, "ds_tensor") for _, parameter in parameters):
        for _, parameter in parameters:
            parameter.ds_tensor.data = torch.empty(0)  # type: ignore[attr-defined]
        optimizer.__dict__.clear()
    for _, parameter in parameters:
        parameter.grad = None
    engine.__dict__.clear()
    gc.collect()
