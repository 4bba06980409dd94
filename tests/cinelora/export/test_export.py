"""Exported adapters compute what was trained, under the names of other programs, and carry a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel
from safetensors.torch import load_file

from cinelora.adopt.attach import save_as_own
from cinelora.adopt.read import read_adapter
from cinelora.core.config import Dtype, ModelConfig, Scaling, TargetSet
from cinelora.core.files import write_json
from cinelora.core.paths import ADAPTER_FILE
from cinelora.core.records import TrialResult
from cinelora.core.seeds import draw_noise
from cinelora.export.__main__ import main
from cinelora.export.formats import FORMATS
from cinelora.wan import lora
from cinelora.wan.checkpoint import model_fingerprint, model_folder
from cinelora.wan.loading import load_transformer
from sweeps.plan import trial_spec
from tests import tiny_study

RANK, ALPHA = 4, 12.0
EACH = [(scaling, TargetSet.cross) for scaling in Scaling] + [(Scaling.rslora, targets) for targets in TargetSet]


@pytest.fixture(scope="module")
def folder(study_root: Path) -> Path:
    return model_folder(ModelConfig(), study_root / "cache")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    return WanImageToVideoPipeline.from_pretrained(folder, local_files_only=True)


@pytest.fixture
def stock(pipeline: Any) -> Iterator[Any]:
    """The stock pipeline without adapter, before and after."""
    yield pipeline
    pipeline.unload_lora_weights()


def velocity(transformer: Any) -> torch.Tensor:
    """The denoiser's output for fixed inputs."""
    inputs = {
        "hidden_states": draw_noise((1, 36, 3, 4, 6), "hidden"),
        "timestep": torch.tensor([700.0]),
        "encoder_hidden_states": draw_noise((1, 512, 64), "text"),
        "encoder_hidden_states_image": draw_noise((1, 17, 64), "image"),
    }
    with torch.no_grad():
        return transformer(**{name: each.to(transformer.device) for name, each in inputs.items()}, return_dict=False)[0]


def finished(root: Path, folder: Path, scaling: Scaling, targets: TargetSet, **changes: Any) -> tuple[Path, Any]:
    """(folder of a finished trial with random B, the velocity under its adapter)."""
    config = tiny_study.tiny_config(
        root / "clips", lora__rank=RANK, lora__alpha=ALPHA, lora__scaling=scaling.value, lora__targets=targets.value,
        **changes,
    )  # fmt: skip
    spec = trial_spec(config, {"model": model_fingerprint(folder, ""), "data": "d" * 64})
    trial = root / "study" / "trials" / spec.trial_id
    write_json(trial / "spec.json", spec.to_json())
    transformer = load_transformer(folder, Dtype.float32)
    parameters = lora.attach(transformer, config.lora, seed=1)
    for name, parameter in parameters:
        if ".lora_B" in name:
            parameter.data = draw_noise(tuple(parameter.shape), name) * 0.05
    lora.save_adapter(trial / "adapter", {name: each.data for name, each in parameters}, config.lora)
    result = TrialResult(
        trial_id=spec.trial_id, method="lora", arm="", rank=RANK, alpha=config.lora.effective_alpha,
        scale=config.lora.scale, scaling=scaling.value, targets=targets.value, learning_rate=0.003, seed=0, steps=6,
        trainable_parameters=12288, adapter_bytes=1, adapter_sha256="a" * 64, train_loss=0.3, heldout_loss=0.25,
        other_loss=None, clips=4, seconds={}, seconds_per_step=0.1, peak_memory_gib=1.0, world_size=1, restarts=0,
        protocol={}, unavailable={},
    )  # fmt: skip
    write_json(trial / "result.json", result.to_json())
    return trial, velocity(transformer)


@pytest.fixture
def trial(tmp_path: Path, folder: Path) -> Path:
    return finished(tmp_path, folder, Scaling.constant, TargetSet.cross)[0]


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
@pytest.mark.parametrize(("scaling", "targets"), EACH)
def test_the_stock_pipeline_computes_the_same(
    tmp_path: Path, folder: Path, stock: Any, scaling: Scaling, targets: TargetSet, layout: str
) -> None:
    trial, trained = finished(tmp_path, folder, scaling, targets)
    out = tmp_path / "out" / "film.safetensors"
    base = velocity(stock.transformer)
    assert main([str(trial), "--out", str(out), "--format", layout]) == 0
    stock.load_lora_weights(out.parent, weight_name=out.name)
    loaded = velocity(stock.transformer)
    assert torch.allclose(loaded, trained, atol=1e-6, rtol=0)
    assert (trained - base).abs().max() > 1e-3


