"""DINO ViT-B/16: what is in a frame; the feature behind the subject consistency of VBench.

In: uint8 frames (N, T, H, W, 3) and `dino_vitbase16_pretrain.pth`. Out: float32 (N, T, 768), one vector per frame.
Caron et al. 2021 (arXiv 2104.14294); Huang et al. 2024, VBench (arXiv 2311.17982), for size and use.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import shorter_side, standardised
from cinelora.features.nets.vit import EPSILON, Block, Patches

SIDE = 224
PATCH = 16


class DinoVit(nn.Module):
    """A plain vision transformer; its feature is the class token after the last norm."""

    def __init__(self, dimension: int = 768, depth: int = 12, heads: int = 12, grid: int = SIDE // PATCH) -> None:
        super().__init__()
        self.patch_embed = Patches(dimension, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dimension))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, dimension))
        self.blocks = nn.Sequential(*[Block(dimension, heads, 4 * dimension) for _ in range(depth)])
        self.norm = nn.LayerNorm(dimension, eps=EPSILON)

    def positions(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows * columns, D): the trained square grid, stretched where the image is another shape."""
        trained = self.pos_embed[:, 1:]
        grid = math.isqrt(trained.shape[1])
        if (rows, columns) == (grid, grid):
            return self.pos_embed
        # the published code adds 0.1 to guard against rounding, and interpolates with that scale: so must we
        scale = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        square = trained.transpose(1, 2).unflatten(-1, (grid, grid))
        stretched = functional.interpolate(square, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, x: Tensor) -> Tensor:  # (M, 3, H, W), standardised -> (M, 768)
        rows, columns = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], dim=1)
        tokens = tokens + self.positions(rows, columns)
        return self.norm(self.blocks(tokens))[:, 0]


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """DINO from its backbone file. UserError: tensors of another net."""
    tensors = read_tensors(name, path, ("teacher",), ("module.", "backbone."))
    return fitted(name, path, DinoVit, tensors, unused=("head.",)).to(device)


def pixels(images: Tensor) -> Tensor:
    """As VBench: shorter side to 224, nothing cut off, ImageNet mean and deviation.

    Whether its resize antialiases depends on the torchvision it runs under; ours does, as torchvision since 0.17.
    """
    return standardised(shorter_side(images, SIDE, "bilinear"))
