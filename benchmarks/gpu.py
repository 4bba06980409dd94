"""Seconds per step, peak memory and utilisation at the shape of the 14B model, and what the plan predicts.

    python -m benchmarks.gpu [--frames 33 81] [--ranks 16]      one 80 GB card
    python -m benchmarks.gpu --only fast                        (or eager); `--fast` is the same
    OMP_NUM_THREADS=1 python -m benchmarks.gpu                  without a GPU: the small base, minutes; times only

In: nothing; random weights and encodings, 480 x 832, bfloat16, one clip per step (without a GPU 64 x 64, float32).
Eager: blocks checkpointed whole. Fast: compiled blocks, checkpointed but for self-attention. Out: for each of them two
Markdown tables, then our training in turns with a plain loop of diffusers, PEFT and accelerate, on a model of
`--pair-layers` blocks (benchmarks/throughput.py): the ratio is the median over `--rounds`. Training takes the steps of
a trial on its engine: one to warm up, then the median of `--steps` timed ones. Generation takes two sampler steps with
guidance, where compiled after one to warm up, and decodes one clip; seconds per clip are extrapolated to `--sampler`
steps. Rows that would begin after `--minutes` stay empty. Memory is the allocator's peak. Utilisation counts nothing
computed again (sweeps/denoiser.py). It is relative to the peak of the data sheet, or, for an unknown device, to a
matrix multiplication measured here; so are the times predicted for it. Without a GPU no time is predicted.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from benchmarks import throughput
from benchmarks.throughput import Bench, compare, full_shape, matmul_peak, write_encodings
from cinelora import distributed
from cinelora.core.config import (
    Checkpointing,
    DataConfig,
    Dtype,
    LoraConfig,
    ModelConfig,
    SampleConfig,
    TargetSet,
    TrainConfig,
    TrialConfig,
)
from cinelora.data.windows import WindowPlan
from cinelora.training.engine import build_engine, release
from cinelora.training.loop import my_batches, optimiser_step
from cinelora.wan import lora
from cinelora.wan.acceleration import checkpoint_blocks, compile_blocks
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import Encodings, decode_video
from cinelora.wan.loading import TORCH_DTYPE, load_transformer, load_vae
from cinelora.wan.sampler import denoise
from sweeps.cost import GPUS, MEASURED, forward_seconds, training_seconds
from sweeps.denoiser import Denoiser
from sweeps.memory import GIB, footprint, peak_gib

SAMPLED = 2  # sampler steps that are run
EMPTY = "-"
PAIRED_STEPS = 6  # of each turn against the plain loop, of which the last two or three are timed


@dataclass(frozen=True)
class Machine:
    """`peak`: operations per second; `whole`: the 14B shape, otherwise the small base."""

    name: str
    peak: float
    whole: bool

    @property
    def slower(self) -> float | None:
        """Than the card on which the speeds were measured, by the peaks; None: no GPU, no prediction."""
        return GPUS[MEASURED].tflops * 1e12 / self.peak if self.whole else None

    @property
    def dtype(self) -> Dtype:
        return Dtype.bfloat16 if self.whole else Dtype.float32


def machine() -> Machine:
    if not torch.cuda.is_available():
        return Machine(f"{platform.machine()}, no GPU", matmul_peak(torch.float32), whole=False)
    name = torch.cuda.get_device_name()
    known = [gpu.tflops * 1e12 for device, gpu in GPUS.items() if device in name]
    return Machine(name, known[0] if known else matmul_peak(torch.bfloat16), whole=True)


def settings(on: Machine, frames: int, rank: int, sampler: int, fast: bool) -> TrialConfig:
    kind = Checkpointing.attention if fast else Checkpointing.all
    return TrialConfig(
        model=ModelConfig(path="builtin:small", dtype=on.dtype, compile=fast),
        data=DataConfig(frames=frames, height=480 if on.whole else 64, width=832 if on.whole else 64),
        lora=LoraConfig(rank=rank, targets=TargetSet.cross),
        train=TrainConfig(batch_size=1, micro_batch=1, checkpointing=kind),
        sample=SampleConfig(steps=sampler, guidance=5.0, batch_size=1),
    )


def started() -> float:
    """Wait for the device, reset its peak of memory, and return the time in seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    return time.perf_counter()