@pytest.mark.parametrize(("scaling", "targets"), EACH)
def test_a_merged_base_computes_the_same(
    tmp_path: Path, folder: Path, study_root: Path, scaling: Scaling, targets: TargetSet
) -> None:
    trial, trained = finished(tmp_path, folder, scaling, targets)
    out, cache = tmp_path / "out" / "merged", study_root / "cache"
    assert main([str(trial), "--out", str(out), "--merge", "--cache", str(cache)]) == 0
    merged: Any = WanTransformer3DModel.from_pretrained(out, use_safetensors=True, local_files_only=True)
    assert torch.allclose(velocity(merged), trained, atol=1e-6, rtol=0)
    assert {path.suffix for path in out.iterdir()} == {".safetensors", ".json", ".md"}


def test_names_of_the_original_code(tmp_path: Path, folder: Path) -> None:
    """All twelve layers of a block and the eight outside; A as trained, the scale in B, no alpha."""
    trial, _ = finished(tmp_path, folder, Scaling.rslora, TargetSet.linear)
    main([str(trial), "--out", str(tmp_path / "out.safetensors"), "--format", "comfyui"])
    exported = load_file(tmp_path / "out.safetensors")
    layers = [f"self_attn.{name}" for name in "qkvo"] + [f"cross_attn.{name}" for name in "qkvo"]
    layers += ["cross_attn.k_img", "cross_attn.v_img", "ffn.0", "ffn.2"]
    names = [f"blocks.{block}.{layer}" for block in range(2) for layer in layers]
    names += ["time_embedding.0", "time_embedding.2", "time_projection.1", "text_embedding.0", "text_embedding.2"]
    names += ["img_emb.proj.1", "img_emb.proj.3", "head.head"]
    assert set(exported) == {f"diffusion_model.{name}.lora_{which}.weight" for name in names for which in "AB"}
    ours = load_file(trial / "adapter" / "pytorch_lora_weights.safetensors")
    pairs = {"self_attn.o": "attn1.to_out.0", "cross_attn.v_img": "attn2.add_v_proj", "ffn.2": "ffn.net.2"}
    for theirs, layer in pairs.items():
        a, b = (exported[f"diffusion_model.blocks.1.{theirs}.lora_{which}.weight"] for which in "AB")
        assert torch.equal(a, ours[f"transformer.blocks.1.{layer}.lora_A.weight"])
        assert torch.allclose(b, ours[f"transformer.blocks.1.{layer}.lora_B.weight"] * ALPHA / RANK**0.5, rtol=1e-6)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("scaling", Scaling)
def test_every_layout_that_is_written_is_read_back(tmp_path: Path, folder: Path, layout: str, scaling: Scaling) -> None:
    trial, trained = finished(tmp_path, folder, scaling, TargetSet.linear)
    out = tmp_path / "out" / "film.safetensors"
    main([str(trial), "--out", str(out), "--format", layout])
    transformer = load_transformer(folder, Dtype.float32)
    adapter = read_adapter(out, transformer.config)
    assert adapter.layout == {"diffusers": "diffusers", "comfyui": "ComfyUI", "musubi": "musubi"}[layout]
    save_as_own(tmp_path / "adopted", adapter)
    lora.load_adapter(transformer, tmp_path / "adopted" / ADAPTER_FILE)
    assert torch.allclose(velocity(transformer), trained, atol=1e-6, rtol=0)


def test_diffusers_reads_a_whole_musubi_file_alike(tmp_path: Path, folder: Path, stock: Any) -> None:
    trial, trained = finished(tmp_path, folder, Scaling.constant, TargetSet.block)
    out = tmp_path / "out" / "film.safetensors"
    main([str(trial), "--out", str(out), "--format", "musubi"])
    stock.load_lora_weights(out.parent, weight_name=out.name)
    assert torch.allclose(velocity(stock.transformer), trained, atol=1e-6, rtol=0)
    ours, theirs = load_file(trial / "adapter" / ADAPTER_FILE), load_file(out)
    assert torch.equal(
        theirs["lora_unet_blocks_1_ffn_0.lora_up.weight"], ours["transformer.blocks.1.ffn.net.0.proj.lora_B.weight"]
    )
    assert theirs["lora_unet_blocks_1_ffn_0.alpha"] == ALPHA


def test_equal_adapters_give_equal_bytes(trial: Path, tmp_path: Path) -> None:
    for layout in FORMATS:
        for place in ("one", "two"):
            out = tmp_path / layout / place / "film.safetensors"
            main([str(trial), "--out", str(out), "--format", layout])
        one, two = (tmp_path / layout / place for place in ("one", "two"))
        assert {path.name: path.read_bytes() for path in one.iterdir()} == {
            path.name: path.read_bytes() for path in two.iterdir()
        }


# --- the card ---

