"""A checkpoint that is absent, incomplete or of another model: one line with the remedy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import ModelConfig
from cinelora.wan.checkpoint import SHIPPED, model_folder, weight_files

HUB, REVISION = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "b184e23a8a16b20f108f727c902e769e873ffc73"
FETCH = f"hf download {HUB} --revision {REVISION}"
DENOISER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A complete checkpoint, to be damaged."""
    return shutil.copytree(SHIPPED["small"], tmp_path / "model")


def opened(place: Path) -> Path:
    return model_folder(ModelConfig(path=str(place), hub=HUB, revision=REVISION), place.parent)


def test_a_whole_checkpoint_passes(place: Path) -> None:
    assert opened(place) == place
    assert len(set(weight_files(place / "transformer").values())) == 1


def drop(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).unlink()


def drop_folder(name: str) -> Callable[[Path], None]:
    return lambda place: shutil.rmtree(place / name)


def truncate(name: str, size: int) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes((place / name).read_bytes()[:size])


def lose_shards(place: Path) -> None:
    """As an interrupted download leaves it: the index and the second of three shards."""
    names = [f"diffusion_pytorch_model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
    (place / DENOISER).rename(place / "transformer" / names[1])
    weights = {f"tensor{index}": name for index, name in enumerate(names)}
    (place / f"{DENOISER}.index.json").write_text(json.dumps({"weight_map": weights}))


def pickled(place: Path) -> None:
    (place / DENOISER).rename(place / "transformer" / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (drop_folder("vae"), "vae missing"),
        (drop("scheduler/scheduler_config.json"), "scheduler/scheduler_config.json missing"),
        (drop("tokenizer/tokenizer.json"), "tokenizer/tokenizer.json or spiece.model missing"),
        (drop("image_encoder/model.safetensors"), "image_encoder/model.safetensors missing"),
        (
            lose_shards,
            "transformer/diffusion_pytorch_model-00001-of-00003.safetensors and 1 more of 3 missing",
        ),
        (pickled, f"{DENOISER} missing; only safetensors are read, no .bin"),
        (truncate(DENOISER, 100_000), f"{DENOISER} is no complete safetensors file (100000 of "),
        (truncate(DENOISER, 100), f"{DENOISER} is no complete safetensors file (100 bytes: a pointer"),
        (truncate("vae/diffusion_pytorch_model.safetensors", 4), "vae/diffusion_pytorch_model.safetensors is no compl"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_fetches_it(
    place: Path, harm: Callable[[Path], None], said: str
) -> None:
    harm(place)
    with pytest.raises(UserError) as raised:
        opened(place)
    text = str(raised.value)
    assert text.startswith(f"model.path={place}: {said}") and text.endswith(f"; fetch: {FETCH} --local-dir {place}")
    assert "\n" not in text


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"no such folder; fetch: {FETCH} --local-dir {tmp_path / 'none'}$"):
        opened(tmp_path / "none")


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        (
            "transformer",
            {"in_channels": 16},
            "transformer has in_channels 16, Wan2.1 I2V has 36: a text-to-video model",
        ),
        ("transformer", {"in_channels": 48}, "transformer has in_channels 48, Wan2.1 I2V has 36: Wan2.2 TI2V"),
        ("transformer", {"image_dim": None}, "transformer has no image_dim: no image branch"),
        ("transformer", {"image_dim": None, "added_kv_proj_dim": None}, "has no image_dim and no added_kv_proj_dim"),
        ("transformer", {"pos_embed_seq_len": 514}, "wants a first and a last frame"),
        ("transformer", {"_class_name": "WanVACETransformer3DModel"}, "_class_name WanVACETransformer3DModel, Wan2.1"),
        ("vae", {"z_dim": 48}, "vae has z_dim 48, Wan2.1 I2V has 16: Wan2.2 TI2V"),
    ],
)
def test_another_model_is_recognised_even_where_parts_are_missing(
    place: Path, part: str, changes: dict[str, object], said: str
) -> None:
    path = place / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    shutil.rmtree(place / "image_encoder")
    with pytest.raises(UserError) as raised:
        opened(place)
    assert said in str(raised.value) and str(raised.value).endswith(f"like that of hf download {HUB}")


def test_two_transformers_are_wan22(place: Path) -> None:
    (place / "transformer_2").mkdir()
    with pytest.raises(UserError, match="second transformer: this is Wan2.2"):
        opened(place)


def test_the_hubs_own_cache(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is found by its revision; if absent or incomplete, the message has the command that fetches it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = ModelConfig(path="", hub=HUB, revision=REVISION)
    with pytest.raises(UserError, match=f"not in the hub's cache; fetch: {FETCH}; or have it elsewhere: model.path="):
        model_folder(config, tmp_path)
    snapshot = tmp_path / f"models--{HUB.replace('/', '--')}" / "snapshots" / REVISION
    shutil.copytree(place, snapshot)
    assert model_folder(config, tmp_path) == snapshot
    (snapshot / DENOISER).unlink()
    with pytest.raises(UserError, match=rf"^model.hub={HUB} in .*: {DENOISER} missing; fetch: {FETCH}$"):
        model_folder(config, tmp_path)
    with pytest.raises(UserError, match="^model.path=: give a folder"):
        model_folder(ModelConfig(path=""), tmp_path)


def test_checking_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cinelora.core.config import ModelConfig\n"
        "from cinelora.wan.checkpoint import UserError, model_folder\n"
        f"try: model_folder(ModelConfig(path='', hub={HUB!r}), Path('.'))\n"
        "except UserError: print('torch' in sys.modules)"
    )
    environment = {"HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "False"
