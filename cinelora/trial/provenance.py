"""Where the numbers of a trial come from: code, machines, packages, settings as they were resolved.

In: a Job on its gang. Out: `provenance.json`, with one entry in `runs` each time the trial is started or resumed, and
uncommitted changes of the code as `code-HASH.diff` in the same folder. The code of a trial is the folder `cinelora`
(tests/test_layering.py checks that nothing else is imported); only its tracked files are read. A machine is recorded by
its hardware, never by its host name, which could be guessed even from a hash.
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
from cinelora.core.files import read_json, whole_file, write_json
from cinelora.core.paths import TrialFolder
from cinelora.training.engine import deepspeed_config
from cinelora.trial.job import Job

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parents[1].name
PACKAGES = ("torch", "diffusers", "peft", "deepspeed", "transformers", "ray", "numpy")
GIT_SECONDS = 5.0  # a repository on a slow disk must not delay the trial


def begin(job: Job, attention: dict[str, Any] | None) -> None:
    """Add this run to the trial's record, with the choice of its kernel; all workers call this together."""
    folder, (state, diff) = job.folder, code()
    if state["diff_sha256"] and not (path := folder.code_diff(state["diff_sha256"])).exists():
        with whole_file(path) as temporary:
            temporary.write_bytes(diff)
    workers = distributed.gather_objects({"code": state, "hardware": hardware(), "versions": versions()})
    if distributed.rank() == 0:
        config, before = job.spec.config, folder.provenance
        record = {
            "trial_id": job.spec.trial_id,
            "fingerprints": job.spec.fingerprints,
            "seeds": {"training": config.seed, "sampling": config.sample.seed, "split": config.data.split_seed},
            "runs": [*(read_json(before)["runs"] if before.exists() else []), _run(job, attention, workers)],
        }
        write_json(folder.provenance, record)


def finish(folder: TrialFolder) -> None:
    """Record that the newest run reached its result. Worker 0 calls this."""
    record = read_json(folder.provenance)
    record["runs"][-1]["finished"] = _now()
    write_json(folder.provenance, record)


def _run(job: Job, attention: dict[str, Any] | None, workers: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of one run. `workers`: the record of each; equal ones are listed once, with their count."""
    config, size = job.spec.config, len(workers)
    trains = config.method.trains or (config.method.has_model and config.zero.stage == 3)
    groups = size // config.model.sequence_workers
    settings = deepspeed_config(config.train, config.zero, config.model.dtype, groups) if trains else None
    kinds = [worker for index, worker in enumerate(workers) if worker not in workers[:index]]
    return {
        "started": _now(),
        "finished": None,  # stays None where the run was interrupted
        "causes": list(job.causes),
        "world_size": size,
        "micro_batch": settings["train_micro_batch_size_per_gpu"] if settings else None,
        "deepspeed": settings,
        "attention": attention,  # None where no kernel was tried, as on a CPU
        "workers": [{"count": workers.count(kind), **kind} for kind in kinds],
    }


@cache
def code() -> tuple[dict[str, str | None], bytes]:
    """(package version, commit, git's tree hash of the folder, SHA-256 of the changes since), and these changes.

    None where there is no clone, no git or no change. Looked up once per process, whose imported code does not change.
    """
    try:
        own: str | None = version(FOLDER)
    except PackageNotFoundError:  # a clone that was not installed
        own = None
    state: dict[str, str | None] = {"version": own, "commit": None, "tree": None, "diff_sha256": None}
    names = _git("rev-parse", "HEAD", f"HEAD:{FOLDER}").decode().split() if (ROOT / ".git").exists() else []
    if len(names) != 2:
        return state, b""
    diff = _git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--full-index", "HEAD", "--", FOLDER)
    digest = hashlib.sha256(diff).hexdigest() if diff else None
    return state | {"commit": names[0], "tree": names[1], "diff_sha256": digest}, diff


def _git(*arguments: str) -> bytes:
    """Output of a git command in the clone, b"" where git is absent, fails or is too slow. It takes no lock."""
    command = ["git", "-C", str(ROOT), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, env=environment, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return b""


@cache
def hardware() -> dict[str, Any]:
    """CPU model, logical cores and memory (GiB) of this machine; the GPUs this process sees, their driver and NCCL."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    models = [line for line in _text("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    cpu = models[0].partition(":")[2].strip() if models else platform.machine()
    found: dict[str, Any] = {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory, 1)}
    if torch.cuda.is_available():
        found |= {
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "driver": _text("/sys/module/nvidia/version") or None,
            "cuda": torch.version.cuda,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        }
    return found


def _text(path: str) -> str:
    """Content of a file of the kernel, "" where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
