"""Rendering: the same picture, text and noise for base and adapters; bad input; the parallel modes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinelora import distributed
from cinelora.core.cli import UserError
from cinelora.core.files import write_json
from cinelora.core.paths import StudyFolder
from cinelora.data.video import read_all, write_mp4
from cinelora.render.__main__ import main
from cinelora.wan.options import Parallel, processes_of
from tests.cinelora.render.rendering import config_of, finish

MODES = ("ulysses", "fsdp", "both")
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.fixture(scope="module")
def rendered(study_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A study of ranks 2 and 4, the latter with a second seed and a control, and one trial that lies on another."""
    root = tmp_path_factory.mktemp("render")
    study, cache = StudyFolder(root / "study"), study_root / "cache"
    ids = {name: finish(study, cache, config_of(name, root)) for name in ("rank 4", "rank 2")}
    ids["seed"] = finish(study, cache, config_of("rank 4", root, seed=1))
    ids["control"] = finish(study, cache, config_of("alpha 3", root, arm="control"))
    ids["second"] = finish(study, cache, config_of("alpha 3", root, first=ids["rank 2"], arm="second"))
    ids["full"] = finish(study, cache, config_of("rank 4", root, method="full"))
    ids["longer"] = finish(study, cache, config_of("rank 4", root, arm="longer", data__frames=13))
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(picture).save(root / "first.png")
    write_mp4(root / "clip.mp4", np.stack([picture] * 8), 16)
    common = [str(study.root), "--prompt", "a square", "--cache", str(cache)]
    return {"root": root, "ids": ids, "common": common, "image": ["--image", str(root / "first.png")], "cache": cache}


