"""What both pretrainings share: the optimiser step over workers, checkpoints, learning rate, progress.

In: named parameters and a file. Out: updated parameters, a safetensors checkpoint written whole, a CSV log.
Workers (torchrun) average their gradients; one process works as well. No pickle.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cinelora import distributed
from cinelora.core.files import whole_file
from cinelora.core.seeds import counter_seed

Named = list[tuple[str, torch.nn.Parameter]]
CHECKPOINT_STEPS = 200
REPORT_SECONDS = 60.0
MUON_RATE = 2.0  # times AdamW's rate
STATE_KEYS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")


def random_for(*key: int | str) -> np.random.Generator:
    """A NumPy generator for this key."""
    return np.random.default_rng(counter_seed(*key))


def decayed(peak: float, step: int, steps: int, warmup: int, hold: float) -> float:
    """Linear warm-up, `peak` until the share `hold` of the steps, then cosine to 1 % of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = max(0.0, (step / steps - hold) / (1 - hold))
    return peak * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))


class Average:
    """Exponential moving average of parameters; `swap` puts it in their place and back."""

    def __init__(self, named: Named, decay: float) -> None:
        self.named, self.decay = named, decay
        self.shadow = {name: parameter.detach().clone() for name, parameter in named}

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.named:
            self.shadow[name].lerp_(parameter.detach(), 1 - decay)

    def swap(self) -> None:
        for name, parameter in self.named:
            held = parameter.detach().clone()
            parameter.data.copy_(self.shadow[name])
            self.shadow[name].copy_(held)


class Training:
    """The optimisers over all workers, with their state on disk. `step` is how many steps are done.

    Matrices for which `orthogonal(name, parameter)` holds are trained by Muon (momentum made orthogonal, Jordan
    2024; update scaled to AdamW's size, Liu et al. 2025, arXiv 2502.16982), all others by AdamW.
    """

    def __init__(
        self,
        path: Path,
        named: Named,
        betas: tuple[float, float],
        decay: float,
        average: float = 0.0,
        orthogonal: Callable[[str, torch.nn.Parameter], bool] = lambda name, parameter: False,
    ) -> None:
        self.path, self.named, self.step = path, named, 0
        self.worker = distributed.rank()
        self.device = distributed.device_name().split(":")[0]
        for _, parameter in named:
            parameter.data = parameter.data.to(self.device)
        matrices = [p for name, p in named if orthogonal(name, p)]
        chosen = set(map(id, matrices))
        rest = [p for _, p in named if id(p) not in chosen]
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(rest, lr=0.0, betas=betas, weight_decay=decay), 1.0)
        ]
        if matrices:
            muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
            self.optimizers.append((muon, MUON_RATE))
        self.average = Average(named, average)
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
                f"{self.path.stem}: the gradient is {norm.item()}; remove its state, lower the rate"
            )
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.average.update(self.step)

    def checkpoint(self, step: int, steps: int) -> None:
        """Write the state now and then, and at the end."""
        self.step = step
        if self.worker == 0 and (step % CHECKPOINT_STEPS == 0 or step == steps):
            tensors: dict[str, torch.Tensor] = {}
            for name, parameter in self.named:
                found = {"param": parameter, "average": self.average.shadow[name], **self._state(parameter)}
                tensors |= {f"{key}/{name}": value.detach().cpu().contiguous() for key, value in found.items()}
            with whole_file(self.path) as temporary:
                save_file(tensors, temporary, metadata={"step": str(step)})

    def _state(self, parameter: torch.nn.Parameter) -> dict[str, torch.Tensor]:
        states = [dict(optimizer.state.get(parameter, {})) for optimizer, _ in self.optimizers]
        return {key: value for state in states for key, value in state.items()}

    def _load(self) -> None:
        with safe_open(self.path, framework="pt") as stream:
            self.step = int(stream.metadata()["step"])
            known = set(stream.keys())
            for name, parameter in self.named:
                parameter.data.copy_(stream.get_tensor(f"param/{name}"))
                self.average.shadow[name].copy_(stream.get_tensor(f"average/{name}"))
                for optimizer, _ in self.optimizers:
                    owned = any(p is parameter for group in optimizer.param_groups for p in group["params"])
                    keys = [key for key in STATE_KEYS if f"{key}/{name}" in known]
                    if owned and keys:
                        optimizer.state[parameter] = {
                            key: stream.get_tensor(f"{key}/{name}").to("cpu" if key == "step" else self.device)
                            for key in keys
                        }


class Progress:
    """A line and a CSV row a minute: step, loss, rate of work, time left, and what `measure` finds."""

    def __init__(self, path: Path, done: int, steps: int, say: Callable[[str], None]) -> None:
        self.path, self.steps, self.say = path, steps, say
        self.first, self.started, self.last = done, time.monotonic(), time.monotonic()
        self.losses: list[float] = []

    def tick(self, step: int, loss: float, measure: Callable[[], dict[str, float]]) -> None:
        self.losses.append(loss)
        now = time.monotonic()
        if distributed.rank() != 0 or (now - self.last < REPORT_SECONDS and step < self.steps):
            return
        self.last = now
        found = {"loss": float(np.mean(self.losses)), **measure()}
        self.losses = []
        left = (now - self.started) / max(1, step - self.first) * (self.steps - step)
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
        self.say(f"step {step}/{self.steps}  {numbers}  {left / 60:.1f} min left")
        row = {"step": step, "seconds": round(now - self.started, 1), **found}
        new = not self.path.exists()
        with open(self.path, "a", newline="") as stream:
            writer = csv.DictWriter(stream, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
