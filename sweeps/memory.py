"""How much device memory a worker needs at its peak, phase by phase, from configs alone. Standard library only.

In: `config.json` of the model's parts, a TrialConfig, the size of its gang. Out: bytes by phase and part.

The model counts the tensors of diffusers' Wan, PEFT's adapter and DeepSpeed's optimisers. It is checked against counts
of the real classes at full size (`benchmarks/memory.py`, `tests/sweeps/test_memory.py`). Attention is taken
to be fused (no L x L matrix). Not in it: what the driver, cuBLAS, cuDNN and NCCL take, and the allocator's gaps.

Legend, bytes of one video token: a, an activation of width d; w, one in float32; g, one of the feed-forward width.
Norms and gates are computed in float32: in bfloat16 each `.float()` is a copy of w bytes, in float32 it is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cinelora.core.config import Checkpointing, Dtype, LayerKind, Method, Offload, StepCache, TargetSet, TrialConfig
from sweeps.denoiser import TEXT_TOKENS, Denoiser

GIB = 2**30
SHARDED = 3  # ZeRO stage whose hooks gather weights inside the blocks
BytesByPart = dict[str, float]  # bytes by what takes them
BYTES = {Dtype.float32: 4, Dtype.bfloat16: 2}
BUCKET = 500_000_000  # elements that DeepSpeed collects before it sums gradients, its default
GATHERED = 1_050_000_000  # elements that stage 3 holds whole at most: those in use, and the next ones; its defaults
VAE_PARAMETERS = 126_892_531  # of the published one, base_dim 96
VAE_DECODE = 50.7  # floats a pixel and base_dim at the peak, counted; a latent frame at a time
VAE_ENCODE = 36.7  # the same for encoding; four frames at a time
VAE_WIDTH = 96
ON_VIDEO = {  # layers of a block that read the video's tokens
    LayerKind.self: 4,
    LayerKind.cross: 2,
    LayerKind.image: 0,
    LayerKind.ffn: 2,
    LayerKind.outer: 0,
}


class Token:
    """Bytes of one video token in a block: `a`, `w` and `g` as above, `copy` of a float32 copy where one is made.

    `trained`, `fed`: kinds of layers with an adapter, and of those that keep their inputs; `rank`: of the adapter.
    `compiled`: norms and gates are fused, so no float32 copies; fitted to peaks on an H100 (`docs/benchmarks.md`).
    """

    def __init__(
        self,
        net: Denoiser,
        dtype: Dtype,
        trained: frozenset[LayerKind],
        fed: frozenset[LayerKind],
        rank: int,
        compiled: bool,
    ) -> None:
        self.compiled = compiled
        self.trained, self.fed = trained, fed
        self.a, self.w, self.g = net.width * BYTES[dtype], net.width * 4, net.feed_forward * BYTES[dtype]
        self.copy = self.w if dtype is not Dtype.float32 else 0
        self.log_sums = 3 * 4 * net.heads
        self.down = rank * BYTES[dtype]  # A x of one layer

    def saved(self) -> float:
        """What a block keeps for its backward pass where it is not checkpointed."""
        on, fed = self.trained, self.fed
        norms = 3 * (self.a if self.compiled else self.w)  # what the three norms read
        # before the norms of q and k, which are computed again where compiled; q k v o, q o o; log-sums
        attention = (8 if self.compiled else 10) * self.a + self.log_sums
        inputs = self.a * ((LayerKind.self in fed) + 2 * (LayerKind.cross in fed))
        inputs += (self.a + self.g) * (LayerKind.ffn in fed)
        down = self.down * sum(ON_VIDEO[kind] for kind in on)
        gates = (3 * self.w + self.a) * (LayerKind.outer in on)  # scale and shift train too: what they multiply
        return norms + attention + self.g + inputs + down + gates

    def forward(self) -> float:
        """At the peak of a block's forward pass, without its input: at its last sum, or in its feed-forward layers."""
        last = 4 * self.a + self.copy + 2 * self.w  # two inputs, two outputs, the sum in float32
        return max(last, 3 * self.a + (3 if LayerKind.ffn in self.trained else 2) * self.g)

    def recomputed(self) -> float:
        """At the end of a block's forward pass when it saves: what it does not save anyway."""
        if self.compiled:
            return 5 * self.a
        shared = (LayerKind.ffn in self.fed) + (self.copy == 0)
        last = 4 * self.a + self.copy + 2 * self.w - shared * self.a
        return max(last, self.a + 2 * self.g)  # or a moment later: gradients around the activation function


