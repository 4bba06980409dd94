"""From composed configs to a plan: everything that can be wrong is found here, before a GPU is touched.

In: the composed configs. Out: a Plan whose trials carry the content hashes of model, data and weights, and the window
plan of every data set written next to its encodings; or UserError with the field, its value and the nearest value that
works. Loads no torch once caches are warm, unless a caption may be too long or CLIP is to read it.
"""

from __future__ import annotations

import netrc
import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from cinelora.core.cli import UserError
from cinelora.core.config import (
    ClusterConfig,
    DataConfig,
    LongCaptions,
    LoraConfig,
    Method,
    ModelConfig,
    ScoreConfig,
    StudyConfig,
    TrackingConfig,
    TrainConfig,
    TrialConfig,
    Wandb,
    ZeroConfig,
)
from cinelora.core.files import check_writable, read_json, write_json
from cinelora.core.records import to_dict
from cinelora.data.dataset import read_clips
from cinelora.data.encodings import ENCODINGS, WINDOWS_FILE, encoder_fingerprint, encoding_folder
from cinelora.data.sample_sets import data_path
from cinelora.data.windows import WindowPlan, plan_windows
from cinelora.metrics.catalogue import FLOWS
from cinelora.metrics.feature_nets import (
    CLIP_NETS,
    LPIPS_SIDE,
    STLPIPS_SIDE,
    TOKENIZER_FILES,
    WEIGHTS,
    configured,
    pins_of,
    weight_fingerprints,
)
from cinelora.metrics.primary import LOSS, not_answerable
from cinelora.wan.checkpoint import BUILTIN, SHAPES, config_folder, fetching, model_fingerprint, model_folder
from cinelora.wan.options import check_attention, check_cache
from launch.adopting import adopted_trials, clip_trials
from sweeps.memory import SHARDED
from sweeps.plan import Plan, build_plan, trial_spec

FIRST_STAGE = "first stage"  # arm of the trials that others start from
SURELY_SHORT = 400  # bytes of a text that cannot have 512 tokens, however the tokenizer divides and normalises it
LISTED = 20  # long texts that a message names


@contextmanager
def planning_cache(cache_dir: Path) -> Iterator[Path]:
    """The cache or, where it cannot be written, one for the time of planning that links to what is there."""
    try:
        for name in ("shots", ENCODINGS):
            check_writable("cache_dir", cache_dir / name)
    except UserError:
        with TemporaryDirectory() as folder:
            for path in cache_dir.glob("*/*"):
                link = Path(folder) / path.relative_to(cache_dir)
                if link.parent.name != ENCODINGS:  # planning writes into these
                    link.parent.mkdir(exist_ok=True)
                    link.symlink_to(path.resolve())
            yield Path(folder)
        return
    yield cache_dir


def make_plan(configs: list[StudyConfig], fingerprints: Fingerprints) -> Plan:
    """The plan of these configs. Raises UserError at the first thing that cannot work."""
    check_clips(configs)
    for config in configs:
        check_tracking(config.tracking)
        check_answer(config)
        check_division(config, config.cluster)
        if config.stage1.enabled:
            stage = replace(config, method=Method.lora, lora=config.stage1.lora, train=config.stage1.train)
            check_division(stage, config.cluster)
    for name, method in (("adapters", Method.adapter), ("clips", Method.clips)):
        if (unread := {getattr(each, name) for each in configs} - {""}) and all(
            c.method is not method for c in configs
        ):
            raise UserError(f"{name}={min(unread)}: is read by method={method.value} alone; add method={method.value}")
    if all(config.method is Method.clips for config in configs):  # no model is needed, and none has to be here
        configs = [replace(config, model=ModelConfig(name="unknown", trained=True)) for config in configs]
    trials = [trial for config in configs for trial in stages(config, fingerprints)]
    bases = [trial.clips_folder for trial in trials if trial.clips_rank == 0]
    if bases and any(trial.method is not Method.clips and not trial.arm for trial in trials):
        raise UserError(
            f"clips: {bases[0]} has rank 0, the base, which the other trials bring; give it a label instead"
        )
    here = not any(config.cluster.address for config in configs)
    for trial in trials:
        check_denoiser(trial, fingerprints.denoiser(trial.model), here)
    frozen = configs[0].frozen_row and configs[0].sample.clips
    plan = build_plan([(trial, fingerprints.of(trial)) for trial in trials], frozen)
    return replace(plan, clips=tuple(fingerprints.clips))


