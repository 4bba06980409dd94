"""Splits that the dataset names itself, and the sets that the program makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import DataConfig
from cinelora.data.video import write_mp4
from cinelora.data.windows import WindowPlan, plan_windows

SETTINGS = DataConfig(frames=5, stride=5, height=32, width=32, heldout_shots=99)  # the column wins over the number


def put(root: Path, *rows: str) -> Path:
    for index in range(len(rows)):
        frames = np.full((5, 32, 32, 3), 20 + 30 * index, np.uint8)
        frames[:, :16] += np.arange(5, dtype=np.uint8)[:, None, None, None]
        write_mp4(root / f"{index}.mp4", frames, 16)
    lines = [f"{index}.mp4,clip {index},{row}" for index, row in enumerate(rows)]
    (root / "metadata.csv").write_text("\n".join(["video,prompt,shot,split", *lines]) + "\n")
    return root


def videos(windows: tuple) -> list[str]:  # type: ignore[type-arg]
    return [window.video for window in windows]


def test_the_column_decides(tmp_path: Path) -> None:
    plan = plan_windows(put(tmp_path / "a", "s0,train", "s1,heldout", "s2,other", "s0,train"), SETTINGS, tmp_path)
    assert (videos(plan.train), videos(plan.heldout), videos(plan.other)) == (["0.mp4", "3.mp4"], ["1.mp4"], ["2.mp4"])
    assert [window.split for window in plan.all] == ["train", "train", "heldout", "other"]
    assert WindowPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    moved = plan_windows(put(tmp_path / "b", "s0,train", "s1,heldout", "s2,heldout", "s0,train"), SETTINGS, tmp_path)
    assert moved.fingerprint != plan.fingerprint


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("s0,train", "s1,"), "all or none"),
        (("s0,train", "s1,test"), "split='test'"),
        (("s0,train", "s0,heldout"), "shot=s0 is in two splits"),
        (
            ("s0,train", "s1,train"),
            "column must name some clips train and some heldout; it names 2 train, 0 heldout, 0 other",
        ),
    ],
)
def test_bad_splits_are_refused(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_windows(put(tmp_path / "a", *rows), SETTINGS, tmp_path)


def test_a_split_without_a_window_is_refused(tmp_path: Path) -> None:
    clips = put(tmp_path / "a", "s0,train", "s1,heldout", "s2,heldout")
    for name in ("1.mp4", "2.mp4"):
        write_mp4(clips / name, np.full((3, 32, 32, 3), int(name[0]), np.uint8), 16)
    with pytest.raises(UserError, match="of the 2 clips that the split column names heldout, none holds a window of 5"):
        plan_windows(clips, SETTINGS, tmp_path)
