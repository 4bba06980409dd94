"""Pretrain the small base from nothing: autoencoder, denoiser, text encoder, model folder, evaluation.

    python -m cinelora.smallbase --out assets/wan-small                       (or `make base`; hours on one core)
    torchrun --standalone --nproc_per_node=2 -m cinelora.smallbase --out assets/wan-small
    python -m cinelora.smallbase --out /tmp/base --vae-steps 20 --denoiser-steps 20 --clips 32      (a minute)

In: nothing but a seed; the clips are drawn as they are needed. Out: the model folder in diffusers layout with
`merit.json`; checkpoints and logs in `--state`, from which the same command resumes after a stop.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from cinelora import distributed
from cinelora.core.cli import Parser, exit_status
from cinelora.data.synthetic import SHAPES, make_caption
from cinelora.smallbase.denoiser import (
    HELDOUT_CLIPS,
    HELDOUT_SEED,
    TRAIN_SEED,
    Clips,
    encode_raw,
    prepare,
    train_denoiser,
)
from cinelora.smallbase.evaluate import write_evaluation
from cinelora.smallbase.model import export, new_vae, vocabulary
from cinelora.smallbase.vae import train_vae, whole_clip
from cinelora.wan.parallel import join
from cinelora.wan.tiny import quiet_transformers


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description="Pretrain the small base model.")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--state", type=Path, default=Path(".cache/pretrain"), help="checkpoints and logs")
    parser.add_argument("--vae-steps", type=int, default=2600)
    parser.add_argument("--denoiser-steps", type=int, default=15000)
    parser.add_argument("--clips", type=int, default=14000, help="clips that the denoiser is trained on")
    parser.add_argument(
        "--tnv2", type=Path, default=None, help="TransNetV2 weights (`make fetch`), for kvd in merit.json"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def encoded(
    state: Path, vae_state: dict[str, torch.Tensor], count: int, words: list[str]
) -> tuple[Clips, dict[str, Clips], tuple[list[float], list[float]]]:
    """This worker's training clips, held-out clips by domain, and the latent mean and standard deviation of rank 0."""
    vae = whole_clip(new_vae())
    vae.load_state_dict(vae_state)
    vae.requires_grad_(False)
    rank, workers = distributed.rank(), distributed.world_size()
    own = range(rank, count, workers)
    raw = encode_raw(state / f"clips-{rank}-of-{workers}-{count}.safetensors", vae, "source", TRAIN_SEED, own)
    channels = (0, 2, 3, 4)
    own_stats = (raw["latents"].mean(channels).tolist(), raw["latents"].std(channels).tolist())
    shared = distributed.gather_objects(own_stats)[0]
    stats = (torch.tensor(shared[0]), torch.tensor(shared[1]))
    train = prepare(raw, stats, [make_caption("source", TRAIN_SEED, i) for i in own], words)
    heldout = {}
    for domain in SHAPES:
        held = range(HELDOUT_CLIPS)
        raw = encode_raw(state / f"heldout-{domain}-{rank}.safetensors", vae, domain, HELDOUT_SEED, held)
        heldout[domain] = prepare(raw, stats, [make_caption(domain, HELDOUT_SEED, i) for i in held], words)
    return train, heldout, shared


def pretrain(options: argparse.Namespace) -> None:
    quiet_transformers()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if "RANK" in os.environ:  # started by torchrun
        join()
    words = vocabulary()
    vae_state = train_vae(options.state, options.vae_steps, options.seed)
    train, heldout, stats = encoded(options.state, vae_state, options.clips, words)
    states = train_denoiser(options.state, train, heldout, options.denoiser_steps, options.seed)
    if distributed.rank() == 0:
        export(options.out, vae_state, stats, *states, words)
        write_evaluation(options.out, options.tnv2)


def main(arguments: Sequence[str] | None = None) -> int:
    stopped = "stopped; the same command continues from the last checkpoint"
    return exit_status(lambda: pretrain(parse(arguments)), quiet=os.environ.get("RANK", "0") != "0", stopped=stopped)


if __name__ == "__main__":
    raise SystemExit(main())
