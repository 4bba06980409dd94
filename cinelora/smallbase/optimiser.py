"""What the training of the autoencoder and of the denoiser share: optimiser, checkpoints, learning rate, log.

In: named parameters and a file. Out: updated parameters, a safetensors checkpoint written whole, a CSV log.
Workers (torchrun) average their gradients; one process works as well. No pickle.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cinelora import distributed
from cinelora.core.cli import Progress
from cinelora.core.files import whole_file
from cinelora.core.seeds import counter_seed

Named = list[tuple[str, torch.nn.Parameter]]
CHECKPOINT_STEPS = 200
REPORT_SECONDS = 60.0
MUON_RATE = 2.0  # times AdamW's rate


def random_for(*key: int | str) -> np.random.Generator:
    """A NumPy generator for this key."""
    return np.random.default_rng(counter_seed(*key))


def decayed(peak: float, step: int, steps: int, warmup: int, hold: float) -> float:
    """Linear warm-up, `peak` until the share `hold` of the steps, then cosine to 1 % of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = max(0.0, (step / steps - hold) / (1 - hold))
    return peak * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))


class Muon(torch.optim.Muon):
    """Muon in the parameters' own precision, matrices of one shape at once, shared out over the workers.

    Torch's own rounds to bfloat16 inside: on processors without it that takes four times as long as all the rest.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                directions = torch.stack([self._direction(parameter, group) for parameter in parameters])
                updates, own = torch.zeros_like(directions), slice(distributed.rank(), None, distributed.world_size())
                updates[own] = orthogonal(directions[own], group)
                if distributed.world_size() > 1:
                    torch.distributed.all_reduce(updates)
                rate = 0.2 * math.sqrt(max(shape)) * group["lr"]  # the size of AdamW's updates
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(updates), alpha=-rate)

    def _direction(self, parameter: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """Nesterov's momentum."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(state["momentum_buffer"], group["momentum"])


def orthogonal(matrices: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """Newton-Schulz iterations on (N, rows, columns): singular values become about 1 (Jordan 2024)."""
    flat = matrices.shape[1] <= matrices.shape[2]
    x = matrices if flat else matrices.mT
    x = x / x.flatten(1).norm(dim=1).clamp_min(group["eps"])[:, None, None]
    a, b, c = group["ns_coefficients"]
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if flat else x.mT


class Training:
    """The optimisers over all workers, with their state on disk. `step` is how many steps are done.

    Matrices for which `is_matrix(name, parameter)` holds are trained by Muon (orthogonalised momentum, Jordan
    2024; update scaled to AdamW's size, Liu et al. 2025, arXiv 2502.16982), all others by AdamW.
    `average` is the decay of the exponential moving average of the parameters.
    """

    def __init__(
        self,
        path: Path,
        named: Named,
        betas: tuple[float, float],
        decay: float,
        average: float = 0.0,
        is_matrix: Callable[[str, torch.nn.Parameter], bool] = lambda name, parameter: False,
    ) -> None:
        self.path, self.named, self.step, self.average_decay = path, named, 0, average
        self.worker = distributed.rank()
        self.device = distributed.device_name().split(":")[0]
        for _, parameter in named:
            parameter.data = parameter.data.to(self.device)
        matrices = [p for name, p in named if is_matrix(name, p)]
        rest = [p for name, p in named if not is_matrix(name, p)]
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(rest, lr=0.0, betas=betas, weight_decay=decay), 1.0)
        ]
        if matrices:
            muon = Muon(matrices, lr=0.0, weight_decay=decay)
            self.optimizers.append((muon, MUON_RATE))
        self.average = {name: parameter.detach().clone() for name, parameter in named}
        if path.exists():
            self._load()

    def update(self, loss: torch.Tensor, rate: float) -> None:
        """One step on the mean gradient of all workers, clipped to norm 1."""
        for optimizer, factor in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.zero_grad()
        loss.backward()
        parameters = [p for _, p in self.named]
        if distributed.world_size() > 1:
            flat = torch.cat([p.grad.flatten() if p.grad is not None else p.new_zeros(p.numel()) for p in parameters])
            torch.distributed.all_reduce(flat)
            for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = mean.view_as(parameter) / distributed.world_size()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"{self.path}: the gradient is {norm.item()}; delete this checkpoint and lower PEAK_RATE"
            )
        for optimizer, _ in self.optimizers:
            optimizer.step()
        average_decay = min(self.average_decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.named:
            self.average[name].lerp_(parameter.detach(), 1 - average_decay)

    def swap_average(self) -> None:
        """Exchange the parameters and their moving average."""
        for name, parameter in self.named:
            held = parameter.detach().clone()
            parameter.data.copy_(self.average[name])
            self.average[name].copy_(held)

    def checkpoint(self, step: int, steps: int) -> None:
        """Write the state every CHECKPOINT_STEPS steps and at the end."""
        self.step = step
        if self.worker == 0 and (step % CHECKPOINT_STEPS == 0 or step == steps):
            tensors: dict[str, torch.Tensor] = {}
            for name, parameter in self.named:
                found = {"param": parameter, "average": self.average[name]}
                for optimizer, _ in self.optimizers:
                    found |= optimizer.state.get(parameter, {})
                tensors |= {f"{key}/{name}": value.detach().cpu().contiguous() for key, value in found.items()}
            with whole_file(self.path) as temporary:
                save_file(tensors, temporary, metadata={"step": str(step)})

    def _load(self) -> None:
        with safe_open(self.path, framework="pt") as stream:
            self.step = int(stream.metadata()["step"])
            parameters = dict(self.named)
            optimizer_of = {p: o for o, _ in self.optimizers for group in o.param_groups for p in group["params"]}
            for entry in sorted(stream.keys()):
                key, name = entry.split("/", 1)
                parameter, value = parameters[name], stream.get_tensor(entry)
                if key == "param":
                    parameter.data.copy_(value)
                elif key == "average":
                    self.average[name].copy_(value)
                else:  # "step" of AdamW stays on the CPU
                    state = optimizer_of[parameter].state[parameter]
                    state[key] = value if key == "step" else value.to(self.device)


class TrainingLog:
    """Progress on stderr; once a minute a CSV row with step, seconds, mean loss and what `measure` returns."""

    def __init__(self, path: Path, done: int, steps: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.steps = path, steps
        self.started = self.last = time.monotonic()
        self.losses: list[float] = []
        self.progress = Progress("steps", quiet=distributed.rank() != 0)
        self.progress(path.stem, done, steps)

    def tick(self, step: int, loss: float, measure: Callable[[], dict[str, float]]) -> None:
        self.losses.append(loss)
        self.progress(self.path.stem, step, self.steps)
        now = time.monotonic()
        if distributed.rank() != 0 or (now - self.last < REPORT_SECONDS and step < self.steps):
            return
        row = {"step": step, "seconds": round(now - self.started, 1), "loss": float(np.mean(self.losses)), **measure()}
        self.last, self.losses = now, []
        pd.DataFrame([row]).to_csv(self.path, mode="a", header=not self.path.exists(), index=False)