class OptimiserBytes(NamedTuple):
    """Bytes a trained parameter costs a worker: all the time, its gradient, while the optimiser steps."""

    steady: float
    gradient: float
    step: float


def optimiser(stage: int, dtype: Dtype, workers: int, offload: Offload) -> OptimiserBytes:
    """Of DeepSpeed with torch's AdamW (12: float32 copy and two moments), counted on its engines of all stages."""
    e, w = BYTES[dtype], workers
    if offload is not Offload.none:
        return OptimiserBytes(e / w if stage == 3 else e, e / w, 0)
    if stage == 0:
        return OptimiserBytes(8 + e + (4 if e < 4 else 0), e, 8 + (2 if e < 4 else 0))
    if stage < 3:
        return OptimiserBytes(e + 12 / w, e / w, 8 / w)
    return OptimiserBytes((e + 12) / w, e / w, (8 + 2 * e) / w)


def settled(config: TrialConfig) -> Checkpointing:
    """How its blocks are checkpointed in the end: ZeRO-3 keeps no attention, and `auto` without a plan is `all`."""
    kind = config.train.checkpointing
    kept = kind is Checkpointing.attention and config.zero.stage < SHARDED
    return kind if kept or kind is Checkpointing.none else Checkpointing.all


def _tokens(config: TrialConfig, clips: int) -> float:
    """Video tokens that one worker computes with."""
    return clips * config.data.video_tokens / config.model.sequence_workers


