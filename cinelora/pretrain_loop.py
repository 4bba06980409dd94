"""The training loop that both parts of the small base share: budget in seconds, resumable, on one or more processes.

In: a module, a function (step, progress) -> loss, a folder. Out: `<name>.safetensors` (weights, optimiser state, step,
seconds), `<name>.csv` (one row per report). Progress is the share of the seconds spent, the same on every process; it
steers the learning rate, so two runs of one seed see the same clips but not the same number of steps.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file

from cinelora.records import whole_file

CHECKPOINT_SECONDS = 60.0
WARMUP_STEPS = 100
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Budget:
    """When to stop and how often to look. `most_steps` 0: as many as the seconds allow."""

    seconds: float
    report_seconds: float = 30.0
    most_steps: int = 0


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: list[torch.Tensor], spent: float) -> float:
    """Average the tensors over all processes in place; returns the mean of `spent`, equal on all."""
    if world() == 1:
        return spent
    clock = torch.tensor([spent], dtype=torch.float32, device=tensors[0].device)
    flat = torch.cat([clock, *(t.reshape(-1).float() for t in tensors)])
    dist.all_reduce(flat)
    flat /= world()
    offset = 1
    for tensor in tensors:
        tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()
    return float(flat[0])


def optimisers(model: torch.nn.Module, peak: float, muon: Callable[[str], bool] = lambda name: False) -> list[Any]:
    """AdamW, and Muon at ten times its rate for the matrices that `muon` names (Jordan 2024, as in torch.optim)."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and muon(name)]
    taken = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in taken]
    out: list[Any] = [torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.99), weight_decay=0.01)]
    if matrices:
        # Muon's update has unit scale, so its rate is larger; 0.02 is the rate of its author for small models.
        out.append(torch.optim.Muon(matrices, lr=10 * peak, momentum=0.95, weight_decay=0.01))
    for optimiser in out:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return out


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Linear warm-up over 100 steps, flat to half time, then linear to zero."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * max(0.0, min(1.0, 2 * (1 - progress)))


def save_state(path: Path, model: torch.nn.Module, optimiser_list: list[Any], step: int, seconds: float) -> None:
    """Weights and optimiser state, whole or not at all."""
    tensors = {f"model.{k}": v.detach().contiguous() for k, v in model.state_dict().items()}
    for number, optimiser in enumerate(optimiser_list):
        for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{number}.{index}.{key}"] = torch.as_tensor(value).contiguous()
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={"step": str(step), "seconds": str(seconds)})


def load_state(path: Path, model: torch.nn.Module, optimiser_list: Iterable[Any] = ()) -> tuple[int, float]:
    """Fill the model (and optimisers) from a checkpoint; returns (step, seconds)."""
    with safe_open(path, framework="pt") as stream:
        names = list(stream.keys())
        model.load_state_dict({n[6:]: stream.get_tensor(n) for n in names if n.startswith("model.")})
        for number, optimiser in enumerate(optimiser_list):
            for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
                prefix = f"optimiser.{number}.{index}."
                for name in names:
                    if name.startswith(prefix):
                        value = stream.get_tensor(name)
                        key = name[len(prefix) :]
                        optimiser.state[parameter][key] = value if key == "step" else value.to(parameter.device)
        metadata = stream.metadata()
    return int(metadata["step"]), float(metadata["seconds"])


@dataclass
class Clock:
    """Seconds of training, those of earlier processes included; time spent on reports does not count."""

    before: float
    started: float

    def spent(self) -> float:
        return self.before + time.monotonic() - self.started


def train(
    name: str,
    model: torch.nn.Module,
    optimiser_list: list[Any],
    loss_of: Callable[[int, float], torch.Tensor],
    evaluate: Callable[[], dict[str, float]],
    folder: Path,
    budget: Budget,
) -> int:
    """Train until the budget is spent; returns the number of steps done. Calling again resumes."""
    checkpoint = folder / f"{name}.safetensors"
    step, before = load_state(checkpoint, model, optimiser_list) if checkpoint.is_file() else (0, 0.0)
    clock = Clock(before, time.monotonic())
    spent, reported, saved, losses = before, before, before, 0.0
    since = step
    parameters = [p for p in model.parameters() if p.requires_grad]
    while spent < budget.seconds and not (budget.most_steps and step >= budget.most_steps):
        progress = spent / budget.seconds
        if budget.most_steps:
            progress = max(progress, step / budget.most_steps)
        loss = loss_of(step, progress)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in parameters if p.grad is not None]
        spent = average(gradients, clock.spent())
        norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(f"{name}: gradient norm {float(norm)} at step {step}; lower the learning rate")
        for optimiser in optimiser_list:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(group["peak"], step, progress)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        losses += loss.item()
        step += 1
        if rank() == 0 and spent - saved > CHECKPOINT_SECONDS:
            save_state(checkpoint, model, optimiser_list, step, spent)
            saved = spent
        if spent - reported > budget.report_seconds:
            if rank() == 0:
                report(folder / f"{name}.csv", name, step, spent, budget, losses / (step - since), evaluate())
            reported, losses, since = spent, 0.0, step
            clock = Clock(spent, time.monotonic())
    if rank() == 0:
        if step > since:
            report(folder / f"{name}.csv", name, step, spent, budget, losses / (step - since), evaluate())
        save_state(checkpoint, model, optimiser_list, step, max(spent, budget.seconds))
    return step


def report(
    path: Path, name: str, step: int, spent: float, budget: Budget, loss: float, scores: dict[str, float]
) -> None:
    """One line on the terminal with the time left, one row in the log."""
    row = {"step": step, "seconds": round(spent, 1), "loss": round(loss, 5)}
    row |= {key: round(value, 4) for key, value in scores.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.is_file()
    with open(path, "a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    left = max(0.0, budget.seconds - spent)
    text = "  ".join(f"{key} {value}" for key, value in row.items() if key not in ("step", "seconds"))
    print(f"{name}  step {step}  {spent:.0f} of {budget.seconds:.0f} s  {left / 60:.1f} min left  {text}", flush=True)
