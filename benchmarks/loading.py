"""How much memory does it take to load the base, beyond the base itself?

    OMP_NUM_THREADS=1 python -m benchmarks.loading --root /tmp/loading    (2 minutes, 8 GB of disk, 8 GB of memory)

In: nothing; a denoiser of the 14B model's width with 2 of its 40 blocks (1.05e9 parameters), random weights, written
once in float32, as the published checkpoint is stored, and once in bfloat16, in shards of 1 GB.
Out: Markdown lines, each of a fresh process: seconds, most memory while loading, what the model itself takes, and
memory once every weight was read. The folder is removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from cinelora.core.config import Dtype
from cinelora.wan.checkpoint import EXAMPLE, SHAPES
from cinelora.wan.loading import load_transformer

CONFIG = SHAPES[EXAMPLE] / "transformer" / "config.json"
BLOCKS = 2
SHARD = "1GB"
SPREAD = 0.02  # of the made-up weights
MODES = ("float32", "bfloat16")  # of the file


def write_models(root: Path) -> None:
    """`root`/<dtype>/transformer with the same weights in both."""
    shape = {**json.loads(CONFIG.read_text()), "num_layers": BLOCKS}
    torch.set_default_dtype(torch.bfloat16)
    model = WanTransformer3DModel.from_config(shape).requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0, SPREAD, generator=generator)
    for mode in reversed(MODES):
        model.to(getattr(torch, mode)).save_pretrained(root / mode / "transformer", max_shard_size=SHARD)


def memory() -> dict[str, float]:
    """GB of this process now: resident in all, anonymous, of mapped files; and the most it ever held."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"now": "VmRSS", "own": "RssAnon", "files": "RssFile", "most": "VmHWM"}
    return {name: int(lines[key].split()[0]) * 1024 / 1e9 for name, key in names.items()}


def measure(folder: Path) -> dict[str, float]:
    """Of one load in this process."""
    before = memory()
    started = time.perf_counter()
    model = load_transformer(folder, Dtype.bfloat16)
    seconds, loaded = time.perf_counter() - started, memory()
    for parameter in model.parameters():
        parameter.sum()
    return {
        "seconds": seconds,
        "model": sum(each.nbytes for each in model.parameters()) / 1e9,
        "most": loaded["most"] - before["now"],
        **{f"{name} after": memory()[name] - before[name] for name in ("own", "files")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="an empty folder for the made-up model")
    parser.add_argument("--measure", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.root / options.measure)))
        return
    command = [sys.executable, "-m", "benchmarks.loading", "--root", str(options.root)]
    try:
        write_models(options.root)
        print("| file | seconds | model GB | most GB | times the model | read: own GB | mapped GB |")
        print("|:--|--:|--:|--:|--:|--:|--:|")
        for mode in MODES:
            done = subprocess.run([*command, "--measure", mode], capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            ratio = found["most"] / found["model"]
            numbers = [found["seconds"], found["model"], found["most"], ratio, found["own after"], found["files after"]]
            print(f"| {mode} | {' | '.join(f'{number:.2f}' for number in numbers)} |")
    finally:
        shutil.rmtree(options.root, ignore_errors=True)


if __name__ == "__main__":
    main()