def _common(net: Denoiser, config: TrialConfig, clips: int) -> float:
    """Rope tables of the shape, and text and image states as read and as embedded."""
    rope = 2 * 4 * (net.width // net.heads) * config.data.video_tokens
    return rope + clips * net.context * BYTES[config.model.dtype] * (net.width + net.text_width)


def _weights(net: Denoiser, config: TrialConfig, workers: int) -> BytesByPart:
    e = BYTES[config.model.dtype]
    base, kept = (net.parameters - net.kept) * e, net.kept * 4
    if config.zero.stage < 3:
        return {"base": base, "kept in float32": kept}
    share = 0 if config.zero.offload is Offload.weights else 1 / workers
    gathered = min(GATHERED, net.parameters) * e
    return {"base": base * share, "kept in float32": kept * share, "gathered blocks": gathered}


def _trained(net: Denoiser, config: TrialConfig) -> tuple[frozenset[LayerKind], int, int]:
    """(kinds of layers that train, parameters that do, rank of an adapter or 0)."""
    if config.method is Method.full:
        return TargetSet.linear.layers, net.parameters, 0
    if not config.method.trains:
        return frozenset(), 0, 0
    targets, rank = config.lora.targets, config.lora.rank
    return targets.layers, net.adapter(targets, rank), rank


def _training(
    net: Denoiser, config: TrialConfig, token: Token, micro: int, accumulates: bool, gradients: float
) -> BytesByPart:
    """Activations of one micro-batch at their peak, and the gradients held at the same time."""
    tokens, settings = _tokens(config, micro), config.train
    chosen = min(settings.checkpointed_blocks or net.layers, net.layers)
    kind = settled(config)
    checkpointed = 0 if kind is Checkpointing.none else chosen
    # what self-attention returned, and its log-sums
    kept = token.a + 4 * net.heads if kind is Checkpointing.attention else 0.0
    context = 3 * micro * net.context * net.width * BYTES[config.model.dtype]  # keys before and after, values
    saved = tokens * token.saved() + context
    if token.copy == 0 and checkpointed:
        saved -= tokens * token.a  # what the first norm reads is the checkpoint itself
    inputs, others = checkpointed * tokens * (token.a + kept), (net.layers - checkpointed) * saved
    if checkpointed == net.layers:
        saved -= tokens * kept  # of the block whose turn it is
    if others:  # the last of them is the one block
        others -= saved
    if not accumulates and inputs + others > gradients:  # which take, pass after pass, less room than is freed
        gradients = 0.0
    return {
        "checkpoints": inputs,
        "saved activations": others,
        "one block": saved + tokens * (token.recomputed() + token.a) + _common(net, config, micro),
        "gradients": gradients,
    }


def _forward(net: Denoiser, config: TrialConfig, token: Token, clips: int) -> BytesByPart:
    inner = _tokens(config, clips) * (token.a + token.forward())
    return {"one block": inner + _common(net, config, clips)}


def vae_bytes(config: TrialConfig, vae: Mapping[str, Any], clips: int, floats: float) -> tuple[float, float]:
    """(weights, working set at its peak) in bytes of the video autoencoder in float32."""
    width, data = vae["base_dim"], config.data
    weights = 4 * VAE_PARAMETERS * (width / VAE_WIDTH) ** 2
    return weights, 4 * clips * data.height * data.width * (floats * width + 3 * data.frames)


def footprint(
    net: Denoiser, vae: Mapping[str, Any], config: TrialConfig, workers: int, heldout: int, nets: float = 0.0
) -> dict[str, BytesByPart]:
    """Bytes by part of a trial's phases: "train", "step", "heldout", "generate", "decode"; a peak is their sum.
    Without clips the last two are missing.

    `heldout`: held-out windows; `nets`: bytes of the feature nets.
    """
    kinds, count, rank = _trained(net, config)
    fed = kinds
    if config.zero.stage == 3:  # DeepSpeed's own linear layers keep their input, trained or not
        fed = kinds | {LayerKind.self, LayerKind.cross, LayerKind.ffn}
    token = Token(net, config.model.dtype, kinds, fed, rank, config.model.compile)
    per = optimiser(config.zero.stage, config.model.dtype, workers, config.zero.offload)
    resident = _weights(net, config, workers) | {"adapter and its optimiser": count * per.steady}
    if config.method is Method.full:
        resident["base"] = 0.0  # is what trains
    resident["VAE"], working = vae_bytes(config, vae, config.sample.batch_size, VAE_DECODE)
    resident["feature nets"] = nets
    groups = max(1, workers // config.model.sequence_workers)
    micro = config.train.windows_at_once(groups)
    accumulates = config.train.batch_size > micro * groups
    passes = 2 if config.sample.guidance > 1 else 1
    clips = config.sample.batch_size * (passes if config.sample.batched_guidance else 1)
    generating = _forward(net, config, token, clips)
    if config.sample.cache is not StepCache.none:  # what the first block and the others changed, of each pass
        generating["step cache"] = 3 * token.a * passes * _tokens(config, config.sample.batch_size)
    bucket, training = BUCKET * BYTES[config.model.dtype] if config.zero.stage else 0, dict[str, BytesByPart]()
    if config.method.trains:
        gradients = count * per.gradient
        training["train"] = _training(net, config, token, micro, accumulates, gradients) | {"bucket": bucket}
        training["step"] = {"gradients": gradients, "optimiser step": count * per.step}
    phases = training | {
        "heldout": _forward(net, config, token, min(heldout, config.data.heldout_batch)),
    }
    if config.sample.clips:
        phases |= {"generate": generating, "decode": {"working set": working}}
    return {phase: resident | parts for phase, parts in phases.items()}


def peak_gib(parts: BytesByPart) -> float:
    return sum(parts.values()) / GIB


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


def encoder_memory(config: TrialConfig, parts: Mapping[str, Mapping[str, Any]]) -> dict[str, BytesByPart]:
    """Bytes by part of the two phases before any trial, each freed after its work.

    `parts`: the configs "text_encoder", "image_encoder" and "vae".
    """
    text, image = parts["text_encoder"], parts["image_encoder"]
    stored = text.get("dtype") or text.get("torch_dtype") or "float32"
    size = 4 if (config.model.text_dtype or Dtype.float32) is Dtype.float32 and stored == "float32" else 2
    scores = 4 * 4 * text["num_heads"] * TEXT_TOKENS**2
    weights, working = vae_bytes(config, parts["vae"], 1, VAE_ENCODE)
    return {
        "encode text": {"text encoder": size * text_parameters(text), "working set": scores},
        "encode clips": {"VAE": weights, "image encoder": 4.0 * image_parameters(image), "working set": working},
    }
