"""CLIP ViT-B/32 and ViT-L/14: frames and texts as directions in one space.

In: uint8 frames (N, T, H, W, 3) or texts, and a folder in the layout of the published model: `config.json`, the weights
(`model.safetensors` or `pytorch_model.bin`) and, for texts, the tokenizer's files. Nothing is fetched.
Out: float32 of unit length, frames (N, T, D), texts (N, D); D is 512 for B/32 and 768 for L/14.
Radford et al. 2021 (arXiv 2103.00020). The model is that of transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cinelora.core.cli import UserError
from cinelora.features.nets.files import NAMES_SHOWN
from cinelora.features.nets.frames import Floats, centre, device_of, run, shorter_side, standardised
from cinelora.metrics.feature_nets import TOKENIZER_FILES

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's own training set, RGB in 0..1
STD = (0.26862954, 0.26130258, 0.27577711)
LONGEST_TEXT = 77  # tokens, start and end included


class Clip(nn.Module):
    """The two towers of transformers' CLIPModel; calling it embeds images, `text` embeds tokens."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        super().__init__()
        self.model: Any = model
        self.folder = folder  # where the tokenizer is read from, if a text ever comes

    def forward(self, x: Tensor) -> Tensor:  # (M, 3, 224, 224), standardised -> (M, D), length 1
        return functional.normalize(self.model.get_image_features(pixel_values=x).pooler_output, dim=-1)

    def text(self, tokens: Tensor, mask: Tensor) -> Tensor:  # (M, L), (M, L) -> (M, D), length 1
        features = self.model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
        return functional.normalize(features, dim=-1)


def build(name: str, path: Path, device: torch.device | str) -> nn.Module:
    """CLIP from the folder `path`. UserError: tensors are missing."""
    from transformers import CLIPModel  # seconds to import, and only for this net

    # reads safetensors first, as the check of the hash does; a .bin with weights_only
    read: Any = CLIPModel.from_pretrained
    model, info = read(path, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"]:  # transformers would fill them with random values and a warning
        missing = ", ".join(sorted(info["missing_keys"])[:NAMES_SHOWN])
        raise UserError(
            f"score.{name}={path}: not the weights of {name}: {len(info['missing_keys'])} missing ({missing})"
        )
    return Clip(model, path).eval().requires_grad_(False).to(device)


def pixels(images: Tensor) -> Tensor:
    """As CLIP was trained: shorter side to 224, bicubic and antialiased, centre crop."""
    return standardised(centre(shorter_side(images, SIDE, "bicubic"), SIDE), MEAN, STD)


def text_features(net: Clip, texts: Sequence[str], batch: int = 32) -> Floats:
    """`texts` -> float32 (N, D) of length 1. A text beyond 77 tokens is cut, and keeps its end token.

    Cutting without the end token is a known fault of CLIP scores: the feature is read at that token.
    UserError: the folder has no tokenizer. ValueError: no texts.
    """
    if not texts:
        raise ValueError("no texts: give one or more")
    tokenizer = _tokenizer(net.folder)
    parts = []
    for start in range(0, len(texts), batch):
        words = list(texts[start : start + batch])
        cut = tokenizer(words, truncation=True, max_length=LONGEST_TEXT, padding="max_length", return_tensors="pt")
        device = device_of(net)
        parts.append(run(net.text, cut["input_ids"].to(device), cut["attention_mask"].to(device)))
    return np.concatenate(parts)


def token_counts(folder: Path, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, start and end included. UserError: the folder has no tokenizer."""
    tokenizer = _tokenizer(folder)
    return [len(tokenizer(text, verbose=False)["input_ids"]) for text in texts]


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    if not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(f"{folder}: no tokenizer there; add {' or '.join(TOKENIZER_FILES)} of the published model")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
