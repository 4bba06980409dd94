"""Where the numbers of a trial come from: code, machines, packages, settings as they were resolved.

In: a Job on its gang. Out: `provenance.json`, one entry in `runs` each time the trial was taken up, and changed code as
`code-HASH.diff` beside it. The code of a trial is the folder `cinelora` (tests/test_layering.py holds it to that), of
which tracked files alone are looked at. A machine is told by its kind: names of hosts are left out, since even hashed
they can be guessed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cinelora import distributed
from cinelora.core.config import Method
from cinelora.core.files import read_json, whole_file, write_json
from cinelora.core.paths import TrialFolder
from cinelora.training.engine import deepspeed_config
from cinelora.trial.job import Job

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parents[1].name
PACKAGES = ("torch", "diffusers", "peft", "deepspeed", "transformers", "ray", "numpy")
GIT_SECONDS = 5.0  # a repository on a slow disk is not worth a trial's time


def begin(job: Job) -> None:
    """Add this run to the trial's record. Every worker calls this; worker 0 writes it, and each its changed code."""
    folder, (_, diff) = job.study.trial(job.spec.trial_id), code()
    if diff and not (path := folder.code_diff(_sha256(diff))).exists():
        with whole_file(path) as temporary:
            temporary.write_bytes(diff)
    run = _run(job, distributed.gather_objects({"code": code()[0], "hardware": hardware(), "versions": versions()}))
    if distributed.rank() == 0:
        config, before = job.spec.config, folder.provenance
        record = {
            "trial_id": job.spec.trial_id,
            "fingerprints": job.spec.fingerprints,
            "seeds": {"training": config.seed, "sampling": config.sample.seed, "split": config.data.split_seed},
            "runs": [*(read_json(before)["runs"] if before.exists() else []), run],
        }
        write_json(folder.provenance, record)


def finish(folder: TrialFolder) -> None:
    """The run that was begun last has its result. Worker 0 calls this."""
    record = read_json(folder.provenance)
    record["runs"][-1]["finished"] = _now()
    write_json(folder.provenance, record)


def _run(job: Job, workers: list[dict[str, Any]]) -> dict[str, Any]:
    """`workers`: what each says of itself; those that agree are told once, with their number."""
    config, size = job.spec.config, len(workers)
    trains = config.method is not Method.base or config.zero.stage == 3
    groups = size // config.model.sequence_workers
    settings = deepspeed_config(config.train, config.zero, config.model.dtype, groups) if trains else None
    kinds = [worker for index, worker in enumerate(workers) if worker not in workers[:index]]
    return {
        "started": _now(),
        "finished": None,  # still so: the run was cut short
        "causes": list(job.causes),  # of the restarts of this sweep so far
        "world_size": size,
        "micro_batch": settings["train_micro_batch_size_per_gpu"] if settings else None,
        "deepspeed": settings,
        "workers": [{"count": workers.count(kind), **kind} for kind in kinds],
    }


@cache
def code() -> tuple[dict[str, str | None], bytes]:
    """(package version, commit, git's hash of the folder at it, SHA-256 of the changes since), the changes.

    None where there is no clone, no git or no change. Asked once a process: what it imported does not change.
    """
    found: dict[str, str | None] = {"version": _own_version(), "commit": None, "tree": None, "diff_sha256": None}
    names = _git("rev-parse", "HEAD", f"HEAD:{FOLDER}").decode().split() if (ROOT / ".git").exists() else []
    if len(names) != 2:
        return found, b""
    diff = _git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index", "HEAD", "--", FOLDER)
    return found | {"commit": names[0], "tree": names[1], "diff_sha256": _sha256(diff) if diff else None}, diff


@cache
def hardware() -> dict[str, Any]:
    """Of this process: CPU, logical cores and memory (GiB) of its machine; the GPUs it sees and what drives them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found: dict[str, Any] = {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": round(memory, 1)}
    if torch.cuda.is_available():
        found |= {
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "driver": _first_line(Path("/sys/module/nvidia/version")),
            "cuda": torch.version.cuda,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    return found


@cache
def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _own_version() -> str | None:
    try:
        return version(FOLDER)
    except PackageNotFoundError:  # a clone that was not installed
        return None


def _git(*arguments: str) -> bytes:
    """What git says of the clone; nothing where it cannot or will not. It takes no lock."""
    command = ["git", "-C", str(ROOT), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, env=environment, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return b""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