def check_tracking(tracking: TrackingConfig) -> None:
    """Raises UserError where W&B would take no run for want of a key."""
    if tracking.wandb is not Wandb.online:
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        saved = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        saved = None
    if not (saved or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE")):
        raise UserError(
            f"tracking=online: no W&B key for {host} on this machine; run `wandb login`, export WANDB_API_KEY, "
            "or take tracking=offline and upload later with make wandb-sync"
        )


def check_clips(configs: list[StudyConfig]) -> None:
    """That a study without clips (`sample.clips`) has none at all, and a held-out loss. Raises UserError."""
    without = [config for config in configs if not config.sample.clips]
    if len(without) not in (0, len(configs)):
        raise UserError("sample.clips: has two values in one study; run a study with clips and another without")
    if modelless := [config.method.value for config in without if not config.method.has_model]:
        raise UserError(f"sample.clips=false: method={modelless[0]} has no held-out loss, so nothing would be measured")


def check_answer(config: StudyConfig) -> None:
    """That the study measures every score that shall decide. Raises UserError."""
    for score in config.answer.chosen:
        if score != LOSS and not config.sample.clips:
            raise UserError(f"answer.scores={score}: needs clips; set sample.clips=true, or take {LOSS}")
        if reason := not_answerable(score, configured(config.score), config.score.flow):
            raise UserError(f"answer.scores={score}: {reason}")


def stages(config: StudyConfig, fingerprints: Fingerprints) -> list[TrialConfig]:
    """The trial of a job of the sweep, last; before it the one whose adapter it starts from, if any; all its files.

    Raises UserError for a method that cannot have a first stage.
    """
    trial = trial_config(config)
    if trial.method is Method.adapter and not config.stage1.enabled:
        return fingerprints.adopted(trial, config.adapters)
    if trial.method is Method.clips and not config.stage1.enabled:
        return fingerprints.finished_clips(trial, config.clips)
    if not config.stage1.enabled:
        return [trial]
    if trial.method in (Method.full, Method.adapter, Method.clips):
        why = "trains no adapter to put on that of the first stage"
        raise UserError(f"method={trial.method.value}: {why}; add stage1.enabled=false")
    stage = config.stage1
    train = replace(stage.train, deterministic=stage.train.deterministic and trial.train.deterministic)
    first = replace(trial, method=Method.lora, arm=FIRST_STAGE, seed=stage.seed, lora=stage.lora, train=train)
    first = replace(first, data=_with_absolute_path(stage.data, config))
    return [first, replace(trial, first=trial_spec(first, fingerprints.of(first)).trial_id)]


def trial_config(config: StudyConfig) -> TrialConfig:
    """The trial's part of a study's config, with its rank's learning rate and with absolute paths."""
    trial = TrialConfig(**{item.name: getattr(config, item.name) for item in fields(TrialConfig)})
    own = config.learning_rate_by_targets.get(trial.lora.targets.value, {})
    rate = {**config.learning_rate_by_rank, **own}.get(trial.lora.rank)
    if trial.method is Method.lora and rate is not None:
        trial = replace(trial, train=replace(trial.train, learning_rate=rate))
    model = trial.model
    if not model.path.startswith(BUILTIN):
        model = replace(model, path=_absolute(model.path))
    score = trial.score if trial.sample.clips else ScoreConfig()  # no net is looked for, hashed or loaded
    paths: dict[str, Any] = {net: _absolute(path) for net, path in configured(score).items()}
    score = replace(score, **paths)
    return replace(trial, model=model, data=_with_absolute_path(trial.data, config), score=score)


def _with_absolute_path(data: DataConfig, config: StudyConfig) -> DataConfig:
    return replace(data, path=_absolute(data_path(data.path, Path(config.cache_dir))))


def _absolute(path: str) -> str:
    """A path that means the same to a worker started elsewhere; empty stays empty."""
    return str(Path(path).resolve()) if path else ""


class Fingerprints:
    """Content hashes of what a config points at, each computed once; `plan_only`: a known model need not be here."""

    def __init__(self, cache_dir: Path, plan_only: bool = False) -> None:
        self.cache_dir = cache_dir
        self.plan_only = plan_only
        self.remarks: list[str] = []  # to print under the plan
        self.clips: dict[str, str] = {}  # what became of every file of each data set -> the same, to print
        self._known: dict[str, Any] = {}

    def of(self, config: TrialConfig) -> dict[str, str]:
        """{"model", "data", and one per weight file}; writes the window plan next to the encodings.

        Cheap checks come first: clips, then weight files, then the model.
        """
        windows = self.windows_of(config.data)
        model = config.model
        found = {"data": windows.fingerprint, "encoder": encoder_fingerprint(model.text_dtype)}
        check_nets(config)
        check_cache(config)
        for net, path in configured(config.score).items():
            pins = pins_of(config.score, net)
            found |= self._once("weights", (net, path, pins), partial(weight_fingerprints, net, path, pins))
        self._once("clip texts", (config.data, config.score), lambda: self._remark_clip_texts(config, windows))
        found |= {"flow": config.score.flow} if config.score.flow else {}
        found["model"] = self._once("model", (model.path, model.hub, model.revision), lambda: self._model(config))
        texts = (config.data, model.path, model.hub, model.revision, config.sample.negative_prompt)
        if config.method.has_model:
            self._once("texts", texts, lambda: self._check_texts(config, windows))
        target = encoding_folder(self.cache_dir, found["data"], found["model"], model.text_dtype) / WINDOWS_FILE
        if not target.exists() or WindowPlan.from_json(read_json(target)) != windows:
            write_json(target, windows.to_json())
        name = f"Clips in {Path(config.data.path).name}"
        self.clips[f"{name}: {windows.account()}"] = f"{name}: {windows.account(target)}"
        return found

    def denoiser(self, model: ModelConfig) -> dict[str, Any]:
        """The config of its denoiser."""
        folder = self._once("folder", (model.path, model.hub, model.revision), lambda: self._folder(model))
        return dict(read_json(folder / "transformer" / "config.json"))

    def adopted(self, trial: TrialConfig, source: str) -> list[TrialConfig]:
        """The trials of the LoRA files that `adapters=source` names, each file read once."""

        def read() -> list[TrialConfig]:
            trials, remarks = adopted_trials(trial, source, self.denoiser(trial.model))
            self.remarks += remarks
            return trials

        trial = replace(trial, lora=LoraConfig(), seed=0)  # a grid of them changes nothing: the files say both
        found: list[TrialConfig] = self._once("adapters", (source, to_dict(trial)), read)
        return found

    def finished_clips(self, trial: TrialConfig, source: str) -> list[TrialConfig]:
        """The trials of the folders of clips that the table `clips=source` names, each clip read once."""

        def read() -> list[TrialConfig]:
            trials, remarks = clip_trials(trial, source, self.windows_of(trial.data).heldout)
            self.remarks += remarks
            return trials

        alone = replace(trial.model, sequence_workers=1)
        trial = replace(trial, lora=LoraConfig(), train=TrainConfig(), zero=ZeroConfig(), seed=0, model=alone)
        found: list[TrialConfig] = self._once("clips", (source, to_dict(trial)), read)
        return found

    def _once(self, kind: str, key: Any, compute: Callable[[], Any]) -> Any:
        name = f"{kind} {key!r}"
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def _folder(self, model: ModelConfig) -> Path:
        return (config_folder if self.plan_only else model_folder)(model, self.cache_dir)

    def _model(self, config: TrialConfig) -> str:
        model, folder = config.model, self._folder(config.model)
        if folder in SHAPES.values():
            fetch = fetching(model.hub, model.revision)
            self.remarks.append(f"model.hub={model.hub}: not here, planned by its published sizes; fetch: {fetch}")
        return model_fingerprint(folder, model.revision)

    def _check_texts(self, config: TrialConfig, windows: WindowPlan) -> None:
        """Raises UserError for texts that the model would cut, or remarks that it does where that is wanted."""
        data, negative = config.data, config.sample.negative_prompt
        texts = sorted({negative, *(window.caption for window in windows.all)})
        texts = [text for text in texts if len(unicodedata.normalize("NFKC", text).encode()) > SURELY_SHORT]
        folder = self._folder(config.model)
        if not texts or folder in SHAPES.values():
            self.remarks += ["captions: their tokens are counted once the model is here"] * bool(texts)
            return
        from cinelora.wan.tiny import quiet_transformers

        quiet_transformers()
        from cinelora.wan.encoding import TEXT_TOKENS, long_texts

        long = long_texts(folder, texts)
        if not long:
            return
        places = [(clip.source, clip.caption) for clip in read_clips(Path(data.path))]
        places.append(("sample.negative_prompt", negative))
        found = [f"{place} ({long[text]})" for place, text in places if text in long]
        listed = ", ".join(found[:LISTED]) + (f" and {len(found) - LISTED} more" if len(found) > LISTED else "")
        line = f"data.long_captions={data.long_captions.value}: more tokens than the {TEXT_TOKENS} that the model reads"
        if data.long_captions is LongCaptions.refuse:
            raise UserError(f"{line}: {listed}; shorten them, or set data.long_captions=cut")
        self.remarks.append(f"{line}, cut there: {listed}")

    def _remark_clip_texts(self, config: TrialConfig, windows: WindowPlan) -> None:
        """Captions whose end CLIP does not see."""
        captions = sorted({window.caption for window in windows.heldout})
        for net, path in configured(config.score).items():
            if net not in CLIP_NETS or not captions:
                continue
            from cinelora.features.nets.clip import LONGEST_TEXT, token_counts

            if many := sum(tokens > LONGEST_TEXT for tokens in token_counts(Path(path), captions)):
                self.remarks.append(
                    f"score.{net}: {many} of {len(captions)} held-out captions have more than the {LONGEST_TEXT} tokens"
                    f" that CLIP reads; clip_sim[{net}] compares with their beginning"
                )

    def windows_of(self, data: DataConfig) -> WindowPlan:
        found: WindowPlan = self._once("data", data, lambda: self._windows(data))
        return found

    def _windows(self, data: DataConfig) -> WindowPlan:
        if not data.path:
            raise UserError("data.path=: give the folder that holds your clips, or run `make fetch` for samples")
        return plan_windows(Path(data.path), data, self.cache_dir)


def check_division(trial: TrialConfig, cluster: ClusterConfig) -> None:
    """That the gang's workers divide into groups that share a clip, and the batch among these groups."""
    rank = trial.lora.rank if trial.method is Method.lora else 0
    workers, sharers = cluster.workers(rank), trial.model.sequence_workers
    field = "workers_by_rank" if rank in cluster.workers_by_rank else "workers_per_trial"
    if workers % sharers:
        raise UserError(
            f"model.sequence_workers={sharers}: must divide cluster.{field}={workers}; "
            f"nearest is {_nearest_divisor(sharers, workers)}, or cluster.{field}={-(-workers // sharers) * sharers}"
        )
    groups, batch = workers // sharers, trial.train.batch_size
    if batch % groups:
        split = f" / model.sequence_workers={sharers}" if sharers > 1 else ""
        raise UserError(
            f"train.batch_size={batch}: must be a multiple of cluster.{field}={workers}{split}; "
            f"nearest is {max(groups, batch // groups * groups)}"
        )


def check_denoiser(trial: TrialConfig, denoiser: Mapping[str, Any], here: bool) -> None:
    """That this denoiser can run as set; `here`: workers run on this machine."""
    model = trial.model
    check_attention(model, here)
    check_compiled(trial)
    check_sharing(trial, denoiser["num_attention_heads"])


def check_compiled(trial: TrialConfig) -> None:
    if trial.model.compile and trial.zero.stage == SHARDED:
        raise UserError(
            f"model.compile=true: not with zero.stage={SHARDED}, which gathers weights inside the blocks; "
            "take zero.stage=2 or model.compile=false"
        )


def check_sharing(trial: TrialConfig, heads: int) -> None:
    """That the workers that share a clip divide its tokens and the attention heads."""
    sharers, data = trial.model.sequence_workers, trial.data
    tokens = data.video_tokens
    if heads % sharers or tokens % sharers:
        fit = [count for count in range(2, heads + 1) if heads % count == tokens % count == 0]
        near = min(fit, key=lambda count: (abs(count - sharers), count), default=1)
        raise UserError(
            f"model.sequence_workers={sharers}: must divide the {heads} attention heads and the {tokens} tokens of "
            f"data.frames={data.frames} data.height={data.height} data.width={data.width}; nearest is {near}"
        )
    still = tokens // data.latent_frames
    if trial.train.stills and still % sharers:
        raise UserError(
            f"model.sequence_workers={sharers}: must divide the {still} tokens of a still; "
            f"nearest is {_nearest_divisor(sharers, still)}, or train.stills=0"
        )


def _nearest_divisor(wanted: int, whole: int) -> int:
    """The divisor of `whole` nearest to `wanted`; of two the smaller."""
    return min((d for d in range(1, whole + 1) if whole % d == 0), key=lambda d: (abs(d - wanted), d))


def check_nets(config: TrialConfig) -> None:
    """That every feature net can process the clips. Raises UserError."""
    if config.score.flow not in ("", *FLOWS):
        raise UserError(
            f"score.flow={config.score.flow}: no such optical flow; take {' or '.join(FLOWS)}, or leave it empty"
        )
    scored = config.data.frames - (0 if config.score.keep_first_frame else 1)
    for net, path in configured(config.score).items():
        least = WEIGHTS[net].least_frames
        if scored < least:
            raise UserError(
                f"score.{net}={path}: needs {least} scored frames, data.frames={config.data.frames} gives {scored}; "
                f"set score.{net}= to go without"
            )
        if net in CLIP_NETS and not any((Path(path) / name).is_file() for name in TOKENIZER_FILES):
            raise UserError(f"score.{net}={path}: no tokenizer there; add {' or '.join(TOKENIZER_FILES)} of the model")
    side = min(config.data.height, config.data.width)
    for net, least in (("lpips", LPIPS_SIDE), ("stlpips", STLPIPS_SIDE)):
        if net in (paths := configured(config.score)) and side < least:
            raise UserError(f"score.{net}={paths[net]}: needs {least} pixels a side, there are {side}")
