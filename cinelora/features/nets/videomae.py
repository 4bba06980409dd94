"""VideoMAE-v2 ViT-g/14 fine-tuned on Something-Something v2: the feature of content-debiased FVD.

In: uint8 frames (N, 16, H, W, 3) and `vit_g_hybrid_pt_1200e_ssv2_ft.pth` (1.0 billion values, published in half
precision). Out: float32 (N, 1408), the normalised mean of the tokens before the classifier.
Wang et al. 2023 (arXiv 2303.16727); Ge et al. 2024 (arXiv 2404.12391) for the use as a feature.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from cinelora.features.nets.files import fitted, read_tensors
from cinelora.features.nets.frames import squashed
from cinelora.features.nets.vit import EPSILON, Block, Patches, sinusoids

SIDE = 224

fixed_positions = cache(sinusoids)  # not in the file: computed, never trained


class VideoMae(nn.Module):
    """The encoder of VideoMAE-v2 with the norm of its fine-tuned head (arXiv 2303.16727)."""

    def __init__(
        self, dimension: int = 1408, depth: int = 40, heads: int = 16, hidden: int = 6144, patch: int = 14
    ) -> None:
        super().__init__()
        self.patch_embed = Patches(dimension, patch, frames=2)
        blocks = [Block(dimension, heads, hidden, key_bias=False) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.fc_norm = nn.LayerNorm(dimension, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 16, 224, 224) in 0..1 -> (N, 1408)
        tokens = self.patch_embed(x)  # (N, 2048, 1408)
        tokens = tokens + torch.from_numpy(fixed_positions(*tokens.shape[1:])).to(tokens)
        return self.fc_norm(self.blocks(tokens).mean(dim=1))


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """VideoMAE-v2 from its fine-tuned checkpoint; the classifier is ignored. UserError: tensors of another net."""
    tensors = read_tensors(name, path, ("model", "module"))
    return fitted(name, path, VideoMae, tensors, unused=("head.",)).to(device)


def pixels(images: Tensor) -> Tensor:
    """As cd-fvd: squashed to 224x224, levels to 0..1, not standardised although the net was trained so.

    Its published numbers are computed this way.
    """
    return squashed(images, SIDE) / 255
