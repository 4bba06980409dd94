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
from cinelora.smallbase.denoiser import encode_clips, train_denoiser
from cinelora.smallbase.evaluate import write_evaluation
from cinelora.smallbase.model import export, vocabulary
from cinelora.smallbase.vae import train_vae
from cinelora.wan.parallel import join
from cinelora.wan.tiny import quiet_transformers


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description="Pretrain the small base model.")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--state", type=Path, default=Path(".cache/pretrain"), help="checkpoints and logs")
    parser.add_argument("--vae-steps", type=int, default=2600)
    parser.add_argument("--denoiser-steps", type=int, default=12000)
    parser.add_argument("--clips", type=int, default=14000, help="clips that the denoiser is trained on")
    parser.add_argument("--weights", type=Path, help="folder of metric weights (`make fetch`), for merit.json")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def pretrain(options: argparse.Namespace) -> None:
    quiet_transformers()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if "RANK" in os.environ:  # started by torchrun
        join()
    words = vocabulary()
    vae_state = train_vae(options.state, options.vae_steps, options.seed)
    vae_state = {name: tensor.half().float() for name, tensor in vae_state.items()}  # the weights that are exported
    train, heldout, stats = encode_clips(options.state, vae_state, options.clips, words)
    states = train_denoiser(options.state, train, heldout, options.denoiser_steps, options.seed)
    if distributed.rank() == 0:
        export(options.out, vae_state, stats, *states, words)
        write_evaluation(options.out, options.weights)


def main(arguments: Sequence[str] | None = None) -> int:
    stopped = "stopped; the same command continues from the last checkpoint"
    return exit_status(lambda: pretrain(parse(arguments)), quiet=os.environ.get("RANK", "0") != "0", stopped=stopped)


if __name__ == "__main__":
    raise SystemExit(main())
