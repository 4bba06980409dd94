"""Everything that can be wrong is found here, before a GPU is touched. Loads no torch once caches are warm.

In: the composed configs. Out: a Plan whose trials carry the content hashes of model, data and weights, and
the window plan of every data set written beside its encodings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from cinelora.config import DataConfig, Method, StudyConfig, TrialConfig
from cinelora.encodings import ENCODER_VERSION, WINDOWS_FILE, encoding_folder
from cinelora.errors import UserError
from cinelora.models import BUILTIN, model_fingerprint, model_folder
from cinelora.records import content_hash, file_sha256, to_dict, write_json
from cinelora.sets import data_path
from cinelora.weights import WEIGHTS
from cinelora.windows import WindowPlan, plan_windows
from sweeps.plan import Plan, build_plan


def trial_config(config: StudyConfig) -> TrialConfig:
    """The trial's part of a study's config, with its rank's learning rate and its clips where they lie."""
    trial = TrialConfig(**{item.name: getattr(config, item.name) for item in fields(TrialConfig)})
    own = config.learning_rate_by_targets.get(trial.lora.targets.value, {})
    rate = {**config.learning_rate_by_rank, **own}.get(trial.lora.rank)
    if trial.method is Method.lora and rate is not None:
        trial = replace(trial, train=replace(trial.train, learning_rate=rate))
    model = trial.model
    if not model.path.startswith(BUILTIN):
        model = replace(model, path=absolute(model.path))
    score = replace(trial.score, tnv2=absolute(trial.score.tnv2), mnv2=absolute(trial.score.mnv2))
    data = replace(trial.data, path=absolute(data_path(trial.data.path, Path(config.cache_dir))))
    return replace(trial, model=model, data=data, score=score)


def absolute(path: str) -> str:
    """A path that means the same to a worker started elsewhere; empty stays empty."""
    return str(Path(path).resolve()) if path else ""


def check_batch(config: StudyConfig) -> None:
    workers = config.cluster.workers_per_trial
    if config.train.batch_size % workers:
        near = max(workers, config.train.batch_size // workers * workers)
        raise UserError(
            f"train.batch_size={config.train.batch_size}: must be a multiple of cluster.workers_per_trial={workers}; "
            f"nearest is {near}"
        )


def weight_hash(name: str, path: str) -> str:
    """SHA-256 of a metric's weight file. Raises UserError if it is absent or not the pinned one."""
    if not Path(path).is_file():
        raise UserError(f"score.{name}={path}: no such file; run `make fetch`, or set score.{name}= to go without")
    found, expected = file_sha256(Path(path)), WEIGHTS[name].sha256
    if found != expected:
        raise UserError(
            f"score.{name}={path}: SHA-256 is {found[:16]}.., not {expected[:16]}..; delete it and run `make fetch`"
        )
    return found


class Fingerprints:
    """Content hashes of what a config points at, each looked up once."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self._known: dict[str, Any] = {}

    def _once(self, key: Any, compute: Callable[[], Any]) -> Any:
        name = content_hash(key)
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def of(self, config: TrialConfig) -> dict[str, str]:
        """{"model", "data", and one per weight file}; writes the window plan beside the encodings.

        Cheap checks come first: clips, then weight files, then the model.
        """
        windows: WindowPlan = self._once(["data", to_dict(config.data)], lambda: self._windows(config.data))
        marks = {"data": windows.fingerprint, "encoder": str(ENCODER_VERSION)}
        for name in WEIGHTS:
            path = getattr(config.score, name)
            if path:
                marks[name] = self._once(["weights", name, path], partial(weight_hash, name, path))
        marks["model"] = self._once(["model", config.model.path, config.model.revision], lambda: self._model(config))
        target = encoding_folder(self.cache_dir, marks["data"], marks["model"]) / WINDOWS_FILE
        if not target.exists():
            write_json(target, windows.to_json())
        return marks

    def _model(self, config: TrialConfig) -> str:
        return model_fingerprint(model_folder(config.model, self.cache_dir), config.model.revision)

    def _windows(self, data: DataConfig) -> WindowPlan:
        if not data.path:
            raise UserError("data.path=: give the folder that holds your clips, or run `make fetch` for samples")
        return plan_windows(Path(data.path), data, self.cache_dir)


def make_plan(configs: list[StudyConfig], marks: Fingerprints) -> Plan:
    """The plan of these configs. Raises UserError at the first thing that cannot work."""
    for config in configs:
        check_batch(config)
    return build_plan([(trial_config(config), marks.of(trial_config(config))) for config in configs])
