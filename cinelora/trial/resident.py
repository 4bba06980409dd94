"""What a worker keeps in memory between trials: the frozen base model and the feature nets.

In: a Job. Out: the loaded parts on this worker's device, and a key that says which trials may share them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cinelora import distributed
from cinelora.core.config import DataConfig
from cinelora.core.files import content_hash
from cinelora.core.records import resident_key, to_dict
from cinelora.data.windows import Window
from cinelora.features.motion import PairStats, pair_stats
from cinelora.features.nets import open_net
from cinelora.metrics.feature_nets import configured, pins_of
from cinelora.trial.job import Job
from cinelora.wan.acceleration import compile_blocks
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.encoding import reference_frames
from cinelora.wan.loading import load_transformer, load_vae

FRAME_BYTES = 2**28  # of decoded reference frames kept in memory
SPENT = ""  # key of a model whose own weights were trained, or that is absent: no trial may use it again


@dataclass
class ResidentModel:
    """Denoiser, VAE and feature nets, and the reference frames decoded so far. `key`: see `resident_key`.

    Loaded for a trial that needs no model, it has the feature nets alone, and no other trial may use it.
    """

    key: str
    folder: Path
    transformer: Any
    vae: Any
    nets: dict[str, Any]
    _frames: dict[str, np.ndarray] = field(default_factory=dict)
    _pairs: dict[tuple[str, str], PairStats] = field(default_factory=dict)

    def reference_frames(self, data: DataConfig, window: Window) -> np.ndarray:
        """The window's real frames, uint8 (F, H, W, 3); kept once decoded, up to FRAME_BYTES of all windows."""
        key = content_hash([to_dict(data), window.window_id])
        if key in self._frames:
            return self._frames[key]
        frames = reference_frames(Path(data.path), data, window)
        if sum(kept.nbytes for kept in self._frames.values()) + frames.nbytes <= FRAME_BYTES:
            self._frames[key] = frames
        return frames

    def reference_pairs(self, data: DataConfig, windows: list[Window], flow: str) -> PairStats:
        """Flow statistics of the windows' real frames, (N, F - 1) each; computed once per window."""
        keys = [(flow, content_hash([to_dict(data), window.window_id])) for window in windows]
        for key, window in zip(keys, windows, strict=True):
            if key not in self._pairs:
                self._pairs[key] = pair_stats(self.reference_frames(data, window)[None], flow)
        found = [astuple(self._pairs[key]) for key in keys]
        return PairStats(*(np.concatenate(rows) for rows in zip(*found, strict=True)))


def load_resident_model(
    job: Job, nets: bool = True, loaded: Callable[[int, int], None] = lambda done, total: None
) -> ResidentModel:
    """Load on this worker's device. `nets` are needed to score clips only; `loaded` is called after each part.

    Raises UserError where `model.attention` cannot run there.
    """
    config, device = job.spec.config, distributed.device_name()
    wanted = configured(config.score) if nets else {}
    if not config.method.has_model:
        opened = {name: open_net(name, path, pins_of(config.score, name), device).net for name, path in wanted.items()}
        return ResidentModel(SPENT, Path(), None, None, opened)
    model, folder = config.model, model_folder(config.model, job.cache_dir)
    place = "cpu" if config.zero.stage == 3 else device
    transformer = load_transformer(folder, model.dtype, place, model.short_text, model.attention)
    if model.compile:
        compile_blocks(transformer)
    loaded(1, len(wanted) + 2)
    opened = {}
    for done, (name, path) in enumerate(wanted.items(), start=2):
        opened[name] = open_net(name, path, pins_of(config.score, name), device).net
        loaded(done, len(wanted) + 2)
    return ResidentModel(resident_key(job.spec), folder, transformer, load_vae(folder, device), opened)
