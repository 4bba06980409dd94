"""Which trials a table of folders of finished clips makes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import UNKNOWN_SEED, DataConfig, Method, StudyConfig, TrialConfig
from cinelora.core.paths import StudyFolder
from cinelora.data.video import write_mp4
from cinelora.data.windows import Window
from launch.adopting import clip_trials
from launch.estimate import estimate
from sweeps.ledger import Ledger
from sweeps.plan import build_plan

DATA = DataConfig(frames=5, height=32, width=32, fps=8.0)
TRIAL = TrialConfig(method=Method.clips, data=DATA)
WINDOWS = [Window(f"{name}_s00_w000", f"{name}.mp4", "", name, 0.0, "heldout") for name in ("day", "night")]


def write(folder: Path, level: int, *names: str, frames: int = 5, fps: float = 8.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_mp4(folder / f"{name}.mp4", np.full((frames, 32, 32, 3), level, np.uint8), fps)


def table(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "clips.csv").write_text("\n".join(("folder,rank,seed,label", *lines)))
    return str(tmp_path / "clips.csv")


def test_a_row_is_a_trial_and_rank_0_is_the_base(tmp_path: Path) -> None:
    for level, name in enumerate(("base", "r8", "other")):
        write(tmp_path / name, 40 * level, "day", "night_s00_w000", *["dusk"] * (name == "r8"))
    trials, remarks = clip_trials(TRIAL, table(tmp_path, "base,0,,", "r8,8,1,", "other,,,another model"), WINDOWS)
    assert [(each.clips_rank, each.seed, each.label, each.rank) for each in trials] == [
        (0, UNKNOWN_SEED, "", 0),
        (8, 1, "", 8),
        (-1, UNKNOWN_SEED, "another model", 0),
    ]
    assert [remark.split(": ", 1)[1] for remark in remarks] == ["left out, of no held-out clip: dusk"]
    plan = build_plan([(trial, {"data": "d", "model": "m"}) for trial in trials], frozen=True)
    methods = [spec.config.method.value for spec in plan.trials]
    assert methods == ["clips", "clips", "clips", "frozen"], "no base of a model that did not make them"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("few,8,,",), "few: lacks night_s00_w000, has dawn of no held-out clip; name each clip as its held-out clip"),
        (("long,8,,",), "day.mp4: has 32x32 pixels and 6 frames, the study 32x32 pixels and 5 frames"),
        (("fast,8,,",), "day.mp4: has 16 frames per second, data.fps=8"),
        (("a,8,,", "b,8,,"), "have the same rank, label and seed; keep one, or tell them apart"),
        (("a,8,0,", "a,8,1,"), "have the same clips; keep one, or tell them apart"),
        (("a,0,0,", "b,0,1,"), "have rank 0, the base; keep one"),
        (("a,0,,ours", "b,0,,theirs"), "have rank 0, the base; keep one"),
        (("a,,,",), "has neither rank nor label"),
        (("a,-1,,",), "rank=-1: must be a whole number, 0 or more"),
        ((",8,,",), "folder is empty; give the folder of the clips"),
        ((), "lists no folder; its columns are folder, rank, seed"),
    ],
)
def test_what_is_wrong_is_named(lines: tuple[str, ...], message: str, tmp_path: Path) -> None:
    write(tmp_path / "few", 0, "day", "dawn")
    write(tmp_path / "long", 0, "day", "night", frames=6)
    write(tmp_path / "fast", 0, "day", "night", fps=16.0)
    for level, name in enumerate("ab"):
        write(tmp_path / name, 50 * level, "day", "night")
    with pytest.raises(UserError) as error:
        clip_trials(TRIAL, table(tmp_path, *lines), WINDOWS)
    assert message in str(error.value)


def test_no_rate_of_a_device_tells_what_finished_clips_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "r8", 0, "day", "night")
    trials, _ = clip_trials(TRIAL, table(tmp_path, "r8,8,1,"), WINDOWS)
    plan = build_plan([(trial, {"data": "d", "model": "m"}) for trial in trials])
    nothing = SimpleNamespace(work=lambda: SimpleNamespace(seconds=0.0))  # no set is encoded
    monkeypatch.setattr("launch.estimate.demand_of", lambda study, spec: nothing)
    monkeypatch.setattr("launch.estimate.memory_lines", lambda study, demands: [])
    found = estimate(StudyConfig(method=Method.clips), Ledger(StudyFolder(tmp_path / "study")), plan)
    assert found.lines == ("cost not estimated: no model runs, clips are read and scored on the processor",)