def clips(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.mp4"))}


def sheet(folder: Path) -> bytes:
    return (folder / "sheet.png").read_bytes()


def test_one_clip_a_rank_and_the_base(rendered: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    out = rendered["root"] / "ranks"
    assert main([*rendered["common"], *rendered["image"], "--out", str(out)]) == 0
    rendered_clips = clips(out)
    assert list(rendered_clips) == ["base.mp4", "rank-2.mp4", "rank-4.mp4"] and len(set(rendered_clips.values())) == 3
    assert read_all(out / "base.mp4").shape == (9, 32, 32, 3)
    record = json.loads((out / "render.json").read_text())
    assert record["clips"]["rank-4"]["trial"] == rendered["ids"]["rank 4"], "the smallest seed, and no control"
    assert record["clips"]["base"]["continuity"]["pixels"]["seams"] == [] and record["prompt"] == "a square"
    captured = capsys.readouterr()
    assert "rendered 3/3 windows" in captured.err and "rank-2" in captured.out

    again = rendered["root"] / "again"
    chosen = ["--ranks", "4", "--out", str(again)]
    assert main([*rendered["common"], *rendered["image"], *chosen]) == 0
    assert clips(again) == {name: rendered_clips[name] for name in ("base.mp4", "rank-4.mp4")}


def test_a_trial_on_top_of_its_first_stage(rendered: dict[str, Any]) -> None:
    ids, out = rendered["ids"], rendered["root"] / "stages"
    wanted = ["--trials", ids["second"], ids["control"], ids["rank 2"], "--out", str(out)]
    assert main([*rendered["common"], "--image", f"{rendered['root'] / 'clip.mp4'}@0.2", *wanted]) == 0
    rendered_clips = clips(out)
    names = [f"rank-4-{ids['control']}.mp4", f"rank-4-{ids['second']}.mp4"]
    assert set(rendered_clips) == {"base.mp4", "rank-2.mp4", *names} and len(set(rendered_clips.values())) == 4
    record = json.loads((out / "render.json").read_text())["clips"]
    assert record[f"rank-4-{ids['second']}"]["first"] == ids["rank 2"]


def test_bad_input_in_one_line(
    rendered: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)  # an earlier test may have set it
    root, ids, out = rendered["root"], rendered["ids"], ["--out", str(rendered["root"] / "none")]
    image = rendered["image"]
    (root / "taken").mkdir()
    (root / "taken" / "base.mp4").touch()
    for arguments, words in (
        ([*image, "--ranks", "3", *out], "--ranks 3: no finished adapter of that rank; there are 2, 4"),
        ([*image, "--ranks", "4,x", *out], "--ranks 4,x: give whole numbers"),
        ([*image, "--trials", ids["full"], *out], f"--trials {ids['full']}: not among the finished adapters"),
        ([*image, "--trials", ids["rank 4"], ids["longer"], *out], "differ in data.frames (9, 13)"),
        ([*image, "--frames", "1", *out], "--frames 1: must be 2 or more"),
        ([*image, "--prompt", "x" * 512, *out], "--prompt: 513 tokens, the model reads 512; shorten it"),
        ([*image, "--overlap", "5", *out], "--overlap 5: must lie in 1..4"),
        ([*image, "--parallel", "both", *out], "torchrun --nproc-per-node"),
        ([*image, "--base", str(root), *out], "missing"),
        ([*image, "--out", str(root / "taken")], "base.mp4 exists; name another folder"),
        (
            ["--image", str(root / "clip.mp4"), *out],
            "(UnidentifiedImageError); replace it; for a frame of a video give",
        ),
        (["--image", f"{root / 'clip.mp4'}@-1", *out], "'-1' is not a time"),
        (["--image", f"{root / 'clip.mp4'}@9", *out], "then the video ends"),
        (["--image", str(root / "absent.png"), *out], "no such file"),
        (image, "--out"),
    ):
        assert main([*rendered["common"], *arguments]) == 2
        text = capsys.readouterr().err
        assert words in text and text.count("\n") == 1, text
    assert not (root / "none").exists()


def test_parallel_modes_equal_one_process(rendered: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Latents of every window, so bit for bit; three windows a clip, two adapters and the base."""
    root, port = rendered["root"], str(distributed.free_port())
    command = [sys.executable, "-m", "tests.cinelora.render.rendering"]
    given = [rendered["common"][0], str(rendered["cache"]), rendered["image"][1], str(root / "parallel")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    members = [
        subprocess.Popen([*command, rank, port, *given, *modes], text=True, env=environment, **PIPES)
        for rank, modes in (("0", ("none", *MODES)), ("1", MODES))
    ]
    outputs = [member.communicate(timeout=240) for member in members]
    assert [member.returncode for member in members] == [0, 0], outputs[0][1][-2000:] + outputs[1][1][-2000:]
    alone, *first = (json.loads(line) for line in outputs[0][0].splitlines() if line.startswith("{"))
    second = [json.loads(line) for line in outputs[1][0].splitlines() if line.startswith("{")]
    assert alone["code"] == 0 and len(set(alone["latents"])) == 6
    for mode, one, two in zip(MODES, first, second, strict=True):
        assert one == two == {**alone, "mode": mode}
        assert clips(root / "parallel" / mode) == clips(root / "parallel" / "none")
        assert sheet(root / "parallel" / mode) == sheet(root / "parallel" / "none")


@pytest.mark.parametrize(
    ("mode", "heads", "changes", "words"),
    [
        ("ulysses", 3, {}, "3 attention heads do not divide by 2 processes"),
        ("both", 4, {"data__height": 16, "data__width": 16}, "3 tokens do not divide by 2 processes"),
        ("fsdp", 4, {"sample__cache": "first_block"}, "not with sample.cache=first_block"),
        ("ulysses", 4, {"model__attention": "flex"}, "model.attention=flex cannot share tokens; take --parallel fsdp"),
    ],
)
def test_refused_parallel_modes(
    tmp_path: Path, mode: str, heads: int, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    write_json(tmp_path / "transformer" / "config.json", {"num_attention_heads": heads})
    small = config_of("rank 4", tmp_path, data__height=16, data__width=16)
    assert processes_of(Parallel("fsdp"), tmp_path, small) == 2
    with pytest.raises(UserError, match=words):
        processes_of(Parallel(mode), tmp_path, config_of("rank 4", tmp_path, **changes))
