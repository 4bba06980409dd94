"""Accelerations of generation, and what each changes in the clips: the second half of `benchmarks/generation.py`.

In: held-out clips of the built-in film set, the shipped small base, a wider random one, TransNetV2's weights. Out: rows
of Markdown tables. As a program it is one of two processes that generate together.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cinelora import distributed
from cinelora.core.config import DataConfig, Dtype, SampleConfig, StepCache
from cinelora.core.seeds import draw_noise
from cinelora.data.encodings import encoding_folder, missing, shared_folder
from cinelora.data.sample_sets import ensure
from cinelora.data.windows import Window, plan_windows
from cinelora.features import clip_scores
from cinelora.features.nets import NETS, open_net
from cinelora.metrics.distances import polynomial_mmd, standardise
from cinelora.metrics.resampling import half_samples, kernel_grams, matched_mmd_replicates
from cinelora.wan.checkpoint import SHIPPED, model_fingerprint
from cinelora.wan.encoding import Encodings, decode_video, encode_texts, encode_windows, reference_frames
from cinelora.wan.loading import TORCH_DTYPE, load_transformer, load_vae
from cinelora.wan.options import Parallel
from cinelora.wan.parallel import spread
from cinelora.wan.sampler import batches, denoise, starting_noise

SMALL = SHIPPED["small"]
PLAIN = SampleConfig(steps=8, guidance=5.0, shift=2.0, batch_size=1)  # the guidance that the stock pipeline starts with
BATCH, CLIPS, DRAWS = 8, 24, 1000
MODES = ("a process per clip", Parallel.ulysses.value, Parallel.fsdp.value, Parallel.both.value)


@dataclass(frozen=True)
class Generation:
    """How clips are generated: settings, the text as 512 tokens or shortened, precision."""

    sample: SampleConfig = field(default_factory=lambda: PLAIN)
    short: bool = False
    dtype: Dtype = Dtype.float32


def first_block(threshold: float) -> Generation:
    return Generation(replace(PLAIN, cache=StepCache.first_block, cache_threshold=threshold))


SETTINGS = {
    "plain: one clip at a time, two passes": Generation(),
    "short text": Generation(short=True),
    f"batch {BATCH}": Generation(replace(PLAIN, batch_size=BATCH)),
    "guidance in one batch": Generation(replace(PLAIN, batched_guidance=True)),
    f"short text, batch {BATCH}, guidance in one": Generation(
        replace(PLAIN, batch_size=BATCH, batched_guidance=True), True
    ),
    "first block, threshold 0.15": first_block(0.15),
    "first block, threshold 0.3": first_block(0.3),
    "bfloat16": Generation(dtype=Dtype.bfloat16),
}


@dataclass
class Film:
    """Held-out windows and their encodings by the base in `folder`."""

    folder: Path
    data: DataConfig
    windows: list[Window]
    encodings: Encodings

    @staticmethod
    def of(cache: Path, base: Path = SMALL, clips: int = CLIPS) -> Film:
        data = DataConfig(path=str(ensure("film", cache)))
        plan = plan_windows(Path(data.path), data, cache)
        fingerprint = model_fingerprint(base, "")
        folder, shared = encoding_folder(cache, plan.fingerprint, fingerprint), shared_folder(cache, fingerprint)
        windows, (absent, prompts) = list(plan.heldout[:clips]), missing(folder, plan, {""})
        encode_texts(base, folder, shared, prompts, "cpu")
        todo = [window for window in windows if window in absent]
        encode_windows(base, folder, shared, Path(data.path), data, todo, "cpu")
        return Film(base, data, windows, Encodings(folder))

    def real(self) -> np.ndarray:
        return np.stack([reference_frames(Path(self.data.path), self.data, window) for window in self.windows])

    def generate(self, model: Any, vae: Any, settings: Generation, windows: Sequence[Window]) -> np.ndarray:
        """Frames (N, F, H, W, 3), decoded."""
        generated = []
        for chunk in batches(list(windows), settings.sample.batch_size):
            latents = denoise(
                model,
                self.folder,
                settings.sample,
                starting_noise(self.encodings, chunk, 0),
                self.encodings.conditions(chunk).to("cpu", TORCH_DTYPE[settings.dtype]),
                self.encodings.texts([""] * len(chunk)),
            )
            generated.append(decode_video(vae, latents))
        return np.concatenate(generated)


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def forward(transformer: Any, side: int = 8) -> torch.Tensor:
    """One pass of a 17-frame clip."""
    shape = transformer.config
    with torch.no_grad():
        return transformer(
            hidden_states=draw_noise((1, 36, 5, side, side), "x"),
            timestep=torch.tensor([500.0]),
            encoder_hidden_states=draw_noise((1, 512, shape.text_dim), "text"),
            encoder_hidden_states_image=draw_noise((1, 17, shape.image_dim), "image"),
            return_dict=False,
        )[0]


def member(mode: str, film: Film, wide: Path, out: Path) -> None:
    """One of two processes: clips of the small base and passes of the wide one, timed; the first writes them."""
    vae, rank, whole = load_vae(SMALL), distributed.rank(), mode == MODES[0]
    took, generated = [], np.empty(0)
    for folder in (SMALL, wide):
        model = load_transformer(folder, Dtype.float32)
        with nullcontext() if whole else spread(model, Parallel(mode)):
            mine = film.windows[rank::2] if whole else film.windows
            forward(model)
            torch.distributed.barrier()
            started = time.perf_counter()
            if folder == SMALL:
                generated = film.generate(model, vae, Generation(), mine)
            else:
                steps = PLAIN.steps * (1 if whole else 2)  # a half of one clip, or all of it
                [forward(model, side=16) for _ in range(steps)]
            torch.distributed.barrier()
            took.append(time.perf_counter() - started)
    if rank == 0:
        np.savez(out / f"{mode}.npz", generated=generated, small=took[0] / CLIPS, wide=took[1])


def processes(film: Film, cache: Path, wide: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Print the table; mode -> its clips, times and gain."""
    model, plain = load_transformer(SMALL, Dtype.float32), load_transformer(wide, Dtype.float32)
    vae = load_vae(SMALL)
    alone = seconds(lambda: film.generate(model, vae, Generation(), film.windows)) / CLIPS
    alone_wide = seconds(lambda: [forward(plain, side=16) for _ in range(2 * PLAIN.steps)])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["-m", "benchmarks.accelerations", str(cache), str(wide), str(out)]
    subprocess.run([*command, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=280)
    row(1, "plain", f"{alone:.3f}", 1, f"{alone_wide:.2f}", 1)
    found = {mode: dict(np.load(out / f"{mode}.npz")) for mode in MODES}
    for mode, each in found.items():
        small, large = float(each["small"]), float(each["wide"])
        each["gain"] = alone / small
        row(2, mode, f"{small:.3f}", f"{alone / small:.2f}", f"{large:.2f}", f"{alone_wide / large:.2f}")
    return found


def fidelity(film: Film, tnv2: Path, others: dict[str, dict[str, Any]]) -> None:
    """Print each acceleration against the plain loop: PSNR, SSIM, and the paired change of kvd to the real clips."""
    net, clips, vae = open_net("tnv2", tnv2).net, film.real(), load_vae(SMALL)
    real = NETS["tnv2"].extract(net, clips[:, 1:])
    stock, plain, base = load_transformer(SMALL, Dtype.float32), np.empty(0), np.empty(0)
    counts = half_samples(CLIPS, DRAWS, np.random.default_rng(0))

    def replicates(features: np.ndarray) -> np.ndarray:
        scaled_real, scaled = standardise(real, features)
        return matched_mmd_replicates(kernel_grams(scaled, scaled_real), counts)

    def show(name: str, generated: np.ndarray, took: float, gain: float) -> None:
        features = NETS["tnv2"].extract(net, generated[:, 1:])
        kvd = [polynomial_mmd(x, y, matched=True) for y, x in (standardise(real, f) for f in (features, base))]
        spread_of = float(np.std(replicates(features) - replicates(base)))
        psnr, ssim = clip_scores.psnr(generated, plain, 0).mean(), clip_scores.ssim(generated, plain, 0).mean()
        near = ("exact", 1) if np.array_equal(generated, plain) else (f"{psnr:.1f}", f"{ssim:.4f}")
        change = f"{kvd[0] - kvd[1]:+.4f} ± {spread_of:.4f}"
        row(name, f"{took:.3f}", f"{gain:.2f}", *near, f"{kvd[0]:.3f}", change, "n/a")

    for name, settings in SETTINGS.items():
        model = load_transformer(SMALL, settings.dtype, short_text=settings.short)
        film.generate(model, vae, settings, film.windows[: settings.sample.batch_size])
        stock_seconds = seconds(partial(film.generate, stock, vae, Generation(), film.windows[:BATCH])) / BATCH
        with passes(model) as calls:
            started = time.perf_counter()
            generated = film.generate(model, vae, settings, film.windows)
            took = (time.perf_counter() - started) / CLIPS
        if not len(plain):
            plain, base = generated, NETS["tnv2"].extract(net, generated[:, 1:])
        cut = f", {1 - calls[1] / calls[0]:.0%} of the passes shortened" if calls[1] < calls[0] else ""
        show(name + cut, generated, took, stock_seconds / took)
    for mode in MODES[1:]:
        each = others[mode]
        show(f"2 processes, {mode}", each["generated"], float(each["small"]), float(each["gain"]))


@contextmanager
def passes(model: Any) -> Iterator[list[int]]:
    """How often the first and the second block have run."""
    calls = [0, 0]

    def count(place: int, *_: Any) -> None:
        calls[place] += 1

    hooks = [model.blocks[place].attn1.register_forward_hook(partial(count, place)) for place in (0, 1)]
    yield calls
    for hook in hooks:
        hook.remove()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    together = Film.of(Path(sys.argv[1]))
    for each in MODES:
        member(each, together, Path(sys.argv[2]), Path(sys.argv[3]))
    torch.distributed.destroy_process_group()
