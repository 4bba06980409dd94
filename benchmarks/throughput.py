"""Our training loop against a plain one of diffusers, peft and accelerate, as their users write it: seconds per step.

    OMP_NUM_THREADS=1 python -m benchmarks.throughput [--rounds 8] [--steps 8]                       3 minutes of a CPU
    python -m benchmarks.throughput --layers 8 --frames 17 [--compile] [--attention NAME]              on a GPU

In: nothing; without a GPU the small base at 64 x 64 x 17 in float32, with one the 14B model's shape cut to `--layers`
with random weights at 480 x 832 in bfloat16. Encodings are made up. Both sides train the same resident model on the
same clips with the same batch, rank, targets, AdamW and clipping, in turns. Out: Markdown lines: median seconds from
one step's end to the next's, the ratio (median over pairs of turns, since other work comes and goes), and model-FLOPs
utilisation (sweeps/denoiser.py, recomputation not counted) of the matrix multiplication measured in the same run.
`short text`: ours counts equal padding (model.short_text), the plain loop computes it; without it both do the same
arithmetic. Exit status 1 where the same batch gives another loss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator, DistributedType, init_empty_weights
from diffusers import WanTransformer3DModel
from peft import LoraConfig as PeftConfig
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from cinelora import distributed
from cinelora.core.config import (
    Checkpointing,
    DataConfig,
    Dtype,
    LoraConfig,
    ModelConfig,
    TargetSet,
    TimestepDistribution,
    TrainConfig,
    TrialConfig,
)
from cinelora.core.paths import TrialFolder
from cinelora.core.records import TrialSpec
from cinelora.data.encodings import text_file, window_file
from cinelora.data.windows import Window, WindowPlan
from cinelora.training.batch import training_batch
from cinelora.training.engine import release
from cinelora.training.loop import train
from cinelora.wan import lora
from cinelora.wan.acceleration import compile_blocks
from cinelora.wan.attention import use_attention
from cinelora.wan.checkpoint import EXAMPLE, SHAPES, model_folder
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import TORCH_DTYPE, load_transformer
from sweeps.denoiser import TEXT_TOKENS, Denoiser

SHAPE = SHAPES[EXAMPLE] / "transformer" / "config.json"
CLIPS, CAPTION, WORDS = 16, "a caption", 24
COLD = 2  # steps of each turn that are left out: buffers, first allocations
SPREAD = 0.02  # of made-up weights


@dataclass(frozen=True)
class Bench:
    """What both sides train: a model on its device, encodings on disk, settings."""

    model: Any
    config: TrialConfig
    encodings: Path
    plan: WindowPlan
    root: Path


def full_shape(layers: int) -> Any:
    """The 14B denoiser with `layers` blocks, random bfloat16 weights made where they stay."""
    with init_empty_weights():
        model = WanTransformer3DModel.from_config({**json.loads(SHAPE.read_text()), "num_layers": layers})
    for name, parameter in list(model.named_parameters()):
        kept = any(part in model._keep_in_fp32_modules for part in name.split("."))
        made = torch.empty(
            parameter.shape, dtype=torch.float32 if kept else torch.bfloat16, device=distributed.device_name()
        )
        module, _, leaf = name.rpartition(".")
        model.get_submodule(module).register_parameter(leaf, torch.nn.Parameter(made.normal_(0, SPREAD)))
    return model.requires_grad_(False).eval().to(distributed.device_name())


def write_encodings(root: Path, config: TrialConfig, shape: Any, image_tokens: int) -> WindowPlan:
    """Made-up encodings in the format of the cache."""
    data, random = config.data, torch.Generator().manual_seed(0)
    size = (data.latent_frames, data.height // 8, data.width // 8)
    windows = []
    for index in range(CLIPS):
        given: dict[str, Any] = {each.name: 0 for each in fields(Window)}
        window = Window(**given | {"window_id": f"clip{index}", "caption": CAPTION, "shot_id": "shot"})
        tensors = {"latents": (16, *size), "condition": (20, *size), "image": (image_tokens, shape.image_dim)}
        made = {name: torch.randn(each, generator=random) for name, each in tensors.items()}
        save_file(made, window_file(root, window.window_id))
        windows.append(window)
    text = torch.zeros(TEXT_TOKENS, shape.text_dim)
    text[:WORDS].normal_(generator=random)
    save_file({"text": text}, text_file(root, CAPTION))
    return WindowPlan(tuple(windows), tuple(windows[:1]), "made up")


def ours(bench: Bench) -> list[float]:
    """Ends of steps of one training, with all that `train` does besides: log, learning rate, stop sign."""
    ends: dict[int, float] = {}  # of the last report of each step
    folder = TrialFolder(Path(tempfile.mkdtemp(dir=bench.root)))
    trained = train(
        bench.model,
        TrialSpec("throughput", bench.config, {}),
        Encodings(bench.encodings),
        bench.plan,
        folder,
        lambda stage, done, total, loss: ends.update({done: time.perf_counter()}),
        lambda row, step: None,
        lambda: False,
    )
    release(trained.engine, trained.parameters)
    lora.detach(bench.model)
    bench.model.disable_gradient_checkpointing()
    return [ends[step] for step in range(1, max(ends))]  # the last one measures the held-out loss too


def plain(bench: Bench, steps: int) -> list[float]:
    """The same of a loop as in the training scripts of diffusers: noise and times drawn in the loop, loss logged."""
    config, model = bench.config.train, bench.model
    half = bench.config.model.dtype is Dtype.bfloat16
    os.environ["LOCAL_RANK"] = "-1"  # one process, as `accelerate launch` has it: no DistributedDataParallel
    accelerator = Accelerator(mixed_precision="bf16" if half else "no", cpu=not torch.cuda.is_available())
    assert accelerator.distributed_type is DistributedType.NO, accelerator.distributed_type
    chosen, dtype = bench.config.lora, TORCH_DTYPE[bench.config.model.dtype]
    model.add_adapter(
        PeftConfig(r=chosen.rank, lora_alpha=chosen.rank, target_modules=lora.target_pattern(chosen.targets)),
    )
    if config.checkpointing is not Checkpointing.none:
        model.enable_gradient_checkpointing()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    encodings = Encodings(bench.encodings)
    rows = [
        {"latents": encodings.latents([window])[0]}
        | {name: tensor[0] for name, tensor in vars(encodings.conditions([window])).items()}
        for window in bench.plan.train
    ]
    loader: Any = DataLoader(rows, batch_size=config.batch_size, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    wrapped, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    ends: list[float] = []
    for batch in forever(loader, steps):
        with accelerator.accumulate(wrapped):
            clean = batch["latents"]
            noise = torch.randn_like(clean)
            u = torch.sigmoid(torch.randn(len(clean), device=clean.device))
            t = (config.shift * u / (1 + (config.shift - 1) * u)).view(-1, 1, 1, 1, 1)
            noisy = torch.cat([(1 - t) * clean + t * noise, batch["frame"]], dim=1)
            predicted = wrapped(
                hidden_states=noisy.to(dtype),
                timestep=t.flatten() * 1000,
                encoder_hidden_states=batch["text"].to(dtype),
                encoder_hidden_states_image=batch["image"].to(dtype),
                return_dict=False,
            )[0]
            loss = F.mse_loss(predicted.float(), (noise - clean).float())
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        loss.detach().item()
        ends.append(time.perf_counter())
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    accelerator.free_memory()
    model.disable_gradient_checkpointing()
    model.unload_lora()
    model.requires_grad_(False)
    return ends


def forever(loader: Any, steps: int) -> Iterator[Any]:
    made = 0
    while made < steps:
        for batch in loader:
            yield batch
            made += 1
            if made == steps:
                return


def middle(ends: list[float]) -> float:
    """Median seconds of a step of one turn."""
    return statistics.median([end - start for start, end in zip(ends, ends[1:], strict=False)][COLD:])


def compare(name: str, mine: Bench, theirs: Bench, options: argparse.Namespace, peak: float) -> str:
    """A line of the table; the two sides in turns."""
    turns = [(middle(ours(mine)), middle(plain(theirs, options.steps))) for _ in range(options.rounds)]
    fast, slow = (statistics.median(turn) for turn in zip(*turns, strict=True))
    ratio = statistics.median(other / own for own, other in turns)
    used = [operations(bench) / each / peak for bench, each in ((mine, fast), (theirs, slow))]
    texts = [f"{fast:.4f}", f"{slow:.4f}", f"**{ratio:.3f}**", *(f"{100 * each:.0f} %" for each in used)]
    return f"| {name} | {' | '.join(texts)} |"


def operations(bench: Bench) -> float:
    """Of one step, without what checkpointing computes again."""
    text = WORDS + 1 if bench.config.model.short_text else TEXT_TOKENS
    image = Encodings(bench.encodings).conditions([bench.plan.train[0]]).image.shape[1]
    net = Denoiser.of(bench.model.config, text, image)
    return bench.config.train.batch_size * net.step(bench.config.data.video_tokens)


def matmul_peak(dtype: torch.dtype) -> float:
    """Operations per second of the fastest of ten square products."""
    size = 8192 if torch.cuda.is_available() else 1024
    a = torch.randn(size, size, device=distributed.device_name()).to(dtype)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


def same_loss(one: Bench, other: Bench) -> tuple[float, float]:
    """Of the first batch under both models without adapter."""
    batch = training_batch(one.config, Encodings(one.encodings), one.plan, 0, range(one.config.train.batch_size))
    with torch.no_grad():
        found = [batch.losses(bench.model).mean() for bench in (one, other)]
    return float(found[0]), float(found[1])


def settings(options: argparse.Namespace, gpu: bool, checkpointing: Checkpointing, short: bool) -> TrialConfig:
    size = DataConfig(frames=options.frames, height=480 if gpu else 64, width=832 if gpu else 64)
    batch = options.batch or (1 if gpu else 8)
    return TrialConfig(
        model=ModelConfig(path="builtin:small", dtype=Dtype.bfloat16 if gpu else Dtype.float32, short_text=short),
        data=size,
        lora=LoraConfig(rank=16, targets=TargetSet(options.targets)),
        train=TrainConfig(
            steps=options.steps,
            batch_size=batch,
            micro_batch=batch,
            timestep=TimestepDistribution.logit_normal,
            heldout_every=10**9,
            heldout_windows=1,
            checkpoint_every=10**9,
            checkpointing=checkpointing,
        ),
    )


def main() -> int:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="of each turn")
    parser.add_argument("--batch", type=int, default=0, help="clips per step; 0: 8 without a GPU, 1 with one")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--targets", default="cross")
    parser.add_argument("--layers", type=int, default=8, help="GPU: of the 40 blocks")
    parser.add_argument("--compile", action="store_true", help="ours: compiled blocks that keep self-attention")
    parser.add_argument("--attention", default="", help="ours: backend")
    options = parser.parse_args()
    distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    dtype = torch.bfloat16 if gpu else torch.float32
    peak = matmul_peak(dtype)
    device = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    print(f"{platform.machine()}, {device}, load {os.getloadavg()[0]:.1f}, matmul {peak / 1e9:.0f} GFLOP/s, {dtype}")
    status = 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        made: dict[bool, Any] = {}

        def bench(checkpointing: bool, short: bool, alter: bool = False) -> Bench:
            again = Checkpointing.attention if alter and options.compile else Checkpointing.all
            config = settings(options, gpu, again if checkpointing else Checkpointing.none, short)
            key = short or (alter and bool(options.compile or options.attention))
            if key not in made:
                folder = model_folder(config.model, root)
                made[key] = full_shape(options.layers) if gpu else load_transformer(folder, Dtype.float32, "cpu", short)
                if alter and options.attention:
                    use_attention(made[key], options.attention, dtype)
                if alter and options.compile:
                    compile_blocks(made[key])
            plan = write_encodings(root, config, made[key].config, 257 if gpu else 17)
            return Bench(made[key], config, root, plan, root)

        print("| | ours, s | plain, s | ratio | utilisation, ours | plain |\n|:--|--:|--:|--:|--:|--:|")
        for short in (False,) if gpu else (False, True):
            for checkpointing in (False, True):
                mine, theirs = bench(checkpointing, short, alter=True), bench(checkpointing, False)
                losses = same_loss(mine, theirs)
                status |= abs(losses[0] - losses[1]) > (1e-2 if gpu else 1e-5) * losses[1]
                name = (
                    f"{'short text' if short else 'same arithmetic'}, checkpointing {'on' if checkpointing else 'off'}"
                )
                print(compare(name, mine, theirs, options, peak), flush=True)
    print("losses of the same batch agree" if not status else "LOSSES DIFFER")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
