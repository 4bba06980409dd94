"""Adapters on one resident base: each as a fresh pipeline computes it, and the base as it was, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanImageToVideoPipeline

from cinelora.core.cli import UserError
from cinelora.core.config import Dtype
from cinelora.core.seeds import draw_noise
from cinelora.wan.checkpoint import model_folder
from cinelora.wan.loading import CACHE_LINE, TORCH_DTYPE, load_transformer
from cinelora.wan.lora import AdapterSwitch, detach
from tests import tiny_study
from tests.cinelora.render.rendering import LORAS, save


@pytest.fixture(scope="module")
def folder(study_root: Path) -> Path:
    return model_folder(tiny_study.tiny_config(study_root).model, study_root / "cache")


@pytest.fixture(scope="module")
def files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, base = tmp_path_factory.mktemp("adapters"), load_transformer(folder, Dtype.float32)
    return {name: save(base, root / name.replace(" ", "-"), settings) for name, settings in LORAS.items()}


@torch.no_grad()
def output(transformer: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    inputs = {
        "hidden_states": draw_noise((1, 36, 3, 4, 4), "x").to(dtype),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": draw_noise((1, 512, 64), "text").to(dtype),
        "encoder_hidden_states_image": draw_noise((1, 17, 64), "image").to(dtype),
    }
    found: torch.Tensor = transformer(**inputs, return_dict=False)[0]
    return found


def fresh(folder: Path, dtype: torch.dtype, *adapters: Path) -> Any:
    """The denoiser of a stock pipeline that loaded these adapters."""
    pipeline = WanImageToVideoPipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
    for index, adapter in enumerate(adapters):
        pipeline.load_lora_weights(adapter.parent, weight_name=adapter.name, adapter_name=str(index))
    if len(adapters) > 1:
        pipeline.transformer.set_adapters([str(index) for index in range(len(adapters))])
    aligned = {name: tensor.clone() for name, tensor in pipeline.transformer.state_dict().items()}
    pipeline.transformer.load_state_dict(
        aligned, assign=True
    )  # from wherever its files were mapped, see `loading._aligned`
    return pipeline.transformer


@pytest.mark.parametrize("dtype", list(Dtype))
def test_switching_equals_a_fresh_pipeline(folder: Path, files: dict[str, Path], dtype: Dtype) -> None:
    """Ranks 2 and 4, alpha unlike the rank, rsLoRA, three target sets; then two of them together."""
    kind = TORCH_DTYPE[dtype]
    base = load_transformer(folder, dtype)
    names, before = list(base.state_dict()), output(base, kind)
    resident = AdapterSwitch(base, [*files.values(), *files.values()])  # none is loaded twice
    assert torch.equal(output(base, kind), before), "none is active when loaded"
    choices = [[files[name]] for name in (*files, "rank 4")] + [[files["rank 4"], files["alpha 3"]]]
    seen = []
    for choice in choices:
        resident.use(choice)
        seen.append(output(base, kind))
        assert torch.equal(seen[-1], output(fresh(folder, kind, *choice), kind)), choice
        assert (seen[-1] - before).abs().max() > 1e-2
        resident.use([])
        assert torch.equal(output(base, kind), before), "the base again, to the bit"
    assert torch.equal(seen[0], seen[3]) and len({tuple(each.flatten().tolist()) for each in seen}) == 4
    detach(base)
    assert list(base.state_dict()) == names and torch.equal(output(base, kind), before)


def test_files_that_do_not_fit(folder: Path, files: dict[str, Path], tmp_path: Path) -> None:
    base = load_transformer(folder, Dtype.float32)
    with pytest.raises(UserError, match="missing; give the adapter of a finished trial"):
        AdapterSwitch(base, [tmp_path / "absent.safetensors"])
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(UserError, match="is no adapter of this base"):
        AdapterSwitch(base, [tmp_path / "text.safetensors"])
    with pytest.raises(KeyError):
        AdapterSwitch(base, []).use([files["rank 4"]])


def test_weights_lie_where_their_address_does_not_round(folder: Path) -> None:
    """Otherwise the same weights, moved by FSDP to other addresses, give other last bits."""
    base = load_transformer(folder, Dtype.float32)
    assert {parameter.data_ptr() % CACHE_LINE for parameter in base.parameters()} == {0}
