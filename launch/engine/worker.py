"""One process of a gang. It stays alive from trial to trial and keeps the frozen base in memory.

In: jobs. Out: files in study and cache, and small records. Torch is imported here, never in the driver.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cinelora.data.windows import Window
    from cinelora.trial.job import Job
    from cinelora.trial.resident import ResidentModel

PROGRESS_SECONDS = 0.5  # between writes of progress.json
TAKEOVER_SECONDS = 30.0  # for the worker of a dead driver to be gone too


class Worker:
    """Ray starts this as an actor (`launch/engine/pool.py`); it is an ordinary class for tests."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        import cinelora.trial.run  # noqa: F401  (pay for the imports while the driver still plans)
        from cinelora import distributed

        distributed.quiet_deepspeed()
        self.base: ResidentModel | None = None

    def address(self) -> tuple[str, int]:
        """This node's address and a free port for the gang's process group."""
        import ray

        from cinelora import distributed

        return str(ray.util.get_node_ip_address()), distributed.free_port()

    def join(self, rank: int, world_size: int, address: str, port: int) -> int:
        """Enter the gang's process group, leaving any other; returns this process's id."""
        from cinelora import distributed

        distributed.start(rank, world_size, address, port)
        return os.getpid()

    def encode(self, job: Job, windows: list[Window], prompts: list[str]) -> int:
        """Fill the encoding cache with these windows and prompts; returns how many windows."""
        import torch

        from cinelora import distributed
        from cinelora.wan import encoding
        from cinelora.wan.checkpoint import model_folder

        config, device = job.spec.config, distributed.device_name()
        model = model_folder(config.model, job.cache_dir)
        folders = model, job.encodings, job.shared_encodings
        encoding.encode_texts(*folders, prompts, device, config.model.text_dtype, config.data.long_captions)
        encoding.encode_windows(*folders, Path(config.data.path), config.data, windows, device)
        torch.cuda.empty_cache()  # the encoders are gone, and the denoiser needs their memory
        return len(windows)

    def reference(self, job: Job) -> None:
        """Write the reference clips, which are the held-out ones, and their features into the study."""
        from cinelora.trial.scoring import write_reference

        write_reference(job, self._base_for(job))

    def run(self, job: Job) -> float:
        """Run one trial; returns the memory that is then held, GiB. Raises what stopped it; the log has the trace."""
        from cinelora import distributed
        from cinelora.trial.run import run_trial

        folder = job.study.trial(job.spec.trial_id)
        writer = distributed.rank() == 0
        progress = ProgressFile(folder.progress, writer)
        try:
            with folder_lock(folder.root) if writer else nullcontext():
                progress("load", 0, 1, None)
                base = self._base_for(job, lambda done, total: progress("load", done, total, None))
                run_trial(job, base, progress)
                return memory_gib()
        except Exception:
            log = folder.log(distributed.rank())
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a", encoding="utf-8", errors="replace") as stream:
                stream.write(f"{time.strftime('%F %T')} pid {os.getpid()}\n{traceback.format_exc()}\n")
            raise

    def _base_for(self, job: Job, loaded: Callable[[int, int], None] = lambda done, total: None) -> ResidentModel:
        """The resident base, loaded anew only when this trial needs another."""
        from cinelora.core.records import resident_key
        from cinelora.trial.resident import load_resident_model

        if self.base is None or self.base.key != resident_key(job.spec):
            self.base = None
            self.base = load_resident_model(job, loaded=loaded)
        return self.base


def memory_gib() -> float:
    """What this process holds now, on its device and, under Linux, on the host."""
    import torch

    statm = Path("/proc/self/statm")
    resident = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
    device = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return float(resident + device) / 2**30


class TrialTaken(RuntimeError):
    """Another worker writes this trial: of a driver that has just died, or of a node that is out of reach."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Lock the trial's folder for one writer; the kernel frees the lock when a process dies. Raises TrialTaken.

    On a file system without locks it does nothing.
    """
    with open(folder / ".lock", "w") as stream:
        deadline = time.monotonic() + TAKEOVER_SECONDS
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    break
                if time.monotonic() > deadline:
                    raise TrialTaken(f"{folder}: another worker still writes here") from error
                time.sleep(0.1)
        yield


class ProgressFile:
    """Writes progress.json at most twice a second, and with each change of stage: stage, done, total, loss, number of
    calls (a sign of life). A stage without a total, such as `compiling`, interrupts another: `during` names that one,
    whose figures stay.
    """

    def __init__(self, path: Path, active: bool) -> None:
        self.path, self.active, self.last = path, active, 0.0
        self.calls, self.stage = 0, ""
        self.counted: dict[str, Any] = {"stage": "", "done": 0, "total": 0, "loss": None}  # of the last with a total

    def __call__(self, stage: str, done: int, total: int, loss: float | None) -> None:
        now = time.monotonic()
        self.calls += 1
        if total:
            self.counted = {"stage": stage, "done": done, "total": total, "loss": loss}
        changed, self.stage = stage != self.stage, stage
        if not self.active or (now - self.last < PROGRESS_SECONDS and done < total and not changed):
            return
        from cinelora.core.files import write_json

        self.last = now
        interrupts = {} if total else {"stage": stage, "during": self.counted["stage"]}
        write_json(self.path, self.counted | interrupts | {"calls": self.calls})
