"""Make the small pretrained base again from nothing: autoencoder, denoiser, text encoder, folder, figures of merit.

    python -m cinelora.smallbase --out assets/wan-small                       (or `make base`; hours on one core)
    torchrun --standalone --nproc_per_node=2 -m cinelora.smallbase --out assets/wan-small
    python -m cinelora.smallbase --out /tmp/base --vae-steps 20 --denoiser-steps 20 --clips 32      (a minute)

In: nothing but a seed; the clips are drawn as they are needed. Out: the model folder in diffusers layout with
`merit.json`; state and logs in `--state`, from which the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from cinelora import distributed
from cinelora.core.files import write_json
from cinelora.data.synthetic import make_caption
from cinelora.smallbase.denoiser import (
    HELDOUT_CLIPS,
    HELDOUT_SEED,
    TRAIN_SEED,
    Clips,
    cached_raw,
    prepare,
    statistics,
    train_denoiser,
)
from cinelora.smallbase.evaluate import figures_of_merit
from cinelora.smallbase.model import export, new_vae, vocabulary
from cinelora.smallbase.vae import train_vae, whole_clip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pretrain the small base model.")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--state", type=Path, default=Path(".cache/pretrain"), help="checkpoints and logs")
    parser.add_argument("--vae-steps", type=int, default=2600)
    parser.add_argument("--denoiser-steps", type=int, default=15000)
    parser.add_argument("--clips", type=int, default=14000, help="clips that the denoiser is trained on")
    parser.add_argument(
        "--tnv2", type=Path, default=None, help="TransNetV2 weights (`make fetch`), for kvd in merit.json"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def join_workers() -> None:
    """Enter torchrun's process group if there is one."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if "RANK" in os.environ and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def say(text: str) -> None:
    if distributed.rank() == 0:
        print(text, flush=True)


def encoded(
    state: Path, vae_state: dict[str, torch.Tensor], count: int, words: list[str]
) -> tuple[Clips, dict[str, Clips], tuple[list[float], list[float]]]:
    """This worker's training clips, held-out clips by domain, and the latent statistics that all share."""
    vae = whole_clip(new_vae())
    vae.load_state_dict(vae_state)
    vae.requires_grad_(False)
    mine = range(distributed.rank(), count, distributed.world_size())
    say(f"encoding {count} clips")
    raw = cached_raw(
        state / f"clips-{distributed.rank()}-of-{distributed.world_size()}-{count}.safetensors",
        vae,
        "source",
        TRAIN_SEED,
        mine,
    )
    shared = distributed.gather_objects(tuple(value.tolist() for value in statistics(raw)))[0]
    stats = (torch.tensor(shared[0]), torch.tensor(shared[1]))
    train = prepare(raw, stats, [make_caption("source", TRAIN_SEED, i) for i in mine], words)
    heldout = {}
    for domain in ("source", "film"):
        held = range(HELDOUT_CLIPS)
        name = state / f"heldout-{domain}-{distributed.rank()}.safetensors"
        captions = [make_caption(domain, HELDOUT_SEED, i) for i in held]
        heldout[domain] = prepare(cached_raw(name, vae, domain, HELDOUT_SEED, held), stats, captions, words)
    return train, heldout, shared


def main() -> None:
    options = parse()
    join_workers()
    options.state.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    say("autoencoder")
    vae_state = train_vae(options.state, options.vae_steps, options.seed, say)
    train, heldout, stats = encoded(options.state, vae_state, options.clips, words)
    say("denoiser and text encoder")
    states = train_denoiser(options.state, train, heldout, options.denoiser_steps, options.seed, say)
    if distributed.rank() == 0:
        export(options.out, vae_state, stats, *states, words)
        merit = figures_of_merit(options.out, say, tnv2=options.tnv2)
        write_json(options.out / "merit.json", merit)
        say(json.dumps(merit, indent=2))


if __name__ == "__main__":
    main()
