"""Which trials a folder or a table of LoRA files makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cinelora.core.cli import UserError
from cinelora.core.config import UNKNOWN_SEED, Method, TrialConfig
from cinelora.wan.tiny import TRANSFORMER
from launch.adopting import adopted_trials
from sweeps.plan import base_of

TRIAL = TrialConfig(method=Method.adapter)


def write(path: Path, rank: int, value: float = 1.0, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    layer = "diffusion_model.blocks.0.self_attn.q"
    tensors: dict[str, Any] = {"lora_A": torch.full((rank, 64), value), "lora_B": torch.full((64, rank), value)}
    save_file({f"{layer}.{name}.weight": each for name, each in tensors.items()}, path, metadata=metadata or None)
    return path


def test_a_folder_is_all_its_files_and_the_others_are_named(tmp_path: Path) -> None:
    write(tmp_path / "epoch10" / "adapter_model.safetensors", 4)
    write(tmp_path / "film-r8.safetensors", 8, ss_seed="7")
    (tmp_path / "train.toml").write_text("")
    (tmp_path / "state.pt").write_text("")
    trials, remarks = adopted_trials(TRIAL, str(tmp_path), TRANSFORMER)
    assert [(each.lora.rank, each.seed, each.label) for each in trials] == [(4, UNKNOWN_SEED, ""), (8, 7, "")]
    assert remarks[0].endswith("2 other files are left out: state.pt, train.toml")
    assert sum("seed unknown" in remark for remark in remarks) == 1


def test_files_that_no_seed_tells_apart_are_rows_of_their_own(tmp_path: Path) -> None:
    for epoch in (10, 20):
        write(tmp_path / f"epoch{epoch}" / "adapter_model.safetensors", 4, float(epoch))
    write(tmp_path / "film.safetensors", 8)
    write(tmp_path / "again" / "epoch10" / "adapter_model.safetensors", 4, 30.0)
    trials, remarks = adopted_trials(TRIAL, str(tmp_path), TRANSFORMER)
    names = ["again/epoch10/adapter_model", "epoch10/adapter_model", "epoch20/adapter_model", ""]
    assert [each.label for each in trials] == names
    assert sum("labelled by the file" in remark for remark in remarks) == 1


def test_a_table_says_what_the_files_do_not(tmp_path: Path) -> None:
    write(tmp_path / "loras" / "a.safetensors", 4)
    write(tmp_path / "loras" / "b.safetensors", 8)
    csv, yaml = tmp_path / "list.csv", tmp_path / "list.yaml"
    csv.write_text(
        "path,rank,alpha,seed,trainer,notes\nloras/a.safetensors,4,16,1,musubi,first try\nloras/b.safetensors\n"
    )
    yaml.write_text(
        "- {path: loras/a.safetensors, rank: 4, alpha: 16, seed: 1, trainer: musubi, notes: first try}\n"
        "- path: loras/b.safetensors\n"
    )
    for table in (csv, yaml):
        trials, _ = adopted_trials(TRIAL, str(table), TRANSFORMER)
        first, second = trials
        assert (first.lora.scale, first.seed, first.trainer, first.notes) == (4, 1, "musubi", "first try")
        assert (second.lora.scale, second.seed, second.trainer) == (1, UNKNOWN_SEED, "")
        assert Path(first.adapter) == tmp_path / "loras" / "a.safetensors"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("path,rank\na.safetensors,8\n", r"list.csv line 2: rank=8 is stated, the file has rank 4"),
        ("path,rank\na.safetensors,x\n", r"list.csv line 2: rank=x: must be a whole number"),
        ("path,alpha\na.safetensors,0\n", r"alpha=0: must be a number above 0"),
        ("path,seed\na.safetensors,-1\n", r"seed=-1: must be a whole number, 0 or more"),
        ("path,ranks\na.safetensors,4\n", r"line 2: ranks: unknown column; there are path, rank, alpha"),
        ("path,rank\n,4\n", "path is empty"),
        ("rank\n4\n", "line 1 names no column path; name one"),
        ("path;rank\na.safetensors;4\n", "names no column path; separate them by commas"),
        ("path,rank,rank\na.safetensors,4,8\n", "has two columns rank; keep one"),
        ("path,rank\na.safetensors,4,x\n", "line 2: has more cells than the head"),
        ('path,label\na.safetensors,"one\nb.safetensors,two\n', "unexpected end of data; close the quote"),
        ("path,label\na.safetensors,one\u2028two\n", r"line 2: label 'one.u2028two' holds characters"),
        ('path,label\n\n\na.safetensors,"one\ntwo"\n', r"line 5: label 'one.ntwo' holds characters"),
        ("path\na.safe\0tensors\n", r"path 'a.safe.x00tensors' holds"),
        ("path,notes\na.safetensors," + "x" * 200_000, "field larger than field limit"),
        ("path,seed\na.safetensors,9223372036854775808\n", "seed=9223372036854775808: must be .* below"),
        ("path\n", "lists no file"),
        ("path\ngone.safetensors\n", "gone.safetensors: missing"),
        ("path\na.safetensors\nb.safetensors\n", "a.safetensors and .*b.safetensors have one content; keep one"),
    ],
)
def test_a_table_with_a_fault_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.safetensors", 4)
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=line) as caught:
        adopted_trials(TRIAL, str(tmp_path / "list.csv"), TRANSFORMER)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["- {path: a.safetensors, label: 2026-13-45}", "- path: [", "- path: " + "[" * 3000, "- {path: !!x y}"]
)
def test_a_list_with_a_fault_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(UserError, match=r"list.yaml: is no YAML") as caught:
        adopted_trials(TRIAL, str(tmp_path / "list.yaml"), TRANSFORMER)
    assert "\n" not in str(caught.value)


def test_a_head_with_blanks_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", 4)
    (tmp_path / "list.csv").write_text("path , seed,,\n a.safetensors, 3,,\n")
    assert adopted_trials(TRIAL, str(tmp_path / "list.csv"), TRANSFORMER)[0][0].seed == 3


def test_links_are_followed_and_keep_their_names(tmp_path: Path) -> None:
    """As in the cache of a hub, where the file and its settings are links to files without names."""
    store, shown = tmp_path / "store", tmp_path / "shown"
    write(store / "other" / "film.safetensors", 8)
    write(store / "0a", 4)
    (store / "0b").write_text('{"lora_alpha": 16}')
    shown.mkdir()
    for name, target in (("adapter_model.safetensors", "0a"), ("adapter_config.json", "0b"), ("linked", "other")):
        (shown / name).symlink_to(store / target)
    (tmp_path / "list.csv").write_text("path\nshown/adapter_model.safetensors\nshown/linked/film.safetensors\n")
    for source in (shown, tmp_path / "list.csv"):
        trials, _ = adopted_trials(TRIAL, str(source), TRANSFORMER)
        assert [each.lora.scale for each in trials] == [4, 1]
        assert Path(trials[0].adapter) == shown / "adapter_model.safetensors"
    (shown / "gone.safetensors").symlink_to(store / "gone")
    with pytest.raises(UserError, match=r"gone.safetensors: missing"):
        adopted_trials(TRIAL, str(shown), TRANSFORMER)


def test_a_folder_of_pickles_says_how_to_convert_them(tmp_path: Path) -> None:
    (tmp_path / "film.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"film.ckpt: a pickle, .* convert it"):
        adopted_trials(TRIAL, str(tmp_path), TRANSFORMER)


def test_what_is_said_of_all_files_counts_where_a_row_is_silent(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", 4)
    (tmp_path / "list.csv").write_text("path,trainer\na.safetensors,musubi-tuner\n")
    for source, trainer in ((tmp_path, "ai-toolkit"), (tmp_path / "list.csv", "musubi-tuner")):
        ((trial,), _) = adopted_trials(replace(TRIAL, trainer="ai-toolkit"), str(source), TRANSFORMER)
        assert trial.trainer == trainer
    with pytest.raises(UserError, match=r"adapter=x: is filled in from the files; give them by adapters="):
        adopted_trials(replace(TRIAL, adapter="x"), str(tmp_path), TRANSFORMER)


def test_what_is_neither(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, line in (("", "needs a folder"), ("empty", "holds no .safetensors"), ("x.txt", "neither a folder")):
        with pytest.raises(UserError, match=line):
            adopted_trials(TRIAL, str(tmp_path / source) if source else "", TRANSFORMER)


def test_what_the_metadata_says_of_the_training_is_shown(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", 4, ss_steps="1600", ss_epoch="16", ss_learning_rate="0.0002", ss_optimizer="None")
    write(tmp_path / "b.safetensors", 8, training_info='{"step": 500, "epoch": 3}')
    write(tmp_path / "c.safetensors", 16, training_info="[")
    write(tmp_path / "d.safetensors", 32, ss_steps="16\x1b[31m\n0", ss_seed="9" * 40)
    trials, remarks = adopted_trials(TRIAL, str(tmp_path), TRANSFORMER)
    assert [each.training for each in trials] == [
        "steps 1600, epochs 16, learning rate 0.0002",
        "steps 500, epochs 3",
        "",
        "steps 16?[31m 0",
    ]
    assert trials[3].seed == UNKNOWN_SEED
    assert any("its metadata says: steps 500, epochs 3 (" in remark for remark in remarks)
    assert base_of(trials[0]) == base_of(trials[2]), "it is not of the base"
