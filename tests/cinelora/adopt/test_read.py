"""LoRA files in the layout of every trainer, built by name, compute what the same adapter in diffusers layout does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from cinelora.adopt.attach import save_as_own
from cinelora.adopt.layouts import linear_layers
from cinelora.adopt.read import read_adapter
from cinelora.core.cli import UserError
from cinelora.core.config import LoraConfig, Scaling, TargetSet
from cinelora.core.files import read_json
from cinelora.core.paths import ADAPTER_FILE
from cinelora.core.seeds import draw_noise
from cinelora.wan import lora
from cinelora.wan.checkpoint import SHAPES
from cinelora.wan.tiny import TRANSFORMER

RANK, ALPHA = 4, 8.0  # a scale of 2: multiplied into B without rounding
ORIGINAL = [  # diffusers -> the original Wan code, written out
    (r"attn1\.to_([qkv])$", r"self_attn.\1"), (r"attn1\.to_out\.0$", "self_attn.o"),
    (r"attn2\.to_([qkv])$", r"cross_attn.\1"), (r"attn2\.to_out\.0$", "cross_attn.o"),
    (r"attn2\.add_([kv])_proj$", r"cross_attn.\1_img"), (r"ffn\.net\.0\.proj$", "ffn.0"), (r"ffn\.net\.2$", "ffn.2"),
    (r"^condition_embedder\.time_embedder\.linear_1$", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2$", "time_embedding.2"),
    (r"^condition_embedder\.time_proj$", "time_projection.1"),
    (r"^condition_embedder\.text_embedder\.linear_1$", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2$", "text_embedding.2"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj$", "img_emb.proj.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2$", "img_emb.proj.3"), (r"^proj_out$", "head.head"),
]  # fmt: skip


def original(layer: str) -> str:
    return next(re.sub(ours, theirs, layer) for ours, theirs in ORIGINAL if re.search(ours, layer))


def flat(layer: str) -> str:
    return original(layer).replace(".", "_")


Naming = Callable[[str], tuple[str, str, str]]  # layer -> (key of A, key of B, key of alpha; "" where none is written)
PLAIN = "lora_A.weight", "lora_B.weight"
LAYOUTS: dict[str, tuple[str, Callable[[str], str], tuple[str, str], bool]] = {  # prefix, name, keys, alpha tensors
    "diffusers": ("transformer.", str, PLAIN, False),
    "diffusers without prefix": ("", str, PLAIN, False),
    "PEFT": ("base_model.model.", str, PLAIN, False),
    "ComfyUI": ("diffusion_model.", original, PLAIN, False),
    "ComfyUI, lora_up": ("diffusion_model.", original, ("lora_down.weight", "lora_up.weight"), True),
    "SimpleTuner for ComfyUI": ("diffusion_model.", str, PLAIN, True),
    "DiffSynth": ("", original, ("lora_A.default.weight", "lora_B.default.weight"), False),
    "original names": ("", original, PLAIN, False),
    "musubi": ("lora_unet_", flat, ("lora_down.weight", "lora_up.weight"), True),
    "VideoX-Fun": ("lora_unet__", flat, ("lora_down.weight", "lora_up.weight"), True),
    "base_model.model.transformer. prefix, diffusers names, lora_B.NAME": (
        "base_model.model.transformer.", str, ("lora_A.film.weight", "lora_B.film.weight"), False,
    ),
    "pipe.dit. prefix, original names, lora_B.NAME": (
        "pipe.dit.", original, ("lora_A.default.weight", "lora_B.default.weight"), False,
    ),
}  # fmt: skip


def factors(sizes: dict[str, tuple[int, int]], rank: int = RANK) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        layer: (draw_noise((rank, inner), "a", layer) / inner**0.5, draw_noise((outer, rank), "b", layer) / 8)
        for layer, (inner, outer) in sizes.items()
    }


def spell(name: str, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], alpha: float = ALPHA) -> dict[str, Any]:
    """The tensors of a file in the layout `name`; where it holds no alpha, the scale is in B."""
    prefix, named, (down, up), alphas = LAYOUTS[name]
    tensors: dict[str, Any] = {}
    for layer, (a, b) in pairs.items():
        at = f"{prefix}{named(layer)}."
        tensors |= {at + down: a, at + up: (b if alphas else b * (alpha / len(a))).contiguous()}
        tensors |= {f"{at}alpha": torch.tensor(alpha)} if alphas else {}
    return tensors


@pytest.fixture(scope="module")
def transformer() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WanTransformer3DModel(**{**TRANSFORMER, "patch_size": (1, 2, 2)}).eval()


def velocity(transformer: Any) -> torch.Tensor:
    with torch.no_grad():
        return transformer(
            hidden_states=draw_noise((1, 36, 3, 4, 6), "hidden"),
            timestep=torch.tensor([700.0]),
            encoder_hidden_states=draw_noise((1, 512, 64), "text"),
            encoder_hidden_states_image=draw_noise((1, 17, 64), "image"),
            return_dict=False,
        )[0]


@pytest.fixture
def bare(transformer: Any) -> Iterator[Any]:
    yield transformer
    lora.detach(transformer)


def adopted_velocity(transformer: Any, file: Path, folder: Path, alpha: float | None = None) -> torch.Tensor:
    save_as_own(folder, read_adapter(file, transformer.config, alpha))
    lora.load_adapter(transformer, folder / ADAPTER_FILE)
    found = velocity(transformer)
    lora.detach(transformer)
    return found


def applied(transformer: Any, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], scale: float) -> torch.Tensor:
    """What the base computes with W + scale B A in place of W."""
    weights = {layer: transformer.get_submodule(layer).weight for layer in pairs}
    before = {layer: weight.data for layer, weight in weights.items()}
    for layer, (a, b) in pairs.items():
        weights[layer].data = (before[layer].double() + scale * (b.double() @ a.double())).float()
    found = velocity(transformer)
    for layer, weight in weights.items():
        weight.data = before[layer]
    return found


def test_sizes_of_the_layers_are_those_of_the_model(transformer: Any) -> None:
    for config in (dict(transformer.config), read_json(next(iter(SHAPES.values())) / "transformer" / "config.json")):
        with torch.device("meta"):
            model = WanTransformer3DModel.from_config(config)
        linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        assert linear_layers(config) == {n: (m.in_features, m.out_features) for n, m in linears.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_computes_what_the_same_adapter_does_in_ours(name: str, bare: Any, tmp_path: Path) -> None:
    pairs = factors(linear_layers(bare.config))
    save_file(spell(name, pairs), tmp_path / "film.safetensors")
    adapter = read_adapter(tmp_path / "film.safetensors", bare.config)
    assert (adapter.layout, len(adapter.layers), adapter.dtypes) == (name, len(pairs), ("F32",))
    assert (adapter.lora.rank, adapter.lora.targets) == (RANK, TargetSet.linear)
    assert adapter.lora.effective_alpha == (ALPHA if LAYOUTS[name][3] else RANK)
    own = tmp_path / "own"
    lora.save_adapter(
        own,
        {f"{layer}.lora_{part}.weight": t for layer, ab in pairs.items() for part, t in zip("AB", ab, strict=True)},
        LoraConfig(rank=RANK, scaling=Scaling.constant, alpha=ALPHA, targets=TargetSet.linear),
    )
    lora.load_adapter(bare, own / ADAPTER_FILE)
    ours = velocity(bare)
    lora.detach(bare)
    found = adopted_velocity(bare, tmp_path / "film.safetensors", tmp_path / "adopted")
    assert (found - ours).abs().max() < 1e-6
    assert (applied(bare, pairs, ALPHA / RANK) - ours).abs().max() < 1e-5 < (velocity(bare) - ours).abs().max()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_key_of_the_full_size_is_matched(name: str, tmp_path: Path) -> None:
    config = read_json(next(iter(SHAPES.values())) / "transformer" / "config.json")
    sizes = linear_layers(config)
    pairs = {layer: (torch.zeros(1, inner), torch.ones(outer, 1)) for layer, (inner, outer) in sizes.items()}
    save_file(spell(name, pairs, 1.0), tmp_path / "film.safetensors")
    assert read_adapter(tmp_path / "film.safetensors", config).layers.keys() == sizes.keys()
    assert len(sizes) == 40 * 12 + 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_is_read_exactly(dtype: torch.dtype, bare: Any, tmp_path: Path) -> None:
    pairs = {layer: (a.to(dtype), b.to(dtype)) for layer, (a, b) in factors(linear_layers(bare.config)).items()}
    save_file(spell("musubi", pairs), tmp_path / "film.safetensors")
    for layer, a, b in read_adapter(tmp_path / "film.safetensors", bare.config).tensors():
        assert torch.equal(torch.from_numpy(a), pairs[layer][0].float())
        assert torch.equal(torch.from_numpy(b), pairs[layer][1].float())


def test_ranks_and_alphas_of_single_layers_are_kept(bare: Any, tmp_path: Path) -> None:
    sizes = {name: size for name, size in linear_layers(bare.config).items() if name.startswith("blocks.")}
    pairs = factors(sizes) | factors({"blocks.1.ffn.net.2": sizes["blocks.1.ffn.net.2"]}, rank=2)
    tensors = spell("musubi", pairs)
    tensors["lora_unet_blocks_0_self_attn_q.alpha"] = torch.tensor(2)  # musubi's converter writes integers
    save_file(tensors, tmp_path / "film.safetensors")
    adapter = read_adapter(tmp_path / "film.safetensors", bare.config)
    assert adapter.remarks == ("ranks 2 (1 layers), 4 (23 layers)",)
    found = adopted_velocity(bare, tmp_path / "film.safetensors", tmp_path / "adopted")
    scaled = {layer: (a, b * (ALPHA / len(a))) for layer, (a, b) in pairs.items()}
    scaled["blocks.0.attn1.to_q"] = (pairs["blocks.0.attn1.to_q"][0], pairs["blocks.0.attn1.to_q"][1] * 0.5)
    assert (applied(bare, scaled, 1.0) - found).abs().max() < 1e-5


def of_self(config: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return factors({name: size for name, size in linear_layers(config).items() if "attn1" in name})


def test_alpha_is_where_each_trainer_keeps_it(bare: Any, tmp_path: Path) -> None:
    tensors, config = spell("diffusers", of_self(bare.config), RANK), bare.config
    file = tmp_path / "film.safetensors"
    for metadata, alpha in (
        ({"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": 2})}, 2.0),
        ({"lora_config": json.dumps({"r": RANK, "lora_alpha": 8})}, 8.0),
        (None, float(RANK)),
    ):
        save_file(tensors, file, metadata=metadata)
        adapter = read_adapter(file, config)
        assert adapter.lora.effective_alpha == alpha
        assert bool(adapter.remarks) is (metadata is None)
    adapter = read_adapter(file, config, 6.0)
    assert (adapter.lora.effective_alpha, adapter.stated_alpha, adapter.remarks) == (6.0, 6.0, ())
    beside = tmp_path / "adapter_model.safetensors"
    save_file(spell("PEFT", of_self(config), RANK), beside)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"r": RANK, "lora_alpha": 2, "use_rslora": True, "alpha_pattern": {"to_q": 1}})
    )
    adapter = read_adapter(beside, config)
    assert adapter.layers["blocks.1.attn1.to_q"].alpha == 1
    assert (adapter.lora.scale, adapter.remarks) == (1, ("alphas 1, 2 in different layers",))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 2, "use_rslora": True}))
    assert read_adapter(beside, config).lora.scaling is Scaling.rslora
    assert read_adapter(beside, config).lora.scale == 2 / RANK**0.5
    with pytest.raises(UserError, match=r"alpha=6 is stated, the file has 2 \(blocks.0"):
        read_adapter(beside, config, 6.0)


KEY = "lora_unet_blocks_0_self_attn_q"
ODD = {  # name -> (tensors to add to a musubi file of self-attention, or None to replace it; what the line says)
    "DoRA": ({f"{KEY}.dora_scale": torch.ones(64, 1)}, r"1 of 25 .*DoRA: 1 \(lora_unet_blocks_0_self_attn_q.dora_sc"),
    "LoKr": ({f"{KEY}.lokr_w1": torch.ones(2, 2), f"{KEY}.lokr_w2": torch.ones(2, 2)}, "2 of 26 .*LoKr: 2 "),
    "LoHa": ({f"{KEY}.hada_w1_a": torch.ones(2, 2)}, "1 of 25 .*LoHa: 1 "),
    "biases": ({"diffusion_model.blocks.0.self_attn.q.diff_b": torch.ones(64)}, "changes of norms, weights or biases"),
    "norms": ({"diffusion_model.blocks.0.norm3.diff": torch.ones(64)}, "changes of norms, weights or biases: 1"),
    "patches": ({"diffusion_model.patch_embedding.lora_A.weight": torch.ones(1, 9)}, "the patch embedding: 1"),
    "Wan2.2": ({"transformer_2.blocks.0.attn1.to_q.lora_A.weight": torch.ones(1, 64)}, "transformers of Wan2.2: 1"),
    "more blocks": ({"lora_unet_blocks_9_ffn_0.alpha": torch.tensor(1.0)}, "of no layer of this base: 1"),
    "half a pair": ({"lora_unet_blocks_0_ffn_0.lora_down.weight": torch.ones(1, 64)}, r"has no lora_B \(lora_up\)"),
    "alone": ({"lora_unet_blocks_0_ffn_0.alpha": torch.tensor(1.0)}, r"ffn_0.alpha has no lora_B"),
    "twice": ({"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 64)}, "are one tensor"),
    "shape": (
        {f"{KEY}.lora_down.weight": torch.ones(4, 1536)},
        r"A 4x1536 .* needs RANKx64 .* made for Wan2.1 T2V 1.3B; set model",
    ),
    "alpha 0": ({f"{KEY}.alpha": torch.tensor(0.0)}, "blocks.0.attn1.to_q has alpha 0"),
    "NaN": ({f"{KEY}.lora_up.weight": torch.full((64, 4), float("nan"))}, "to_q|self_attn_q.lora_up.weight has NaN"),
    "fp8": ({f"{KEY}.lora_up.weight": torch.ones(64, 4).to(torch.float8_e4m3fn)}, "tensors of F8_E4M3"),
}


@pytest.mark.parametrize("name", ODD)
def test_no_tensor_is_left_out_in_silence(name: str, tmp_path: Path) -> None:
    more, line = ODD[name]
    save_file(spell("musubi", of_self(TRANSFORMER)) | more, tmp_path / "film.safetensors")
    with pytest.raises(UserError, match=line) as caught:
        read_adapter(tmp_path / "film.safetensors", TRANSFORMER)
    assert str(caught.value).startswith(f"{tmp_path / 'film.safetensors'}: ") and "\n" not in str(caught.value)


def test_differences_that_are_all_zero_change_nothing(tmp_path: Path) -> None:
    zeros = {
        "diffusion_model.blocks.0.norm3.diff": torch.zeros(64),
        "diffusion_model.head.head.diff_b": torch.zeros(64),
    }
    save_file(spell("musubi", of_self(TRANSFORMER)) | zeros, tmp_path / "film.safetensors")
    (remark,) = read_adapter(tmp_path / "film.safetensors", TRANSFORMER).remarks
    assert remark.startswith("2 tensors of differences are all zero and change nothing (diffusion_model.")


def test_what_the_file_seems_to_be_for(tmp_path: Path) -> None:
    sizes = {name: size for name, size in linear_layers(TRANSFORMER).items() if name.startswith("blocks.0.")}
    pairs = factors({name: size for name, size in sizes.items() if "add_" not in name})
    save_file(spell("musubi", pairs), tmp_path / "wan_high_noise.safetensors", metadata={"ss_seed": "7"})
    adapter = read_adapter(tmp_path / "wan_high_noise.safetensors", TRANSFORMER)
    assert adapter.seed == 7
    assert [remark.split(":")[0] for remark in adapter.remarks] == [
        "nothing for the image branch", "1 of 2 blocks", "its name says high_noise",
    ]  # fmt: skip


def test_files_that_are_none(tmp_path: Path) -> None:
    save_file(spell("musubi", of_self(TRANSFORMER)), tmp_path / "whole.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-9])
    (tmp_path / "text.safetensors").write_text("no")
    (tmp_path / "nothing.safetensors").write_bytes(b"")
    save_file({}, tmp_path / "empty.safetensors")
    torch.save(load_file(tmp_path / "whole.safetensors"), tmp_path / "film.pt")
    for name, line in {
        "cut.safetensors": "no complete safetensors file",
        "text.safetensors": "no complete safetensors file",
        "nothing.safetensors": "no complete safetensors file",
        "empty.safetensors": "holds no tensor",
        "film.pt": "a pickle, which can run code .* convert it",
        "gone.safetensors": "missing",
    }.items():
        with pytest.raises(UserError, match=line):
            read_adapter(tmp_path / name, TRANSFORMER)
