"""The settings of PEFT beside a LoRA file, or in it: each fault is one line, and none changes a scale in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from cinelora.adopt.read import read_adapter
from cinelora.core.cli import UserError
from cinelora.wan.tiny import TRANSFORMER

NAME = "base_model.model.blocks.0.attn1.to_q"
TENSORS = {f"{NAME}.lora_A.weight": torch.ones(4, 64), f"{NAME}.lora_B.weight": torch.ones(64, 4)}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("[1]", "its LoRA settings are list, no mapping"),
        (b'{"x": "\xff"}', "its LoRA settings are no JSON"),
        ({"lora_alpha": "abc"}, "have alpha 'abc' for blocks.0.attn1.to_q"),
        ('{"lora_alpha": NaN}', "have alpha nan"),
        ({"lora_alpha": True}, "have alpha True"),
        ({"lora_alpha": 4, "alpha_pattern": ["x"]}, r"have alpha_pattern=\['x'\], no mapping"),
        ({"lora_alpha": 4, "alpha_pattern": {"(": 4}}, "no valid alpha_pattern"),
        ({"lora_alpha": 4, "alpha_pattern": {"to_q": "x"}}, "have alpha 'x'"),
        ({"lora_alpha": 4, "r": 8}, "say r=8, blocks.0.attn1.to_q has rank 4"),
        ({"lora_alpha": 4, "use_dora": True}, "say use_dora"),
        ({"lora_alpha": 4, "init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4 changed the base"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_settings_with_a_fault_are_one_line(tmp_path: Path, settings: Any, line: str, beside: bool) -> None:
    text = json.dumps(settings) if isinstance(settings, dict) else settings
    file = tmp_path / "adapter_model.safetensors"
    if beside:
        (tmp_path / "adapter_config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    elif isinstance(text, bytes):
        pytest.skip("metadata is UTF-8")
    save_file(TENSORS, file, metadata=None if beside else {"lora_adapter_metadata": text})
    with pytest.raises(UserError, match=line) as caught:
        read_adapter(file, TRANSFORMER)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_settings_that_change_nothing_of_the_scale(tmp_path: Path) -> None:
    settings = {
        "r": 8,
        "rank_pattern": {"to_q": 4},
        "lora_alpha": 8,
        "init_lora_weights": "gaussian",
        "use_dora": False,
    }
    save_file(TENSORS, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert read_adapter(tmp_path / "adapter_model.safetensors", TRANSFORMER).lora.scale == 2


@pytest.mark.parametrize("shape", [(2,), (0,)])
def test_an_alpha_is_one_number(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_file(TENSORS | {f"{NAME}.alpha": torch.ones(shape)}, tmp_path / "film.safetensors")
    with pytest.raises(UserError, match=rf"to_q.alpha has shape \({shape[0]},\), not one number"):
        read_adapter(tmp_path / "film.safetensors", TRANSFORMER)


def test_a_remark_names_an_adapter_of_zeros(tmp_path: Path) -> None:
    for value, empty in ((0.0, True), (1.0, False)):
        zeros = {name: torch.full_like(each, value if "lora_B" in name else 1) for name, each in TENSORS.items()}
        save_file(zeros, tmp_path / "film.safetensors")
        remarks = read_adapter(tmp_path / "film.safetensors", TRANSFORMER).remarks
        assert any("all zero: it changes nothing" in remark for remark in remarks) is empty


def test_what_bears_the_name_of_a_safetensors_file_and_is_none(tmp_path: Path) -> None:
    file = tmp_path / "film.safetensors"
    for write, line in (
        (lambda: torch.save(TENSORS, file), "a pickle, which can run code .* convert it"),
        (lambda: torch.save(TENSORS, file, _use_new_zipfile_serialization=False), "a pickle, which can run code"),
        (lambda: file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
        (lambda: file.write_bytes(save(TENSORS)[:-1]), "is no complete safetensors file"),
    ):
        write()
        with pytest.raises(UserError, match=line):
            read_adapter(file, TRANSFORMER)
