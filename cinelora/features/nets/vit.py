"""The transformer block that DINO, VideoMAE and V-JEPA share, under the layer names of their files.

Tokens are (B, L, D): B clips or frames, L tokens, D channels. Dosovitskiy et al. 2021 (arXiv 2010.11929, eq. 2 and 3).
The three checkpoints keep query, key and value in one matrix, so one block loads them all without renaming a layer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6  # of the layer norms of all three, not PyTorch's 1e-5


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """(B, M, D), (B, L, D), (B, L, D) -> (B, M, D): scaled dot-product attention in `heads` parts."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)


class Attention(nn.Module):
    """Self-attention. `key_bias=False` keeps biases for query and value alone, as BEiT and VideoMAE do."""

    def __init__(self, dimension: int, heads: int, key_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dimension, 3 * dimension, bias=key_bias)
        self.proj = nn.Linear(dimension, dimension)
        if not key_bias:
            self.q_bias = nn.Parameter(torch.zeros(dimension))
            self.v_bias = nn.Parameter(torch.zeros(dimension))

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
        bias = self.qkv.bias
        if bias is None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = functional.linear(x, self.qkv.weight, bias).chunk(3, dim=-1)
        return self.proj(attended(query, key, value, self.heads))


def mlp(dimension: int, hidden: int) -> nn.Module:
    """Two linear layers around the exact GELU, (B, L, D) -> (B, L, D)."""
    layers = {"fc1": nn.Linear(dimension, hidden), "act": nn.GELU(), "fc2": nn.Linear(hidden, dimension)}
    return nn.Sequential(OrderedDict(layers))


class Block(nn.Module):
    """Normalise, attend, add; normalise, transform each token, add."""

    def __init__(self, dimension: int, heads: int, hidden: int, key_bias: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dimension, eps=EPSILON)
        self.attn = Attention(dimension, heads, key_bias)
        self.norm2 = nn.LayerNorm(dimension, eps=EPSILON)
        self.mlp = mlp(dimension, hidden)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) -> (B, L, D)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    """One token per patch of pixels, or per `frames` patches of neighbouring frames."""

    def __init__(self, dimension: int, side: int, frames: int | None = None) -> None:
        super().__init__()
        conv: Any = nn.Conv3d if frames else nn.Conv2d
        patch = (frames, side, side) if frames else (side, side)
        self.proj = conv(3, dimension, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, [T,] H, W) -> (B, L, D), time before rows before columns
        tokens = self.proj(x)
        return tokens.flatten(2).transpose(1, 2)


def sinusoids(positions: int, dimension: int) -> NDArray[np.float32]:
    """(positions, dimension): sine and cosine in turn, wavelengths 2 pi to 20000 pi (arXiv 1706.03762, 3.5)."""
    pair = np.arange(dimension) // 2
    angles = np.arange(positions)[:, None] / 10000.0 ** (2 * pair / dimension)
    return np.where(np.arange(dimension) % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)
