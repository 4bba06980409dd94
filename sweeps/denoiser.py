"""The sizes of the Wan image-to-video denoiser: its parameters, and the operations it needs. Standard library only.

In: `transformer/config.json`, video tokens of a clip, rank and targets of an adapter. Out: counts of parameters and
floating-point operations, where a multiplication with its addition is two. Norms, activations and embeddings are left
out of the operations: below 1 % at full size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cinelora.core.config import LayerKind, TargetSet

TEXT_TOKENS = 512
IMAGE_TOKENS = 257  # of CLIP ViT-H/14 at 224 pixels


@dataclass(frozen=True)
class Denoiser:
    """The sizes of a WanTransformer3DModel of image-to-video kind.

    L video tokens, d `width`, f `feed_forward`, S `context`.
    """

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
    def of(config: Mapping[str, Any], text_tokens: int = TEXT_TOKENS, image_tokens: int = IMAGE_TOKENS) -> Denoiser:
        """From the published config. KeyError: it is of another class."""
        patch = config["patch_size"][0] * config["patch_size"][1] * config["patch_size"][2]
        return Denoiser(
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

    def _linears(self) -> dict[LayerKind, list[tuple[int, int]]]:
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
            LayerKind.self: 4 * [(d, d)],
            LayerKind.cross: 4 * [(d, d)],
            LayerKind.image: 2 * [(self.added_width, d)],
            LayerKind.ffn: [(d, f), (f, d)],
            LayerKind.outer: [*embedders, (d, self.patch_out)],
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
        outer = sizes.pop(LayerKind.outer)
        time = (self.frequencies + 1) * d + (d + 1) * d  # is among both the linear layers and the kept ones
        query_key_norms = 5 * d
        blocks = self.layers * (sum(sizes.values()) + query_key_norms)
        return blocks + outer + (self.patch_in + 1) * d - time + self.kept

    def adapter(self, targets: TargetSet, rank: int) -> int:
        """Parameters of an adapter: rank (in + out) for each layer it sits on."""
        sizes = {kind: sum(i + o for i, o in each) for kind, each in self._linears().items()}
        of_block = sum(sizes[kind] for kind in targets.layers if kind != LayerKind.outer)
        return rank * (self.layers * of_block + sizes[LayerKind.outer] * (LayerKind.outer in targets.layers))

    def linear(self, tokens: int) -> float:
        """Of all linear layers of the blocks in one forward of one clip: 2 (6 d^2 + 2 d f) L + 4 d^2 S a layer."""
        d = self.width
        return self.layers * (2.0 * tokens * (6 * d * d + 2 * d * self.feed_forward) + 4.0 * self.context * d * d)

    def attention(self, tokens: int) -> float:
        """Of the attention products, scores and values: 4 d L (L + S) a layer."""
        return self.layers * 4.0 * self.width * tokens * (tokens + self.context)

    def forward(self, tokens: int) -> float:
        return self.linear(tokens) + self.attention(tokens)

    def step(self, tokens: int, frozen: bool = True) -> float:
        """One clip forward and backward, each once. A frozen base needs no gradient of its weights.

        Backward: linear layers once more (twice if their weights train), attention twice and a half, since fused
        attention computes its scores again.
        """
        return self.forward(tokens) + self.linear(tokens) * (1 if frozen else 2) + 2.5 * self.attention(tokens)
