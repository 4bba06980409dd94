"""How much device memory a worker needs at its peak, phase by phase, from configs alone. Standard library only.

In: `config.json` of the model's parts, a TrialConfig, the size of its gang. Out: bytes by phase and part.

What follows are the tensors of diffusers' Wan, PEFT's adapter and DeepSpeed's optimisers, written down once and held to
counts of the real classes at full size (`benchmarks/memory.py`, `tests/cinelora/test_footprint.py`). Attention is taken
to be fused (no L x L matrix). Not in it: what the driver, cuBLAS, cuDNN and NCCL take, and the allocator's gaps.

Legend, bytes of one video token: a, an activation of width d; w, one in float32; g, one of the feed-forward width.
Norms and gates are computed in float32: in bfloat16 each `.float()` is a copy of w bytes, in float32 it is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cinelora.core.config import Dtype, Method, Offload, StepCache, TargetSet, TrialConfig, heldout_batch, video_tokens
from sweeps.cost import IMAGE_TOKENS, TEXT_TOKENS

GIB = 2**30
BytesByPart = dict[str, float]  # bytes by what takes them
BYTES = {Dtype.float32: 4, Dtype.bfloat16: 2}
BUCKET = 500_000_000  # elements that DeepSpeed collects before it sums gradients, its default
GATHERED = 1_050_000_000  # elements that stage 3 holds whole at most: those in use, and the next ones; its defaults
VAE_PARAMETERS = 126_892_531  # of the published one, base_dim 96
VAE_DECODE = 50.7  # floats a pixel and base_dim at the peak, counted; a latent frame at a time
VAE_WIDTH = 96
SELF, CROSS, IMAGE, FFN, OUTER = "self", "cross", "image", "ffn", "outer"
TRAINED: dict[TargetSet, set[str]] = {
    TargetSet.cross_image: {IMAGE},
    TargetSet.cross_text: {CROSS},
    TargetSet.cross: {CROSS, IMAGE},
    TargetSet.self: {SELF},
    TargetSet.attn_text: {SELF, CROSS},
    TargetSet.attn: {SELF, CROSS, IMAGE},
    TargetSet.ffn: {FFN},
    TargetSet.block_text: {SELF, CROSS, FFN},
    TargetSet.block: {SELF, CROSS, IMAGE, FFN},
    TargetSet.linear: {SELF, CROSS, IMAGE, FFN, OUTER},
}
ON_VIDEO = {SELF: 4, CROSS: 2, IMAGE: 0, FFN: 2, OUTER: 0}  # layers of a block whose input is the video's tokens


@dataclass(frozen=True)
class Sizes:
    """The sizes of a WanTransformer3DModel of image-to-video kind."""

    width: int
    feed_forward: int
    layers: int
    heads: int
    image_width: int
    text_width: int
    frequencies: int
    added_width: int
    patch_in: int  # values that one video token is made of
    patch_out: int
    crossed_norm: bool
    context: int  # text and image tokens that cross-attention reads

    @staticmethod
    def of(config: Mapping[str, Any], text_tokens: int = TEXT_TOKENS, image_tokens: int = IMAGE_TOKENS) -> Sizes:
        """From the published config. KeyError: it is of another class."""
        patch = config["patch_size"][0] * config["patch_size"][1] * config["patch_size"][2]
        return Sizes(
            width=config["num_attention_heads"] * config["attention_head_dim"],
            feed_forward=config["ffn_dim"],
            layers=config["num_layers"],
            heads=config["num_attention_heads"],
            image_width=config["image_dim"],
            text_width=config["text_dim"],
            frequencies=config["freq_dim"],
            added_width=config["added_kv_proj_dim"],
            patch_in=config["in_channels"] * patch,
            patch_out=config["out_channels"] * patch,
            crossed_norm=config["cross_attn_norm"],
            context=text_tokens + image_tokens,
        )

    def _linears(self) -> dict[str, list[tuple[int, int]]]:
        """(in, out) of the linear layers: of one block by kind, and of those outside the blocks."""
        d, f, image = self.width, self.feed_forward, self.image_width
        embedders = [
            (self.frequencies, d),
            (d, d),
            (d, 6 * d),
            (self.text_width, d),
            (d, d),
            (image, image),
            (image, d),
        ]
        return {
            SELF: 4 * [(d, d)],
            CROSS: 4 * [(d, d)],
            IMAGE: 2 * [(self.added_width, d)],
            FFN: [(d, f), (f, d)],
            OUTER: [*embedders, (d, self.patch_out)],
        }

    @property
    def kept(self) -> int:
        """Parameters that stay in float32: affine norms, time embedding, scale-shift tables."""
        d = self.width
        time = (self.frequencies + 1) * d + (d + 1) * d
        return self.layers * (6 + 2 * self.crossed_norm) * d + time + 2 * self.image_width + 2 * d + 2 * d

    @property
    def parameters(self) -> int:
        """Of the whole model: linear layers with bias, the patch embedding, norms and tables."""
        d = self.width
        sizes = {kind: sum(i * o + o for i, o in each) for kind, each in self._linears().items()}
        outer = sizes.pop(OUTER)
        time = (self.frequencies + 1) * d + (d + 1) * d  # is among both the linear layers and the kept ones
        query_key_norms = 5 * d
        blocks = self.layers * (sum(sizes.values()) + query_key_norms)
        return blocks + outer + (self.patch_in + 1) * d - time + self.kept

    def adapter(self, targets: TargetSet, rank: int) -> int:
        """Parameters of an adapter: rank (in + out) for each layer it sits on."""
        sizes = {kind: sum(i + o for i, o in each) for kind, each in self._linears().items()}
        of_block = sum(sizes[kind] for kind in TRAINED[targets] if kind != OUTER)
        return rank * (self.layers * of_block + sizes[OUTER] * (OUTER in TRAINED[targets]))


@dataclass(frozen=True)
class Token:
    """Bytes of one video token in a block. `trained`, `fed`: kinds of layers with an adapter, and that keep inputs."""

    sizes: Sizes
    dtype: Dtype
    trained: frozenset[str]
    fed: frozenset[str]
    rank: int

    @property
    def a(self) -> int:
        return self.sizes.width * BYTES[self.dtype]

    @property
    def w(self) -> int:
        return self.sizes.width * 4

    @property
    def g(self) -> int:
        return self.sizes.feed_forward * BYTES[self.dtype]

    @property
    def copy(self) -> int:
        return self.w if self.dtype is not Dtype.float32 else 0

    def saved(self) -> float:
        """Kept by a block for its backward pass where it is not checkpointed."""
        on, fed = self.trained, self.fed
        norms = 3 * self.w  # what the three norms read
        attention = 10 * self.a + 3 * 4 * self.sizes.heads  # before the norms of q and k; q k v o, q o o; log-sums
        inputs = self.a * ((SELF in fed) + 2 * (CROSS in fed)) + (self.a + self.g) * (FFN in fed)
        down = self.rank * BYTES[self.dtype] * sum(ON_VIDEO[kind] for kind in on)  # A x
        gates = (3 * self.w + self.a) * (OUTER in on)  # scale and shift train too: what they multiply
        return norms + attention + self.g + inputs + down + gates

    def forward(self) -> float:
        """At the peak of a block's forward pass beside its input: at its last sum, or in its feed-forward layers."""
        last = 4 * self.a + self.copy + 2 * self.w  # two inputs, two outputs, the sum in float32
        return max(last, 3 * self.a + (3 if FFN in self.trained else 2) * self.g)

    def recomputed(self) -> float:
        """At the end of a block's forward pass when it saves: what it does not save anyway."""
        shared = (FFN in self.fed) + (self.copy == 0)
        last = 4 * self.a + self.copy + 2 * self.w - shared * self.a
        return max(last, self.a + 2 * self.g)  # or a moment later: gradients around the activation function


