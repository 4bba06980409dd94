"""The small pretrained Wan image-to-video model: its parts, its vocabulary, its folder.

In: weights from `cinelora/smallbase/__main__.py`. Out: a folder in diffusers layout that the stock
WanImageToVideoPipeline loads. All parts are classes of diffusers and transformers. The text encoder is trained
with the denoiser; the CLIP vision tower keeps its random weights (the first frame reaches the denoiser through
the condition latents anyway).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from cinelora.core.files import whole_folder
from cinelora.data.synthetic import STUDIED, make_caption
from cinelora.wan import tiny

VAE: dict[str, Any] = {**tiny.VAE, "base_dim": 16, "decoder_base_dim": 24}
TRANSFORMER: dict[str, Any] = {
    **tiny.TRANSFORMER,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "freq_dim": 256,
    "ffn_dim": 384,
    "num_layers": 4,
    "added_kv_proj_dim": 128,
}
TEXT: dict[str, Any] = {
    **tiny.TEXT,
    "vocab_size": 160,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "dropout_rate": 0.0,
}
IMAGE = tiny.IMAGE
SCHEDULER: dict[str, Any] = {**tiny.SCHEDULER, "flow_shift": 2.0}
INIT_SEED = tiny.INIT_SEED
WORD = re.compile(r"[a-z]+|,")
CAPTIONS_READ = 3000  # per domain; every word of the captions turns up long before


def vocabulary() -> list[str]:
    """Every word of the captions of both domains, sorted; ids follow pad 0, end 1, unknown 2."""
    words: set[str] = set()
    for domain in STUDIED:
        for index in range(CAPTIONS_READ):
            words |= set(WORD.findall(make_caption(domain, 0, index)))
    return sorted(words)


def tokenizer(words: list[str]) -> Any:
    """One token a word or comma; words never seen in training become `<unk>`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {word: index + 3 for index, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(WORD.pattern), "removed", invert=True)
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def new_vae() -> Any:
    """The autoencoder with seeded random weights."""
    from diffusers import AutoencoderKLWan

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED)
        return AutoencoderKLWan(**VAE)


def new_denoiser() -> tuple[Any, Any]:
    """(transformer, text encoder) with seeded random weights."""
    from diffusers import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED + 1)
        transformer = WanTransformer3DModel(**{**TRANSFORMER, "patch_size": tuple(TRANSFORMER["patch_size"])})
        return transformer, UMT5EncoderModel(UMT5Config(**TEXT))


def image_tower() -> tuple[Any, Any]:
    """(image processor, CLIP vision tower); the tower's weights are random and stay so."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED)
        return tiny.image_processor(), CLIPVisionModel(CLIPVisionConfig(**IMAGE)).eval().requires_grad_(False)


def export(
    folder: Path,
    vae_state: dict[str, torch.Tensor],
    statistics: tuple[list[float], list[float]],
    transformer_state: dict[str, torch.Tensor],
    text_state: dict[str, torch.Tensor],
    words: list[str],
) -> None:
    """Write the pipeline folder in float16, whole or not at all. `statistics`: latent mean and std per channel."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline

    vae: Any = AutoencoderKLWan(**VAE, latents_mean=statistics[0], latents_std=statistics[1])
    vae.load_state_dict(vae_state)
    transformer, text_encoder = new_denoiser()
    transformer.load_state_dict(transformer_state)
    text_encoder.load_state_dict(text_state)
    processor, tower = image_tower()
    pipeline: Any = WanImageToVideoPipeline(
        tokenizer=tokenizer(words),
        text_encoder=text_encoder.half().eval(),
        image_encoder=tower.half(),
        image_processor=processor,
        transformer=transformer.half().eval(),
        vae=vae.half().eval(),
        scheduler=UniPCMultistepScheduler(**SCHEDULER),
    )
    with whole_folder(folder, replace=True) as temporary:
        pipeline.save_pretrained(temporary)
