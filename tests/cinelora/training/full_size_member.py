"""One process of the gang of test_full_size.py, run by pair_member.py.

Trains the cases one after the other in one process group and saves what came of each; prints the names of those done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinelora import distributed
from cinelora.core.config import LoraConfig
from cinelora.core.seeds import generator
from cinelora.training import loop
from cinelora.training.engine import full_parameters, release
from cinelora.training.heldout import window_losses
from cinelora.trial.job import Job
from cinelora.trial.resident import ResidentModel, load_resident_model
from cinelora.wan import lora, sampler
from cinelora.wan.encoding import Encodings
from cinelora.wan.parallel import shared_tokens
from tests import tiny_study
from tests.cinelora.training.gang_member import port_of_both

SHARDED = {"zero__stage": 3, "zero__persistence_threshold": 0}
SPLIT = {"model__sequence_workers": 2}
CHECKPOINTED = {"train__gradient_checkpointing": True}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "split": SPLIT,
    "split, averaged": SPLIT,  # a control: without the factor for workers that share tokens
    "split, checkpointed": {**SPLIT, **CHECKPOINTED},
    "plain again": {},
    "split, new group": SPLIT,  # in a second process group
    "sharded": {**SHARDED, **CHECKPOINTED},
    "split, sharded": {**SPLIT, **SHARDED, **CHECKPOINTED},
}
Outcome = dict[
    str, Any
]  # adapter by name, rows (loss, gradient norm) of the steps; or losses and latents of an adapter


def job_for(root: Path, changes: dict[str, Any]) -> Job:
    """AdamW's eps is large, so that its step depends on how large the gradient is. No checkpoint before the end."""
    settings = {"train__steps": 3, "train__batch_size": 8, "train__eps": 1e-2, "train__checkpoint_every": 99, **changes}
    config = tiny_study.tiny_config(root / "clips", lora__rank=4, lora__targets="attn", **settings)
    return tiny_study.make_job(root, config, encode=False)


def trained(root: Path, name: str, changes: dict[str, Any], base: ResidentModel) -> Outcome:
    """The adapter and its steps, in this worker's own folder; the base stays unchanged."""
    job = job_for(root, changes)
    config, rows = job.spec.config, []
    with shared_tokens(base.transformer, config.model.sequence_workers):
        done = loop.train(
            base.transformer,
            job.spec,
            Encodings(job.encodings),
            job.windows(),
            type(job.study)(root / f"{name} {distributed.world_size()} {distributed.rank()}").trial("it"),
            tiny_study.silent,
            lambda row, step: rows.append((row["loss"], row["grad_norm"])),
            lambda: False,
        )
        adapter = full_parameters(done.parameters)
    release(done.engine, done.parameters)
    lora.detach(base.transformer)
    return {"adapter": adapter, "rows": rows[1:]}


def evaluated(root: Path, changes: dict[str, Any], base: ResidentModel) -> Outcome:
    """Held-out losses and generated latents under an adapter that is not zero."""
    job = job_for(root, changes)
    config, plan, encodings = job.spec.config, job.windows(), Encodings(job.encodings)
    windows = [*plan.heldout, *plan.train]
    for name, parameter in lora.attach(base.transformer, LoraConfig(rank=2), seed=0):
        if ".lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator(name)) * 0.1
    with shared_tokens(base.transformer, config.model.sequence_workers), torch.no_grad():
        losses = window_losses(base.transformer, config, encodings, windows)
        parts = sampler.generate(
            base.transformer, None, base.folder, config, encodings, windows, range((len(windows) + 1) // 2)
        )
        mine = {index: latents for index, _, latents in parts}
    lora.detach(base.transformer)
    every = {index: latents for part in distributed.gather_objects(mine) for index, latents in part.items()}
    return {"losses": losses, "latents": np.concatenate([every[index] for index in sorted(every)])}


def latents_as_they_are(vae: Any, latents: torch.Tensor) -> np.ndarray:
    return latents.numpy()


def halved(build: Any) -> Any:
    """`zero.build_engine` whose engines undo the factor of two."""

    def build_halved(*arguments: Any) -> Any:
        engine = build(*arguments)
        backward = engine.backward
        engine.backward = lambda loss: backward(loss / 2)
        return engine

    return build_halved


def main(root: Path, rank: int) -> None:
    sampler.decode_video = latents_as_they_are
    build, base = loop.build_engine, load_resident_model(job_for(root, {}))
    found: dict[str, Outcome] = {"evaluated": evaluated(root, SPLIT, base)}
    for name, changes in CASES.items():
        loop.build_engine = halved(build) if "averaged" in name else build
        if "new group" in name:
            distributed.start(rank, 2, "127.0.0.1", port_of_both())
        found[name] = trained(root, name, changes, base)
        print(name, flush=True)
    torch.save(found, root / f"full-size-{rank}.pt")
