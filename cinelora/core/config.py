"""Every setting of a trial and of a study, each defined once. Standard library only.

In: nothing. Out: plain dataclasses that Hydra fills (`launch/sweep.py`) and every stage reads.
A field marked `EXECUTION` sets where or how a trial runs, never what it computes: it is left out
of the trial's identity (`sweeps/plan.py`). A path is execution; the content behind it is hashed.
A field marked `WHEN_SET` is part of the identity only where it differs from its default: it was added
later, and the ids of older trials stay valid.
A "step" is an optimiser step; sizes are pixels; durations are seconds unless the name says otherwise.
Range checks live in `__post_init__` and raise `ValueError` naming the field, the value, the remedy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

UNKNOWN_SEED = -1  # of an adapter whose file and list name none
EXECUTION = {"identity": False}
WHEN_SET = {"identity": "when set"}
SPATIAL_MULTIPLE = 16  # pixels a side of one video token: the VAE downsamples 8x, the transformer patches 2x2
TEMPORAL_FACTOR = 4  # the VAE folds 4 frames into one latent frame after the first
HELDOUT_BATCH = 8  # windows at a time in the held-out loss, at most
HELDOUT_TOKENS = 65_536  # video tokens at a time there, at most: enough to fill a GPU, and memory stays small


class Method(Enum):
    base = "base"  # the frozen model without adapter: the row "rank 0"
    lora = "lora"
    full = "full"  # every weight of the denoiser trains: the floor that no adapter is expected to pass
    adapter = "adapter"  # an adapter that is there already, from a file of `adapters`: nothing is trained
    frozen = "frozen"  # no model: each held-out clip's first frame, repeated
    clips = "clips"  # no model: finished clips of any origin, from a folder of the table `clips`

    @property
    def trains(self) -> bool:
        return self in (Method.lora, Method.full)

    @property
    def adapts(self) -> bool:
        """Whether there is an adapter, with a rank, an alpha and targets."""
        return self in (Method.lora, Method.adapter)

    @property
    def has_model(self) -> bool:
        return self not in (Method.frozen, Method.clips)

    @property
    def title(self) -> str:
        """Of a trial without adapter, in tables and messages."""
        return "frozen first frame" if self is Method.frozen else self.value


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Scaling(Enum):
    alpha_equals_rank = "alpha_equals_rank"  # update scale 1 at every rank
    constant = "constant"  # update scale alpha / r
    rslora = "rslora"  # update scale alpha / sqrt(r)  (Kalajdzievski 2023, arXiv 2312.03732)


class LayerKind(Enum):
    """Kinds of linear layers of the denoiser."""

    self = "self"  # self-attention: query, key, value, output
    cross = "cross"  # cross-attention to the text: query, key, value, output
    image = "image"  # cross-attention to the first frame: key, value
    ffn = "ffn"  # feed-forward: up, down
    outer = "outer"  # outside the blocks: the embedders, the output projection


class TargetSet(Enum):
    """Which layers of the denoiser carry an adapter. A new set is one line here: its name, then its kinds of layers."""

    layers: frozenset[LayerKind]

    cross = "cross", LayerKind.cross, LayerKind.image  # cross-attention with its image branch
    cross_text = "cross_text", LayerKind.cross
    cross_image = "cross_image", LayerKind.image
    self = "self", LayerKind.self
    attn = "attn", LayerKind.self, LayerKind.cross, LayerKind.image
    attn_text = "attn_text", LayerKind.self, LayerKind.cross
    ffn = "ffn", LayerKind.ffn
    block = "block", LayerKind.self, LayerKind.cross, LayerKind.image, LayerKind.ffn  # all of the transformer blocks
    block_text = "block_text", LayerKind.self, LayerKind.cross, LayerKind.ffn
    linear = "linear", *LayerKind  # every linear layer of the model

    def __new__(cls, name: str, *layers: LayerKind) -> TargetSet:
        one = object.__new__(cls)
        one._value_, one.layers = name, frozenset(layers)
        return one


class Checkpointing(Enum):
    """What of a block is computed again in its backward pass, to save memory."""

    auto = "auto"  # the fastest of the others that fits `cluster.device`; `all` where that is not known
    none = "none"  # nothing
    attention = "attention"  # all but what self-attention returned
    all = "all"  # all


class Offload(Enum):
    """What lies in host memory while no GPU computes with it."""

    none = "none"
    optimizer = "optimizer"  # float32 adapter and its moments
    weights = "weights"  # those, and the shards of the base; stage 3


class StepCache(Enum):
    """Which passes of the sampler are left out where their result hardly changes (diffusers' hooks)."""

    none = "none"
    first_block = "first_block"  # the rest of the blocks is skipped while the first changes by less than the threshold


class Resize(Enum):
    crop = "crop"  # shorter side to size, centre crop
    squash = "squash"  # both sides to size, aspect ratio changes


class LongCaptions(Enum):
    """What becomes of a caption with more tokens than the model reads."""

    refuse = "refuse"
    cut = "cut"  # its beginning is read


class TimestepDistribution(Enum):
    logit_normal = "logit_normal"
    uniform = "uniform"


class Schedule(Enum):
    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Scheduler(Enum):
    unipc = "unipc"
    euler = "euler"


def require(ok: bool, field_name: str, value: object, remedy: str) -> None:
    if not ok:
        raise ValueError(f"{field_name}={value}: {remedy}")


def positive(owner: object, group: str, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        require(math.isfinite(value) and value > 0, f"{group}.{name}", value, "must be greater than 0 and finite")


def not_negative(owner: object, group: str, *names: str, remedy: str = "must be 0 or more") -> None:
    for name in names:
        require(getattr(owner, name) >= 0, f"{group}.{name}", getattr(owner, name), remedy)


def seed_text(seed: int) -> str:
    return "unknown" if seed == UNKNOWN_SEED else str(seed)


def nearest(value: int, unit: int) -> int:
    """The positive multiple of `unit` nearest to `value`."""
    return unit * max(1, round(value / unit))


@dataclass
class ModelConfig:
    """The frozen base. `path` is a folder in diffusers layout, `builtin:tiny`, or empty: `hub` from the hub's cache."""

    name: str = field(default="tiny", metadata=EXECUTION)
    path: str = field(default="builtin:tiny", metadata=EXECUTION)
    hub: str = field(default="", metadata=EXECUTION)  # OWNER/NAME it is published under; what a message says to fetch
    revision: str = ""  # pinned revision of a published checkpoint
    dtype: Dtype = Dtype.float32  # training and sampling precision of the transformer
    # Of the text encoder; None: as it is stored. Counts as part of the fingerprint "encoder"
    # (cinelora/data/encodings.py).
    text_dtype: Dtype | None = field(default=None, metadata=EXECUTION)
    short_text: bool = False  # count the text's equal padding instead of computing it; same to rounding
    attention: str = field(default="", metadata=WHEN_SET)  # backend of diffusers, e.g. flash; empty: torch's choice
    compile: bool = field(default=False, metadata=WHEN_SET)  # the blocks, with torch.compile
    sequence_workers: int = field(default=1, metadata=EXECUTION)  # of a gang, which share each clip's tokens (Ulysses)
    trained: bool = field(default=False, metadata=EXECUTION)  # False: banner "untrained base: plumbing only"

    def __post_init__(self) -> None:
        positive(self, "model", "sequence_workers")


@dataclass
class DataConfig:
    """Clips and how they are cut. `frames` at `fps` per window, `height` x `width` pixels."""

    path: str = field(default="", metadata=EXECUTION)
    fps: float = 16.0
    frames: int = 17  # 4n+1
    height: int = 64
    width: int = 64
    resize: Resize = Resize.crop
    # Not in the identity: captions that fit are not changed, and older versions cut all others.
    long_captions: LongCaptions = field(default=LongCaptions.refuse, metadata=EXECUTION)
    stride: int = 17  # frames between the starts of neighbouring windows of a shot
    heldout_shots: int = 2  # source shots kept out of training
    split_seed: int = 0  # which shots those are
    # Of a search for learning rates: another split inside the study's training clips; its held-out clips are left out.
    selection: bool = field(default=False, metadata=WHEN_SET)
    max_train_windows: int = 0  # 0: all
    max_heldout_windows: int = 0  # 0: all

    def __post_init__(self) -> None:
        positive(self, "data", "fps", "frames", "height", "width", "stride", "heldout_shots")
        near = nearest(self.frames - 1, TEMPORAL_FACTOR) + 1
        require(self.frames == near, "data.frames", self.frames, f"must be 4n+1; nearest is {near}")
        for name in ("height", "width"):
            value, near = getattr(self, name), nearest(getattr(self, name), SPATIAL_MULTIPLE)
            require(value == near, f"data.{name}", value, f"must be a multiple of 16; nearest is {near}")
        not_negative(self, "data", "max_train_windows", "max_heldout_windows", remedy="must be 0 (all) or more")

    @property
    def latent_frames(self) -> int:
        """Latent frames of one window."""
        return (self.frames - 1) // TEMPORAL_FACTOR + 1

    @property
    def video_tokens(self) -> int:
        """Tokens of one window in the denoiser, L."""
        return self.latent_frames * (self.height // SPATIAL_MULTIPLE) * (self.width // SPATIAL_MULTIPLE)

    @property
    def heldout_batch(self) -> int:
        """Windows at a time in the held-out loss. Depends on their size alone, so the loss does not on the gang."""
        return max(1, min(HELDOUT_BATCH, HELDOUT_TOKENS // self.video_tokens))


@dataclass
class LoraConfig:
    """The adapter. `alpha` is read by `constant` and `rslora` only."""

    rank: int = 8
    scaling: Scaling = Scaling.alpha_equals_rank
    alpha: float = 16.0
    targets: TargetSet = TargetSet.cross

    def __post_init__(self) -> None:
        require(self.rank > 0, "lora.rank", self.rank, "must be 1 or more; the base (rank 0) is always added by itself")
        positive(self, "lora", "alpha")

    @property
    def effective_alpha(self) -> float:
        """The alpha PEFT is given."""
        return float(self.rank) if self.scaling is Scaling.alpha_equals_rank else self.alpha

    @property
    def scale(self) -> float:
        """What multiplies B A: alpha / r, or alpha / sqrt(r) for rsLoRA."""
        divisor = self.rank**0.5 if self.scaling is Scaling.rslora else self.rank
        return self.effective_alpha / divisor


@dataclass
class TrainConfig:
    """Flow-matching training with AdamW. `batch_size` counts windows per optimiser step, all workers together."""

    steps: int = 100
    batch_size: int = 8
    micro_batch: int = field(default=8, metadata=EXECUTION)  # windows per worker in memory at once, at most
    learning_rate: float = 1e-4
    schedule: Schedule = Schedule.constant
    warmup_steps: int = 0
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    clip_norm: float = 1.0  # of the whole step's gradient
    timestep: TimestepDistribution = TimestepDistribution.logit_normal
    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float = 3.0  # s(u) = shift u / (1 + (shift - 1) u)
    heldout_every: int = 20  # steps between held-out losses; also at the first and the last step
    heldout_windows: int = 16  # of the held-out windows in that curve, at most; the final loss counts all
    checkpoint_every: int = field(default=20, metadata=EXECUTION)
    checkpointing: Checkpointing = field(default=Checkpointing.none, metadata=EXECUTION)
    gradient_checkpointing: bool = field(default=False, metadata=EXECUTION)  # true: the older name of `all`
    checkpointed_blocks: int = field(default=0, metadata=EXECUTION)  # the first so many; 0: all of them
    caption_dropout: float = field(default=0.0, metadata=WHEN_SET)  # share of samples that see the empty caption
    # On a GPU: kernels that give the same bytes again; false: the fastest.
    deterministic: bool = field(default=True, metadata=WHEN_SET)
    stills: float = field(default=0.0, metadata=WHEN_SET)  # share of steps on single frames, which see no first frame

    def __post_init__(self) -> None:
        positive(self, "train", "steps", "batch_size", "micro_batch", "learning_rate", "clip_norm", "shift")
        positive(self, "train", "logit_std", "heldout_every", "heldout_windows", "checkpoint_every", "eps")
        warmup = self.warmup_steps
        require(0 <= warmup <= self.steps, "train.warmup_steps", warmup, "must lie in 0..train.steps")
        if self.gradient_checkpointing:
            self.checkpointing, self.gradient_checkpointing = Checkpointing.all, False
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        require(good, "train.betas", self.betas, "give two numbers in 0..1, e.g. [0.9,0.999]")
        require(0 <= self.weight_decay < 1, "train.weight_decay", self.weight_decay, "must lie in 0..1")
        not_negative(self, "train", "checkpointed_blocks", remedy="0 is all of them")
        for name in ("caption_dropout", "stills"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name}", value, "is a share: 0 (off) or more, below 1")

    def windows_at_once(self, groups: int) -> int:
        """Of one worker: the largest divisor of its data group's share of the batch that `micro_batch` allows."""
        share = max(1, self.batch_size // groups)
        return max(m for m in range(1, min(share, self.micro_batch) + 1) if share % m == 0)


@dataclass
class ZeroConfig:
    """DeepSpeed ZeRO. The stages agree to the bit in float32 and not in bfloat16, so it counts."""

    stage: int = 0
    persistence_threshold: int = field(default=100_000, metadata=EXECUTION)  # stage 3 keeps smaller tensors whole
    offload: Offload = field(default=Offload.none, metadata=EXECUTION)

    def __post_init__(self) -> None:
        require(self.stage in (0, 1, 2, 3), "zero.stage", self.stage, "must be 0, 1, 2 or 3")
        least = {Offload.none: 0, Offload.optimizer: 1, Offload.weights: 3}[self.offload]
        require(self.stage >= least, "zero.offload", self.offload.value, f"needs zero.stage={least} or more")


@dataclass
class SampleConfig:
    """Generation of the held-out clips. The same `seed` gives every rank the same starting noise."""

    # False: a trial ends after its held-out loss; no clip is generated, none scored, and `score` is not read.
    clips: bool = field(default=True, metadata=WHEN_SET)
    steps: int = 8
    guidance: float = 1.0  # classifier-free guidance; 1 means one pass without it
    scheduler: Scheduler = Scheduler.unipc
    shift: float = 3.0
    seed: int = 0
    batch_size: int = 4  # part of the result: batching moves latents by about 3e-6
    negative_prompt: str = ""
    batched_guidance: bool = field(default=False, metadata=WHEN_SET)  # both passes of the guidance as one batch
    cache: StepCache = field(default=StepCache.none, metadata=WHEN_SET)
    cache_threshold: float = field(default=0.05, metadata=WHEN_SET)  # relative change; higher is faster and less exact

    def __post_init__(self) -> None:
        positive(self, "sample", "steps", "shift", "batch_size", "cache_threshold")
        require(self.guidance >= 1, "sample.guidance", self.guidance, "must be 1 (off) or more")


@dataclass
class ScoreConfig:
    """Which scores, on which frames. Weight paths are execution; their SHA-256 is in the protocol."""

    keep_first_frame: bool = False  # frame 0 is given to the model, so scoring it favours every trial
    flow: str = field(default="", metadata=EXECUTION)  # dis or farneback: the scores of optical flow too, 2 s a trial
    tnv2: str = field(default="", metadata=EXECUTION)  # weight files; empty: the scores are n/a
    mnv2: str = field(default="", metadata=EXECUTION)
    stlpips: str = field(default="", metadata=EXECUTION)  # off in the shipped studies: 0.3 s a clip
    i3d: str = field(default="", metadata=EXECUTION)  # from here on files (vjepa, clip: folders) that the user brings
    videomae: str = field(default="", metadata=EXECUTION)
    vjepa: str = field(default="", metadata=EXECUTION)
    clip_b32: str = field(default="", metadata=EXECUTION)
    clip_l14: str = field(default="", metadata=EXECUTION)
    dino: str = field(default="", metadata=EXECUTION)
    lpips: str = field(default="", metadata=EXECUTION)
    i3d_sha256: str = field(default="", metadata=EXECUTION)  # pins; empty: the published hash
    videomae_sha256: str = field(default="", metadata=EXECUTION)
    vjepa_sha256: str = field(default="", metadata=EXECUTION)  # of encoder and probe: HEX,HEX
    clip_b32_sha256: str = field(default="", metadata=EXECUTION)
    clip_l14_sha256: str = field(default="", metadata=EXECUTION)
    dino_sha256: str = field(default="", metadata=EXECUTION)
    lpips_sha256: str = field(default="", metadata=EXECUTION)


@dataclass
class TrialConfig:
    """All that one trial computes."""

    method: Method = Method.lora
    arm: str = field(default="", metadata=EXECUTION)  # name of a control in the tables; empty: the sweep itself
    seed: int = 0  # of adapter initialisation, data order, training noise and timesteps
    first: str = field(default="", metadata=WHEN_SET)  # id of the trial whose adapter lies frozen under this one's
    # Of method=adapter, one file of `adapters` (cinelora/adopt/listing.py): where it lies, its content, its origin.
    adapter: str = field(default="", metadata=EXECUTION)
    adapter_sha256: str = field(default="", metadata=WHEN_SET)
    adapter_alpha: float = field(default=0.0, metadata=WHEN_SET)  # stated for a file that holds none; 0: none is stated
    trainer: str = field(default="", metadata=EXECUTION)
    training: str = field(default="", metadata=EXECUTION)  # what the file's metadata says of it
    label: str = field(default="", metadata=EXECUTION)
    notes: str = field(default="", metadata=EXECUTION)
    # Of method=clips, one row of `clips`: its folder, the content of its clips, its rank (0: the base; -1: unknown).
    clips_folder: str = field(default="", metadata=EXECUTION)
    clips_sha256: str = field(default="", metadata=WHEN_SET)
    clips_rank: int = field(default=-1, metadata=WHEN_SET)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    zero: ZeroConfig = field(default_factory=ZeroConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)

    @property
    def rank(self) -> int:
        """Of its adapter, or as stated of finished clips; 0 for all others."""
        return max(0, self.clips_rank) if self.method is Method.clips else self.lora.rank * self.method.adapts


# The settings of a study. None of them changes what a trial computes.


class Wandb(Enum):
    offline = "offline"
    online = "online"
    off = "off"


class Prune(Enum):
    """How learning rates that fall behind are ended early, `sweeps/prune.py`."""

    off = "off"
    median = "median"
    halving = "halving"


AUTO = "auto"


@dataclass
class ClusterConfig:
    """Where trials run. One trial takes `workers_per_trial` processes of the given resources."""

    address: str = ""  # empty: a Ray of our own on this machine
    workers_per_trial: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float | int | str = 0.0  # below 1: trials of one worker share a GPU; auto: by model and machine
    workers_by_rank: dict[int, int] = field(default_factory=dict)  # wins over workers_per_trial
    max_restarts: int = 3  # of one trial after a lost process or node, or a hang
    hang_seconds: float = 1800.0  # of silence of a trial until its gang is killed; loading a base is silent
    free_disk_gib: float = 1.0  # with less in the study's disk, no trial starts
    device: str = ""  # of a worker, e.g. A100: for an estimate of cost and memory before any trial has run
    nodes: int = 0  # of the cluster, for the plan; a sweep waits for them to join; 0: unknown
    cpus_per_node: int = 64
    gpus_per_node: int = 8
    price_per_gpu_hour: float = 0.0  # in your currency; 0: no cost is printed

    def __post_init__(self) -> None:
        if self.address not in ("", "auto"):
            host, _, port = self.address.rpartition(":")
            found = host and "/" not in host and port.isdecimal() and 0 < int(port) < 65536
            require(
                bool(found), "cluster.address", self.address, "give HOST:PORT of `ray start`, e.g. head:6379, or auto"
            )
        positive(self, "cluster", "workers_per_trial", "cpus_per_worker", "hang_seconds", "cpus_per_node")
        not_negative(self, "cluster", "max_restarts", "free_disk_gib")
        not_negative(self, "cluster", "nodes", "gpus_per_node", "price_per_gpu_hour")
        for rank, workers in self.workers_by_rank.items():
            require(rank > 0 and workers > 0, "cluster.workers_by_rank", self.workers_by_rank, "give rank: workers")
        if self.gpus_per_worker == AUTO:
            return
        number = not isinstance(self.gpus_per_worker, str)
        require(number, "cluster.gpus_per_worker", self.gpus_per_worker, "give a number, or auto")
        not_negative(self, "cluster", "gpus_per_worker")
        gpus = self.gpus
        shared = gpus < 1 and self.workers_per_trial == 1 and not self.workers_by_rank
        remedy = "must be whole, or below 1 with one worker a trial: workers of one gang cannot share a GPU"
        require(gpus == int(gpus) or shared, "cluster.gpus_per_worker", gpus, remedy)

    @property
    def gpus(self) -> float:
        """Of a worker, once `auto` is settled (`launch/estimate.py:settle_gpus`)."""
        return float(self.gpus_per_worker)

    def workers(self, rank: int) -> int:
        """Of a trial of this rank; 0 is a trial without adapter."""
        return self.workers_by_rank.get(rank, self.workers_per_trial)


@dataclass
class TrackingConfig:
    """Weights & Biases as a mirror of the ledger."""

    wandb: Wandb = Wandb.offline
    project: str = "cinelora"

    def __post_init__(self) -> None:
        good = 0 < len(self.project) <= 128 and not set(self.project) & set("/\\#?%:")
        require(good, "tracking.project", self.project, "W&B takes 1 to 128 characters without / \\ # ? % :")


@dataclass
class AnswerConfig:
    """What counts as enough, fixed before the first result. `share` of the best rank's gain over the base, 0..1.

    Of a plan alone: `power`, the chance of an answer that is wanted, 0..1; `pilot`, a finished study of the same kind,
    from which gains and spreads are taken. `until_decided`: ranks shown to be worse are dropped and the others get more
    seeds, until the smallest sufficient rank is known, or each has `most_seeds`, or the study would take more than
    `budget_gpu_hours` (worker-hours without GPUs; 0: no limit).
    """

    share: float = 0.9
    scores: Any = AUTO  # the list of scores that decide, or auto: the best that the trials have
    power: float = 0.9
    pilot: str = ""
    until_decided: bool = False
    most_seeds: int = 8
    budget_gpu_hours: float = 0.0

    def __post_init__(self) -> None:
        positive(self, "answer", "most_seeds")
        not_negative(self, "answer", "budget_gpu_hours")
        for name in ("share", "power"):
            value = getattr(self, name)
            require(0 < value < 1, f"answer.{name}", value, "must lie between 0 and 1, e.g. 0.9")
        listed = isinstance(self.scores, list) and all(isinstance(score, str) for score in self.scores)
        good = self.scores == AUTO or (listed and 0 < len(self.scores) == len(set(self.scores)))
        require(good, "answer.scores", self.scores, 'is auto, or a list of names, e.g. ["kvd[i3d]", heldout_loss]')

    @property
    def chosen(self) -> tuple[str, ...]:
        """The listed scores; () for auto."""
        return () if self.scores == AUTO else tuple(self.scores)


@dataclass
class RatesConfig:
    """A search for the learning rate of each rank, and of the full fine-tune, before the study: `launch/rates.py`.

    `grid`, `full_grid`: the rates to try. `data`: a folder of clips to search on, none of which the study reports;
    empty: a split inside the study's training clips (`data.selection`).
    """

    search: bool = False
    grid: list[float] = field(default_factory=lambda: [1e-3, 3e-3, 1e-2, 3e-2])
    full_grid: list[float] = field(default_factory=lambda: [2e-4, 5e-4, 1e-3, 2e-3])
    data: str = ""

    def __post_init__(self) -> None:
        for name in ("grid", "full_grid"):
            rates = getattr(self, name)
            good = all(math.isfinite(rate) and rate > 0 for rate in rates) and len(set(rates)) == len(rates) > 1
            remedy = "give two learning rates or more, each once and above 0, e.g. [1e-3,3e-3,1e-2]"
            require(good, f"rates.{name}", rates, remedy)


@dataclass
class StageConfig:
    """The first of two stages: one adapter of its own, trained before and frozen under every trial of the study.

    Model, ZeRO, sampling and scoring are those of the study. It is a trial like any other, in the arm "first stage".
    """

    enabled: bool = False
    seed: int = 0  # one for all trials, so that they differ in their own stage alone
    data: DataConfig = field(default_factory=DataConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass
class StudyConfig(TrialConfig):
    """What Hydra composes: one trial, and where and how its study runs."""

    name: str = "study"
    study_dir: str = "studies/${name}"
    cache_dir: str = ".cache"
    plan_only: bool = False
    learning_rate_by_rank: dict[int, float] = field(default_factory=dict)  # wins over train.learning_rate
    learning_rate_by_targets: dict[str, dict[int, float]] = field(default_factory=dict)  # wins over both, per rank
    fail_fast: bool = False  # a failed trial stops the sweep; else the others continue
    prune: Prune = Prune.off  # among the learning rates of one rank, never between ranks
    rates: RatesConfig = field(default_factory=RatesConfig)
    stage1: StageConfig = field(default_factory=StageConfig)
    adapters: str = ""  # of method=adapter: a .csv or .yaml that lists LoRA files, or a folder of them (docs/adopt.md)
    clips: str = ""  # of method=clips: a .csv or .yaml that lists folders of finished clips (docs/adopt.md)
    frozen_row: bool = True  # one trial more: each held-out clip's first frame repeated, scored like the others
    extra: list[str] = field(default_factory=list)  # trials in addition to the grid, e.g. "method=full seed=0,1"
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)

    def __post_init__(self) -> None:
        for name in ("name", "study_dir", "cache_dir"):
            require(bool(getattr(self, name).strip()), name, getattr(self, name), "must not be empty")