def took(since: float) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - since


def most_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None


def trained(
    model: Any, config: TrialConfig, encodings: Encodings, plan: WindowPlan, steps: int, warm: bool
) -> tuple[float, float | None]:
    """(median seconds per step, peak GiB) of an adapter of this rank; `warm`: the warm-up step was taken before."""
    parameters = lora.attach(model, config.lora, seed=0)
    engine = build_engine(model, parameters, config.train, config.zero, config.model)
    checkpoint_blocks(model, config.train.checkpointing, 0, 0)
    seconds = []
    count = steps + (not warm)
    batches = my_batches(config, encodings, plan, range(count))
    started()
    for step in range(count):
        since = time.perf_counter()
        optimiser_step(engine, config, batches, step, False)
        engine.step()
        seconds.append(took(since))
    most = most_gib()
    release(engine, parameters)
    lora.detach(model)
    model.disable_gradient_checkpointing()
    return statistics.median(seconds[-steps:]), most


def generated(
    model: Any, vae: Any, folder: Path, config: TrialConfig, encodings: Encodings, plan: WindowPlan
) -> tuple[float, float, float | None, float | None]:
    """Seconds of one sampler step and of decoding one clip; peak GiB of each."""
    windows, device = list(plan.train[:1]), distributed.device_name()
    sample = replace(config.sample, steps=SAMPLED)
    noise = encodings.latents(windows).to(device)
    conditions = encodings.conditions(windows).to(device, TORCH_DTYPE[config.model.dtype])
    if config.model.compile:
        denoise(model, folder, replace(sample, steps=1), noise, conditions, conditions.text)
    since = started()
    latents = denoise(model, folder, sample, noise, conditions, conditions.text)
    sampling, most = took(since) / SAMPLED, most_gib()
    since = started()
    decode_video(vae, latents)
    return sampling, took(since), most, most_gib()


def cell(value: float | None, digits: int = 2) -> str:
    return EMPTY if value is None else f"{value:.{digits}f}"


def off(measured: float | None, predicted: float | None) -> str:
    return EMPTY if measured is None or predicted is None else f"{predicted / measured - 1:+.0%}"


def training_row(
    on: Machine, config: TrialConfig, shape: Any, found: tuple[float, float | None] | None, vae: dict[str, Any]
) -> str:
    tokens, net = config.data.video_tokens, Denoiser.of(shape)
    seconds, most = found or (None, None)
    kind = config.train.checkpointing
    one = training_seconds(net, tokens, config.model.compile, kind, 0, True)
    expected = on.slower and on.slower * one
    need = peak_gib(footprint(Denoiser.of(shape), vae, config, 1, 1)["train"])
    used = EMPTY if seconds is None else f"{net.step(tokens) / seconds / on.peak:.0%}"
    times = [cell(seconds), cell(expected), off(seconds, expected), used]
    memory = [cell(most), cell(need), off(most, need)]
    return "| " + " | ".join([str(config.data.frames), str(config.lora.rank), *times, *memory]) + " |"


def sampling_row(
    on: Machine, config: TrialConfig, shape: Any, found: tuple[float, float, float | None, float | None], vae: Any
) -> str:
    step, decoding, most, most_decoding = found
    need = footprint(Denoiser.of(shape), vae, config, 1, 1)
    net = Denoiser.of(shape)
    expected = on.slower and on.slower * 2 * forward_seconds(net, config.data.video_tokens, config.model.compile)
    whole = [cell(step), cell(expected), off(step, expected), cell(decoding)]
    memory = [cell(most), cell(peak_gib(need["generate"])), cell(most_decoding), cell(peak_gib(need["decode"]))]
    clip = cell(step * config.sample.steps + decoding, 1)
    return "| " + " | ".join([str(config.data.frames), clip, *whole, *memory]) + " |"


TRAINING = """
| frames | rank | s/step | predicted | off | utilisation | GiB | predicted | off |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""
SAMPLING = """
| frames | s/clip | s/sampler step | predicted | off | decode, s | GiB | predicted | decode GiB | predicted |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""
PAIRED = """
| against the plain loop | ours, s | plain, s | ratio | utilisation, ours | plain |
|:--|--:|--:|--:|--:|--:|"""


