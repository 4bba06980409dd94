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

from cinelora import dist
from cinelora.records import whole_file
from cinelora.seeds import counter_seed

Named = list[tuple[str, torch.nn.Parameter]]
CHECKPOINT_STEPS = 200
REPORT_SECONDS = 60.0


def random_for(*key: int | str) -> np.random.Generator:
    """A NumPy generator for this key."""
    return np.random.default_rng(counter_seed(*key))


def decayed(peak: float, step: int, steps: int, warmup: int, hold: float) -> float:
    """Linear warm-up, `peak` until the share `hold` of the steps, then cosine to 1 % of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = max(0.0, (step / steps - hold) / (1 - hold))
    return peak * max(0.01, 0.5 * (1 + math.cos(math.pi * done)))


class Training:
    """AdamW over all workers, with its state on disk. `step` is how many steps are done."""

    def __init__(self, path: Path, named: Named, betas: tuple[float, float], decay: float) -> None:
        self.path, self.named, self.step = path, named, 0
        self.worker = dist.rank()
        self.device = dist.device_name().split(":")[0]
        for _, parameter in named:
            parameter.data = parameter.data.to(self.device)
        self.optimizer = torch.optim.AdamW([p for _, p in named], lr=0.0, betas=betas, weight_decay=decay)
        if path.exists():
            self._load()

    def update(self, loss: torch.Tensor, rate: float) -> None:
        """One step on the mean gradient of all workers, clipped to norm 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        parameters = [p for _, p in self.named]
        if dist.world_size() > 1:
            flat = torch.cat([p.grad.flatten() if p.grad is not None else p.new_zeros(p.numel()) for p in parameters])
            torch.distributed.all_reduce(flat)
            for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
                parameter.grad = mean.view_as(parameter) / dist.world_size()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"{self.path.stem}: the gradient is {norm.item()}; remove its state, lower the rate"
            )
        self.optimizer.step()

    def checkpoint(self, step: int, steps: int) -> None:
        """Write the state now and then, and at the end."""
        self.step = step
        if self.worker == 0 and (step % CHECKPOINT_STEPS == 0 or step == steps):
            tensors = {}
            for name, parameter in self.named:
                tensors[f"param/{name}"] = parameter.detach().cpu().contiguous()
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
            with whole_file(self.path) as temporary:
                save_file(tensors, temporary, metadata={"step": str(step)})

    def _load(self) -> None:
        with safe_open(self.path, framework="pt") as stream:
            self.step = int(stream.metadata()["step"])
            known = set(stream.keys())
            for name, parameter in self.named:
                parameter.data.copy_(stream.get_tensor(f"param/{name}"))
                if f"exp_avg/{name}" in known:
                    keys = ("step", "exp_avg", "exp_avg_sq")
                    self.optimizer.state[parameter] = {key: stream.get_tensor(f"{key}/{name}") for key in keys}


class Progress:
    """A line and a CSV row a minute: step, loss, rate of work, time left, and what `measure` finds."""

    def __init__(self, path: Path, done: int, steps: int, say: Callable[[str], None]) -> None:
        self.path, self.steps, self.say = path, steps, say
        self.first, self.started, self.last = done, time.monotonic(), time.monotonic()
        self.losses: list[float] = []

    def tick(self, step: int, loss: float, measure: Callable[[], dict[str, float]]) -> None:
        self.losses.append(loss)
        now = time.monotonic()
        if dist.rank() != 0 or (now - self.last < REPORT_SECONDS and step < self.steps):
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