class Kept(NamedTuple):
    """Bytes a trained parameter costs a worker: all the time, its gradient, while the optimiser steps."""

    steady: float
    gradient: float
    step: float


def optimiser(stage: int, dtype: Dtype, workers: int, offload: Offload) -> Kept:
    """Of DeepSpeed with torch's AdamW (12: float32 copy and two moments), counted on its engines of all stages."""
    e, w = BYTES[dtype], workers
    if offload is not Offload.none:
        return Kept(e / w if stage == 3 else e, e / w, 0)
    if stage == 0:
        return Kept(8 + e + (4 if e < 4 else 0), e, 8 + (2 if e < 4 else 0))
    if stage < 3:
        return Kept(e + 12 / w, e / w, 8 / w)
    return Kept((e + 12) / w, e / w, (8 + 2 * e) / w)


def _tokens(config: TrialConfig, clips: int) -> float:
    """Video tokens that one worker computes with."""
    return clips * video_tokens(config.data) / config.model.sequence_workers


def _common(sizes: Sizes, config: TrialConfig, clips: int) -> float:
    """Rope tables of the shape, and text and image states as read and as embedded."""
    rope = 2 * 4 * (sizes.width // sizes.heads) * video_tokens(config.data)
    return rope + clips * sizes.context * BYTES[config.model.dtype] * (sizes.width + sizes.text_width)


def _weights(sizes: Sizes, config: TrialConfig, workers: int) -> BytesByPart:
    e = BYTES[config.model.dtype]
    base, kept = (sizes.parameters - sizes.kept) * e, sizes.kept * 4
    if config.zero.stage < 3:
        return {"base": base, "kept in float32": kept}
    share = 0 if config.zero.offload is Offload.weights else 1 / workers
    gathered = min(GATHERED, sizes.parameters) * e
    return {"base": base * share, "kept in float32": kept * share, "gathered blocks": gathered}


def _trained(sizes: Sizes, config: TrialConfig) -> tuple[frozenset[str], int, int]:
    """(kinds of layers that train, parameters that do, rank of an adapter or 0)."""
    if config.method is Method.full:
        return frozenset(TRAINED[TargetSet.linear]), sizes.parameters, 0
    if config.method is Method.base:
        return frozenset(), 0, 0
    targets, rank = config.lora.targets, config.lora.rank
    return frozenset(TRAINED[targets]), sizes.adapter(targets, rank), rank


def _training(
    sizes: Sizes, config: TrialConfig, token: Token, micro: int, accumulates: bool, gradients: float
) -> BytesByPart:
    """Activations of one micro-batch at their peak, and gradients that lie beside them."""
    tokens, settings = _tokens(config, micro), config.train
    chosen = min(settings.checkpointed_blocks or sizes.layers, sizes.layers)
    checkpointed = chosen if settings.gradient_checkpointing else 0
    context = 3 * micro * sizes.context * sizes.width * BYTES[config.model.dtype]  # keys before and after, values
    saved = tokens * token.saved() + context
    if token.copy == 0 and checkpointed:
        saved -= tokens * token.a  # what the first norm reads is the checkpoint itself
    inputs, others = checkpointed * tokens * token.a, (sizes.layers - checkpointed) * saved
    if others:  # the last of them is the one block
        others -= saved
    if not accumulates and inputs + others > gradients:  # which take, pass after pass, less room than is freed
        gradients = 0.0
    return {
        "checkpoints": inputs,
        "saved activations": others,
        "one block": saved + tokens * (token.recomputed() + token.a) + _common(sizes, config, micro),
        "gradients": gradients,
    }


def _forward(sizes: Sizes, config: TrialConfig, token: Token, clips: int) -> BytesByPart:
    inner = _tokens(config, clips) * (token.a + token.forward())
    return {"one block": inner + _common(sizes, config, clips)}


def vae_bytes(config: TrialConfig, vae: Mapping[str, Any], clips: int, floats: float) -> tuple[float, float]:
    """(weights, working set at its peak) in bytes of the video autoencoder in float32."""
    width, data = vae["base_dim"], config.data
    weights = 4 * VAE_PARAMETERS * (width / VAE_WIDTH) ** 2
    return weights, 4 * clips * data.height * data.width * (floats * width + 3 * data.frames)


def footprint(
    sizes: Sizes, vae: Mapping[str, Any], config: TrialConfig, workers: int, heldout: int, nets: float = 0.0
) -> dict[str, BytesByPart]:
    """Bytes by part of a trial's phases: "train", "step", "heldout", "generate", "decode"; a peak is their sum.

    `heldout`: held-out windows; `nets`: bytes of the feature nets beside the base.
    """
    kinds, count, rank = _trained(sizes, config)
    fed = kinds | {SELF, CROSS, FFN} if config.zero.stage == 3 else kinds  # its own linear layers keep what they read
    token = Token(sizes, config.model.dtype, kinds, fed, rank)
    per = optimiser(config.zero.stage, config.model.dtype, workers, config.zero.offload)
    resident = _weights(sizes, config, workers) | {"adapter and its optimiser": count * per.steady}
    if config.method is Method.full:
        resident["base"] = 0.0  # is what trains
    resident["VAE"], working = vae_bytes(config, vae, config.sample.batch_size, VAE_DECODE)
    resident["feature nets"] = nets
    share = max(1, config.train.batch_size * config.model.sequence_workers // workers)
    micro = max(m for m in range(1, min(share, config.train.micro_batch) + 1) if share % m == 0)
    passes = 2 if config.sample.guidance > 1 else 1
    clips = config.sample.batch_size * (passes if config.sample.batched_guidance else 1)
    generating = _forward(sizes, config, token, clips)
    if config.sample.cache is not StepCache.none:  # what the first block and the others changed, of each pass
        generating["step cache"] = 3 * token.a * passes * _tokens(config, config.sample.batch_size)
    bucket, training = BUCKET * BYTES[config.model.dtype] if config.zero.stage else 0, dict[str, BytesByPart]()
    if config.method is not Method.base:
        gradients = count * per.gradient
        training["train"] = _training(sizes, config, token, micro, share > micro, gradients) | {"bucket": bucket}
        training["step"] = {"gradients": gradients, "optimiser step": count * per.step}
    phases = training | {
        "heldout": _forward(sizes, config, token, min(heldout, heldout_batch(config.data))),
        "generate": generating,
        "decode": {"working set": working},
    }
    return {phase: resident | parts for phase, parts in phases.items()}


def peak_gib(parts: BytesByPart) -> float:
    return sum(parts.values()) / GIB


# ~ Device memory of the encoding step, from the configs of the encoders. Standard library only.
# ~
# ~ In: `config.json` of text encoder, image encoder and VAE, a TrialConfig. Out: bytes by phase and part, as
# ~ `sweeps/memory.py`.

VAE_ENCODE = 36.7  # floats a pixel and base_dim at the peak, counted; four frames at a time


def text_parameters(text: Mapping[str, Any]) -> int:
    """Of a UMT5 encoder: embeddings, and in each layer attention, gated feed-forward, norms, relative positions."""
    d, inner = text["d_model"], text["num_heads"] * text["d_kv"]
    layer = 4 * d * inner + 3 * d * text["d_ff"] + 2 * d
    layer += text["num_heads"] * text["relative_attention_num_buckets"]
    return int(text["vocab_size"] * d + text["num_layers"] * layer + d)


def image_parameters(image: Mapping[str, Any]) -> int:
    """Of a CLIP vision tower."""
    d, f, side = image["hidden_size"], image["intermediate_size"], image["image_size"] // image["patch_size"]
    layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
    return int(3 * d * image["patch_size"] ** 2 + (side * side + 2) * d + image["num_hidden_layers"] * layer + 4 * d)


def encoding(config: TrialConfig, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, BytesByPart]:
    """Before any trial, each freed after its work; `parts`: configs "text_encoder", "image_encoder" and "vae"."""
    text, image = parts["text_encoder"], parts["image_encoder"]
    stored = text.get("dtype") or text.get("torch_dtype") or "float32"
    size = 4 if (config.model.text_dtype or Dtype.float32) is Dtype.float32 and stored == "float32" else 2
    scores = 4 * 4 * text["num_heads"] * TEXT_TOKENS**2
    weights, working = vae_bytes(config, parts["vae"], 1, VAE_ENCODE)
    return {
        "encode text": {"text encoder": size * text_parameters(text), "working set": scores},
        "encode clips": {"VAE": weights, "image encoder": 4.0 * image_parameters(image), "working set": working},
    }
