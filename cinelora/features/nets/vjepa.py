"""V-JEPA ViT-H/16 with the attentive pooler of its Something-Something v2 probe: the feature of JEDi.

In: uint8 frames (N, 16, H, W, 3) and a folder with the encoder `vith16.pth.tar` and the probe `ssv2-probe.pth.tar`.
Out: float32 (N, 1280). Bardes et al. 2024 (arXiv 2404.08471); Luo et al. 2025 (arXiv 2410.05203) for the use.
The weights are CC-BY-NC: for research, not for a product.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import squashed, standardised
from cinelora.features.nets.vit import EPSILON, Block, Patches, attended, mlp
from cinelora.metrics.feature_nets import WEIGHTS

SIDE = 224
TOKENS = (16 // 2) * (SIDE // 16) ** 2  # 1568, of 16 frames


class _CrossAttention(nn.Module):
    """Attention of a few queries to all tokens."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dimension, dimension)
        self.kv = nn.Linear(dimension, 2 * dimension)
        self.proj = nn.Linear(dimension, dimension)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:  # (B, M, D), (B, L, D) -> (B, M, D)
        key, value = self.kv(x).chunk(2, dim=-1)
        return self.proj(attended(self.q(query), key, value, self.heads))


class _CrossBlock(nn.Module):
    """A transformer block whose tokens are the queries; norms with PyTorch's epsilon, unlike the encoder's."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dimension)
        self.xattn = _CrossAttention(dimension, heads)
        self.norm2 = nn.LayerNorm(dimension)
        self.mlp = mlp(dimension, 4 * dimension)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:  # (B, M, D), (B, L, D) -> (B, M, D)
        query = query + self.xattn(query, self.norm1(x))
        return query + self.mlp(self.norm2(query))


class _Pooler(nn.Module):
    """One learned query that reads the whole clip (arXiv 2404.08471)."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, dimension))
        self.cross_attention_block = _CrossBlock(dimension, heads)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) -> (B, D)
        pooled: Tensor = self.cross_attention_block(self.query_tokens.expand(len(x), -1, -1), x)
        return pooled[:, 0]


class VJepa(nn.Module):
    """The target encoder and the pooler; the probe's classifier is not built."""

    def __init__(self, dimension: int = 1280, depth: int = 32, heads: int = 16, tokens: int = TOKENS) -> None:
        super().__init__()
        self.patch_embed = Patches(dimension, 16, frames=2)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dimension))  # fixed sinusoids, but kept in the file
        self.blocks = nn.Sequential(*[Block(dimension, heads, 4 * dimension) for _ in range(depth)])
        self.norm = nn.LayerNorm(dimension, eps=EPSILON)
        self.pooler = _Pooler(dimension, heads)

    def encoded(self, x: Tensor) -> Tensor:
        """(N, 3, 16, 224, 224), standardised -> tokens (N, 1568, 1280)."""
        tokens = self.patch_embed(x) + self.pos_embed
        return self.norm(self.blocks(tokens))

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 16, 224, 224), standardised -> (N, 1280)
        return self.pooler(self.encoded(x))


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """V-JEPA from the folder `path` that holds both published files. UserError: tensors of another net."""
    encoder, probe = (path / file.published[0] for file in WEIGHTS[name].files)
    tensors = read_tensors(name, encoder, ("target_encoder", "encoder"), ("module.", "backbone."))
    tensors |= read_tensors(name, probe, ("classifier",), ("module.",))
    return fitted(name, path, VJepa, tensors, unused=("linear.",)).to(device)


def pixels(images: Tensor) -> Tensor:
    """JEDi asks for clips that are 224x224 already; larger ones are squashed here. ImageNet mean and deviation."""
    return standardised(squashed(images, SIDE))