def opened(on: Machine, folder: Path, layers: int, fast: bool) -> Any:
    model = full_shape(layers) if on.whole else load_transformer(folder, on.dtype)
    if fast:
        compile_blocks(model, "inductor" if on.whole else "aot_eager")  # the latter needs no compiler
    return model


def paired(on: Machine, options: argparse.Namespace, kinds: list[str], root: Path) -> None:
    """Ours and the plain loop in turns, the plain one always eager."""
    folder = model_folder(ModelConfig(path="builtin:small"), root)
    plain = opened(on, folder, options.pair_layers, False)
    print(PAIRED)
    for kind in kinds:
        ours = opened(on, folder, options.pair_layers, True) if kind == "fast" else plain
        for frames in options.frames:
            turn = argparse.Namespace(
                frames=frames, batch=1, targets="cross", steps=PAIRED_STEPS, rounds=options.rounds
            )
            place = root / f"{kind}{frames}"
            place.mkdir()
            again = Checkpointing.attention if kind == "fast" else Checkpointing.all
            mine, theirs = (throughput.settings(turn, on.whole, each, False) for each in (again, Checkpointing.all))
            plan = write_encodings(place, mine, plain.config, 257 if on.whole else 17)
            benches = Bench(ours, mine, place, plan, place), Bench(plain, theirs, place, plan, place)
            print(compare(f"{kind}, {frames} frames", *benches, turn, on.peak), flush=True)


def measure(on: Machine, options: argparse.Namespace, fast: bool, root: Path) -> None:
    folder = model_folder(ModelConfig(path="builtin:small"), root)
    model = opened(on, folder, options.layers, fast)
    print(f"\n{'fast' if fast else 'eager'}")
    vae = AutoencoderKLWan().to(distributed.device_name()).eval() if on.whole else load_vae(folder)
    shape = dict(model.config)
    until, sampled = time.perf_counter() + 60 * options.minutes, []
    print(TRAINING)
    for frames in options.frames:
        config = settings(on, frames, options.ranks[0], options.sampler, fast)
        place = root / str(frames)
        place.mkdir()
        plan, encodings = write_encodings(place, config, model.config, 257 if on.whole else 17), Encodings(place)
        for index, rank in enumerate(options.ranks):
            each = replace(config, lora=replace(config.lora, rank=rank))
            late = time.perf_counter() > until
            warm = index > 0 and not fast
            timed = None if late else trained(model, each, encodings, plan, options.steps, warm)
            print(training_row(on, each, shape, timed, dict(vae.config)), flush=True)
        if time.perf_counter() < until:
            sampled.append((config, generated(model, vae, folder, config, encodings, plan)))
    print(SAMPLING)
    for config, found in sampled:
        print(sampling_row(on, config, shape, found, dict(vae.config)))


def main() -> int:
    on = machine()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    add: Any = parser.add_argument
    add("--frames", type=int, nargs="+", default=[17, 33, 49, 81] if on.whole else [5, 17])
    add("--ranks", type=int, nargs="+", default=[4, 16, 64, 128] if on.whole else [4, 16])
    add("--steps", type=int, default=2, help="timed steps per rank")
    add("--sampler", type=int, default=40, help="sampler steps of a clip, for its seconds")
    add("--layers", type=int, default=40, help="blocks of the 14B model")
    add("--only", choices=("eager", "fast"), help="not both")
    add("--fast", dest="only", action="store_const", const="fast", help="the same as --only fast")
    add("--rounds", type=int, default=2, help="turns of ours and of the plain loop; 0: none")
    add("--pair-layers", type=int, default=4, help="blocks of the 14B model in those turns")
    add("--minutes", type=float, default=9.0, help="no row begins later than this, of eager and of fast")
    options = parser.parse_args()
    distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    if on.whole:
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        print(f"{memory:.0f} GiB of device memory, {options.layers} of 40 blocks")
    print(f"{on.name}, torch {torch.__version__}, peak {on.peak / 1e12:.2f} TFLOP/s, {on.dtype.value}", flush=True)
    kinds = [options.only] if options.only else ["eager", "fast"]
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            measure(on, options, kind == "fast", Path(folder))
    if options.rounds:
        with tempfile.TemporaryDirectory() as folder:
            paired(on, options, kinds, Path(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
