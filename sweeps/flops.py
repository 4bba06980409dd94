"""How much arithmetic a Wan image-to-video denoiser needs, from its config alone. Standard library only.

In: `transformer/config.json`, clip sizes. Out: floating-point operations; a multiplication with its addition is two.
L video tokens, d model width, f feed-forward width, S text and image tokens. Norms, activations and embeddings are left
out: below 1 % at full size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cinelora.core.config import TEMPORAL_FACTOR, DataConfig

TEXT_TOKENS = 512
IMAGE_TOKENS = 257  # of CLIP ViT-H/14 at 224 pixels
LATENT_PIXELS = 16  # pixels a side under one video token: VAE 8, patch 2
HELDOUT_BATCH = 8  # windows at a time in the held-out loss, at most
HELDOUT_TOKENS = 65_536  # and fewer of large windows: a GPU is long full, and memory is not


@dataclass(frozen=True)
class Denoiser:
    """The sizes of a WanTransformer3DModel that decide its arithmetic."""

    width: int
    feed_forward: int
    layers: int
    context: int  # text and image tokens that cross-attention reads

    @staticmethod
    def of(config: Mapping[str, Any], text_tokens: int = TEXT_TOKENS, image_tokens: int = IMAGE_TOKENS) -> Denoiser:
        """From the published config. KeyError: it is of another class."""
        width = config["num_attention_heads"] * config["attention_head_dim"]
        return Denoiser(width, config["ffn_dim"], config["num_layers"], text_tokens + image_tokens)

    def linear(self, tokens: int) -> float:
        """Of all linear layers of the blocks in one forward of one clip: 2 (6 d^2 + 2 d f) L + 4 d^2 S a layer."""
        d = self.width
        return self.layers * (2.0 * tokens * (6 * d * d + 2 * d * self.feed_forward) + 4.0 * self.context * d * d)

    def attention(self, tokens: int) -> float:
        """Of the attention products, scores and values: 4 d L (L + S) a layer."""
        return self.layers * 4.0 * self.width * tokens * (tokens + self.context)

    def forward(self, tokens: int) -> float:
        return self.linear(tokens) + self.attention(tokens)

    def step(self, tokens: int, checkpointing: float, frozen: bool) -> float:
        """One clip forward and backward. A frozen base needs no gradient of its weights, only of its activations.

        Backward: linear layers once more (twice if their weights train), attention twice and a half, since flash
        attention computes its scores again. `checkpointing`: the share of blocks whose forward is done again, 0..1.
        """
        backward = self.linear(tokens) * (1 if frozen else 2) + 2.5 * self.attention(tokens)
        return self.forward(tokens) * (1 + checkpointing) + backward


def video_tokens(data: DataConfig) -> int:
    """L of one window."""
    frames = (data.frames - 1) // TEMPORAL_FACTOR + 1
    return frames * (data.height // LATENT_PIXELS) * (data.width // LATENT_PIXELS)


def heldout_batch(data: DataConfig) -> int:
    """Windows at a time in the held-out loss: fixed by their size alone, so the loss does not depend on the gang."""
    return max(1, min(HELDOUT_BATCH, HELDOUT_TOKENS // video_tokens(data)))
