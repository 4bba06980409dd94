"""The built-in model `tiny`: Wan2.1 I2V of the real diffusers and transformers classes, for machines without a GPU.

In: the cache folder. Out: a folder in diffusers layout that the stock pipeline loads. Weights are random, so the model
can only test the code. Layout and classes are those of the 14B model; only the sizes differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cinelora.core.files import content_hash, whole_folder

TEXT_DIM = 64
IMAGE_DIM = 64
TRANSFORMER: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": TEXT_DIM,
    "freq_dim": 64,
    "ffn_dim": 128,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 64,
    "image_dim": IMAGE_DIM,
    "added_kv_proj_dim": 64,  # without it the image branch does not exist and is never tested
}
VAE: dict[str, Any] = {
    "z_dim": 16,
    "base_dim": 8,
    "decoder_base_dim": 8,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": [True, True],
    "is_residual": True,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
TEXT: dict[str, Any] = {
    "d_model": TEXT_DIM,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 260,
    "pad_token_id": 256,
    "eos_token_id": 257,
}
IMAGE: dict[str, Any] = {
    "hidden_size": IMAGE_DIM,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 32,
}
SCHEDULER: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
INIT_SEED = 20251031
RECIPE = {  # the name of its folder has the hash of this
    "transformer": TRANSFORMER,
    "vae": VAE,
    "text": TEXT,
    "image": IMAGE,
    "scheduler": SCHEDULER,
    "seed": INIT_SEED,
}


def ensure(cache_dir: Path) -> Path:
    """The model's folder in the cache, built if absent; safe against two writers and against a crash."""
    folder = cache_dir / "models" / f"tiny-{content_hash(RECIPE, 12)}"
    if not folder.is_dir():
        with whole_folder(folder) as temporary:
            build_pipeline().save_pretrained(temporary)
    return folder


def build_pipeline() -> Any:
    """A WanImageToVideoPipeline with seeded random weights; the caller's random state is untouched."""
    quiet_transformers()
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanTransformer3DModel
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    from cinelora import distributed

    distributed.quiet_deepspeed()  # which diffusers loads when it saves
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INIT_SEED)
        transformer = WanTransformer3DModel(**{**TRANSFORMER, "patch_size": tuple(TRANSFORMER["patch_size"])})
        vae = AutoencoderKLWan(**VAE)
        text_encoder = UMT5EncoderModel(UMT5Config(**TEXT))
        image_encoder = CLIPVisionModel(CLIPVisionConfig(**IMAGE))
    parts: tuple[Any, ...] = (transformer, vae, text_encoder, image_encoder)
    for part in parts:
        part.eval()
    return WanImageToVideoPipeline(
        tokenizer=byte_tokenizer(),
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        image_processor=image_processor(),
        transformer=transformer,
        vae=vae,
        scheduler=UniPCMultistepScheduler(**SCHEDULER),
    )


def quiet_transformers() -> None:
    """No progress bars among our lines, and no advice to install torchvision, which would break the stack."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def byte_tokenizer() -> Any:
    """Byte-level tokenizer: 256 bytes, pad 256, end 257, unknown 258; the end token closes every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    vocabulary |= {"<pad>": 256, "</s>": 257, "<unk>": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 257)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def image_processor() -> Any:
    """CLIP preprocessing at the towers' size: shorter side to 32 pixels, centre crop."""
    from transformers import CLIPImageProcessorPil  # the plain name needs torchvision, which must stay away

    size = IMAGE["image_size"]
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, do_convert_rgb=True
    )
