"""What generation costs, and what each acceleration changes in the clips.

    OMP_NUM_THREADS=1 python -m benchmarks.generation --cache .cache        (4 minutes on 2 cores; after `make fetch`)

In: the shipped small base, a wider random one, held-out clips of the built-in film set, TransNetV2's weights. Out: four
Markdown tables: switching adapters against reloading, batches against the stock pipeline called per clip, two processes
on one clip, and the fidelity of every acceleration against the plain loop. Sides of a ratio alternate in one process.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import WanImageToVideoPipeline
from PIL import Image

from benchmarks.accelerations import BATCH, PLAIN, SMALL, Film, Generation, fidelity, forward, processes, row, seconds
from cinelora.core.config import Dtype, LoraConfig, ModelConfig, Scaling
from cinelora.core.seeds import draw_noise
from cinelora.wan import lora
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import condition_latents, decode_video, encode_image, encode_text, pixels
from cinelora.wan.loading import load_scheduler, load_transformer, load_vae
from cinelora.wan.lora import AdapterSwitch
from cinelora.wan.sampler import starting_noise

WIDE = {"num_attention_heads": 4, "attention_head_dim": 64, "ffn_dim": 1024, "added_kv_proj_dim": 256, "num_layers": 8}
RANKS, ROUNDS = (4, 8, 16, 32), 4


def heading(title: str, *columns: str) -> None:
    print(f"\n{title} (load {os.getloadavg()[0]:.1f})\n", flush=True)
    row(*columns)
    row(":--", *["--:"] * (len(columns) - 1))


def wide_base(root: Path) -> Path:
    """The small base's pipeline around a wider denoiser of random weights."""
    pipeline = WanImageToVideoPipeline.from_pretrained(SMALL, local_files_only=True)
    torch.manual_seed(0)
    config = {**pipeline.transformer.config, **WIDE}
    pipeline.transformer = type(pipeline.transformer).from_config(config)
    pipeline.to(torch.float16).save_pretrained(root)
    return root


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def switching(folder: Path, name: str, root: Path) -> None:
    """Reload pipeline and adapter, or switch; the same output either way."""
    base, files = load_transformer(folder, Dtype.float32), []
    for rank in RANKS:
        settings = LoraConfig(rank=rank, scaling=Scaling.constant, alpha=2.0 * rank)
        parameters = lora.attach(base, settings, seed=rank)
        state = {n: p.data if ".lora_A" in n else 0.1 * draw_noise(tuple(p.shape), n, rank) for n, p in parameters}
        lora.save_adapter(root / name / str(rank), state, settings)
        lora.detach(base)
        files.append(root / name / str(rank) / "pytorch_lora_weights.safetensors")
    plain, slow, fast, equal = digest(forward(base)), [], [], 0
    started = time.perf_counter()
    resident = AdapterSwitch(base, files)
    loading = time.perf_counter() - started
    for file in files * ROUNDS:
        started = time.perf_counter()
        pipeline = WanImageToVideoPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
        slow.append(time.perf_counter() - started)
        fast.append(seconds(lambda file=file: resident.use([file])))
        equal += digest(forward(pipeline.transformer)) == digest(forward(base))
    resident.use([])
    again = "yes" if digest(forward(base)) == plain else "NO"
    ratio = f"**{median(slow) / median(fast):.0f}**"
    row(name, f"{1e3 * median(slow):.0f}", f"{1e3 * median(fast):.2f}", ratio, f"{equal} of {len(slow)}", again)
    print(f"<!-- {len(files)} adapters loaded once in {1e3 * loading:.0f} ms -->")


def against_stock(film: Film, name: str, sizes: Sequence[int]) -> None:
    """Seconds per clip, decoding included, of the stock pipeline and of ours in batches of these sizes."""
    folder = film.folder
    pipeline: Any = WanImageToVideoPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = load_scheduler(folder, PLAIN.scheduler, PLAIN.shift)
    windows, real = film.windows[:BATCH], film.real()[:BATCH]
    noise = starting_noise(film.encodings, windows, 0)

    def stock(index: int) -> np.ndarray:
        frames = pipeline(
            image=Image.fromarray(real[index, 0]), prompt=windows[index].caption, negative_prompt="", height=64,
            width=64, num_frames=17, num_inference_steps=PLAIN.steps, guidance_scale=PLAIN.guidance,
            latents=noise[index : index + 1], output_type="np",
        ).frames[0]  # fmt: skip
        return np.rint(frames * 255)

    def encoded(index: int) -> None:
        condition_latents(vae, pixels(real[index : index + 1, :1])[:, :, 0], film.data.frames)
        encode_image(pipeline.image_processor, pipeline.image_encoder, real[index, 0])
        for text in (windows[index].caption, ""):
            encode_text(pipeline.tokenizer, pipeline.text_encoder, text)

    model, vae = load_transformer(folder, Dtype.float32, short_text=True), load_vae(folder)
    taken: dict[int, list[float]] = {size: [] for size in (0, *sizes)}
    encoding = []
    for _ in range(ROUNDS):
        reference = []
        taken[0].append(seconds(lambda reference=reference: reference.extend(map(stock, range(BATCH)))) / BATCH)
        encoding.append(seconds(lambda: [encoded(index) for index in range(BATCH)]) / BATCH)
        for size in sizes:
            started = time.perf_counter()
            generated = film.generate(model, vae, Generation(replace(PLAIN, batch_size=size)), windows)
            took = time.perf_counter() - started
            taken[size].append(took / BATCH)
    apart = np.abs(generated.astype(float) - np.stack(reference))
    stock_time, once = median(taken[0]), median(encoding)
    row(f"{name}: stock pipeline, called per clip", f"{stock_time:.3f}", 1, 1)
    for size in sizes:
        ours = median(taken[size])
        row(f"{name}: ours, batch {size}", f"{ours:.3f}", *(f"**{stock_time / t:.1f}**" for t in (ours, ours + once)))
    decoding = seconds(lambda: decode_video(vae, film.encodings.latents(windows))) / BATCH
    row(f"{name}: of that decoding; encoding, once per clip", f"{decoding:.3f}; {once:.3f}", "", "")
    equal, most = (apart < 1).mean(), apart.max()
    print(f"<!-- batch {BATCH} against stock: {equal:.2%} of the values equal, at most {most:.0f} levels off -->")


def main() -> None:
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description="Tables of what generation costs and what its accelerations change.")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    film = Film.of(options.cache)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wide = wide_base(root / "wide")
        heading("Switching", "base", "reload, ms", "switch, ms", "ratio", "equal outputs", "base restored")
        for name, base in (("small, 4 blocks of 128", SMALL), ("random, 8 blocks of 256", wide)):
            switching(base, name, root)
        heading("Batches", "", "s per clip", "faster", "faster, encoding counted")
        against_stock(film, "small", (1, 2, 4, BATCH))
        tiny = model_folder(ModelConfig(), options.cache)
        against_stock(Film.of(options.cache, tiny, BATCH), "tiny", (BATCH,))
        heading("Processes", "processes", "mode", "small, s per clip", "speed-up", "wide, s per clip", "speed-up")
        others = processes(film, options.cache, wide, root)
        columns = ("s per clip", "speed-up", "PSNR, dB", "SSIM", "kvd[tnv2]", "kvd - plain's", "LPIPS")
        heading("Fidelity", "", *columns)
        fidelity(film, options.cache / "weights" / "tnv2.safetensors", others)


if __name__ == "__main__":
    main()