TABLE = """# Rank against quality: demo

| rank | alpha | kvd |
|:--|--:|--:|
| base | - | 2.75 |
| 4 | 4 | 0.9 |
| 4† | 12 | 0.74 [0.61..0.85] |
| real clips | - | - |

Scores are means over clips.
"""
ROWS = """row,rank,alpha,scale,scaling,targets,learning_rate
base,0,,,,,
lora,4,4,1,alpha_equals_rank,cross,0.003
lora,4,12,3,constant,cross,0.003
real clips,,,,,,
"""


def card(trial: Path, out: Path, *options: str) -> str:
    assert main([str(trial), "--out", str(out / "film.safetensors"), *options]) == 0
    return (out / "README.md").read_text()


def test_the_card_holds_the_facts_of_the_training(tmp_path: Path, folder: Path) -> None:
    hub = {"model__hub": "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "model__revision": "b184e23"}
    trial, _ = finished(tmp_path, folder, Scaling.constant, TargetSet.cross, **hub)
    text = card(trial, tmp_path / "out", "--licence", "apache-2.0")
    front = text.split("---\n")[1]
    fields = dict(line.split(": ", 1) for line in front.splitlines())
    assert json.loads(fields["license"]) == "apache-2.0"
    assert json.loads(fields["base_model"]) == "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
    for fact in (
        "revision | `b184e23`", "rank | 4 |", "alpha | 12 (rule constant)", "scale of the update | 3 |",
        "targets | cross: 12,288 parameters", "6 steps of 4 clips", f"fingerprint of the clips | `{'d' * 64}`",
        'weight_name="film.safetensors"', "no report yet",
    ):  # fmt: skip
        assert fact in text, fact


def test_the_card_holds_the_row_of_the_study(trial: Path, tmp_path: Path) -> None:
    report = trial.parent.parent / "report"
    report.mkdir()
    (report / "rank_table.md").write_text(TABLE)
    (report / "rank_table.csv").write_text(ROWS)
    text = card(trial, tmp_path / "out")
    assert 'license: "unknown: set it"' in text
    assert "| 4† | 12 | 0.74 [0.61..0.85] |" in text and "| base | - | 2.75 |" in text
    assert "| 4 | 4 | 0.9 |" not in text and "Scores are means over clips." in text
    (report / "rank_table.csv").write_text(ROWS.replace(",4,4,1,alpha_equals_rank", ",4,12,3,constant"))
    assert "has no row for this adapter alone" in card(trial, tmp_path / "two")


# --- what cannot be exported ---


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cinelora: ") and error.count("\n") == 1
    return error


def test_trials_without_adapter(
    trial: Path, tmp_path: Path, study_root: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    assert "holds no spec.json" in refused(capsys, tmp_path, "--out", out)
    spec = json.loads((trial / "spec.json").read_text())
    for method in ("base", "full"):
        write_json(trial / "spec.json", {**spec, "config": {**spec["config"], "method": method}})
        assert f"has no adapter, it is the trial `{method}`" in refused(capsys, trial, "--out", out)
    write_json(trial / "spec.json", {key: value for key, value in spec.items() if key != "config"})
    assert "of another version" in refused(capsys, trial, "--out", out)
    write_json(trial / "spec.json", spec)
    shutil.move(trial / "adapter", tmp_path / "aside")
    assert "pytorch_lora_weights.safetensors: missing" in refused(capsys, trial, "--out", out)
    (trial / "result.json").unlink()
    assert "when it has finished" in refused(capsys, trial, "--out", out)
    assert not out.exists() and not (tmp_path / "README.md").exists()


def test_a_damaged_adapter_is_not_copied(trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trial / "adapter" / ADAPTER_FILE
    path.write_bytes(path.read_bytes()[:-1])
    error = refused(capsys, trial, "--out", tmp_path / "out" / "film.safetensors")
    assert f"{path}: is no complete safetensors file (" in error and not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_unknown_options_are_refused(
    trial: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "invalid choice: 'kohya'" in refused(capsys, trial, "--out", tmp_path / "a.safetensors", "--format", "kohya")
    assert "must end in .safetensors" in refused(capsys, trial, "--out", tmp_path / "a.bin")
    assert "in diffusers layout only" in refused(
        capsys, trial, "--out", tmp_path / "m", "--merge", "--format", "comfyui"
    )
    for name in ("a.safetensors", "README.md"):
        (tmp_path / name).write_text("mine")
        assert f"{name} exists" in refused(capsys, trial, "--out", tmp_path / "a.safetensors")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "m").mkdir()
    assert "exists" in refused(capsys, trial, "--out", tmp_path / "m", "--merge")


def test_merging_into_another_base_is_refused(
    trial: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    path = other / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("3.0", "5.0"))
    error = refused(capsys, trial, "--out", tmp_path / "m", "--merge", "--base", other)
    assert "is not the base model of trial" in error and not (tmp_path / "m").exists()
