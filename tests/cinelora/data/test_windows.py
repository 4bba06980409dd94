"""Windows on paper. `street.mp4` has three shots of 30, 20 and 40 frames at 25 fps: red, green, blue."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import DataConfig, Resize
from cinelora.data import video, windows
from cinelora.data.windows import WindowPlan, plan_windows
from tests.cinelora.data.test_video import put_behind_cover

COLOURS = ((230, 10, 10), (10, 90, 10), (10, 10, 230))
SHOTS = (30, 20, 40)


def put_video(path: Path, lengths: tuple[int, ...], tint: int = 0) -> None:
    """One colour a shot, 25 fps, 32 x 32; `tint` makes files differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = [COLOURS[number % 3] for number, length in enumerate(lengths) for _ in range(length)]
    frames = np.empty((len(colours), 32, 32, 3), np.uint8)
    frames[:] = (np.array(colours) + tint)[:, None, None, :]
    video.write_mp4(path, frames, 25.0)


def put_rows(root: Path, *rows: str, header: str = "video,prompt") -> Path:
    (root / "metadata.csv").write_text("\n".join((header, *rows)) + "\n")
    return root


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("street")
    put_video(root / "street.mp4", SHOTS)
    return put_rows(root, "street.mp4,a street")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def settings(**changes: object) -> DataConfig:
    values: dict[str, object] = {"frames": 5, "stride": 4, "height": 32, "width": 32, "heldout_shots": 1}
    return DataConfig(**{**values, **changes})  # type: ignore[arg-type]


def every(plan: WindowPlan) -> list[windows.Window]:
    return sorted(plan.train + plan.heldout, key=lambda window: window.window_id)


def test_windows_of_three_shots_on_paper(street: Path, cache: Path) -> None:
    plan = plan_windows(street, settings(), cache)
    # A window spans 4/16 s. Half a frame is 0.02 s. Shot 0 may show [0, 1.18]: starts 0 .. 0.93, 4 of them;
    # shot 1 [1.22, 1.98]: starts up to 1.73; shot 2 [2.02, 3.599]: starts up to 3.349.
    starts = {
        "street_s00": [0.0, 0.25, 0.5, 0.75],
        "street_s01": [1.22, 1.47, 1.72],
        "street_s02": [2.02, 2.27, 2.52, 2.77, 3.02, 3.27],
    }
    expected = {f"{shot}_w{i:03d}": start for shot, all_ in starts.items() for i, start in enumerate(all_)}
    assert {window.window_id: window.start_seconds for window in every(plan)} == expected
    assert {window.shot_id for window in every(plan)} == {f"street.mp4#{i:02d}" for i in range(3)}
    assert {(window.video, window.caption) for window in every(plan)} == {("street.mp4", "a street")}


def test_no_window_shows_a_frame_of_another_shot(street: Path, cache: Path) -> None:
    for window in every(plan_windows(street, settings(stride=1), cache)):
        frames = video.decode_window(street / window.video, window.start_seconds, 16.0, 5, 32, 32, Resize.crop)
        assert {int(frame.mean(axis=(0, 1)).argmax()) for frame in frames} == {int(window.shot_id[-1])}


def test_splits_share_no_shot_and_say_which_they_are(street: Path, cache: Path) -> None:
    seen = set()
    for seed in range(8):
        plan = plan_windows(street, settings(split_seed=seed, heldout_shots=2), cache)
        train, heldout = ({window.shot_id for window in split} for split in (plan.train, plan.heldout))
        assert len(train) == 1 and len(heldout) == 2 and not train & heldout
        assert {w.split for w in plan.train} == {"train"} and {w.split for w in plan.heldout} == {"heldout"}
        seen |= train
    assert len(seen) > 1  # the seed decides


def test_a_new_clip_does_not_reshuffle_the_old_ones(tmp_path: Path, cache: Path) -> None:
    put_video(tmp_path / "a.mp4", SHOTS)
    put_video(tmp_path / "b.mp4", (20,), tint=20)
    put_rows(tmp_path, "a.mp4,a")
    before = {window.window_id for window in every(plan_windows(tmp_path, settings(), cache))}
    put_rows(tmp_path, "a.mp4,a", "b.mp4,b")
    after = {window.window_id for window in every(plan_windows(tmp_path, settings(), cache))}
    assert before < after and {name[:2] for name in after - before} == {"b_"}


def test_rows_of_one_named_shot_stay_together_and_are_not_searched(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_detect_cuts", lambda _: pytest.fail("searched a named shot for cuts"))
    for number, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        put_video(tmp_path / name, (20,), tint=5 * number)
    put_rows(tmp_path, "a.mp4,a,park", "b.mp4,b,park", "c.mp4,c,beach", header="video,prompt,shot")
    for seed in range(6):
        plan = plan_windows(tmp_path, settings(split_seed=seed), cache)
        assert {w.shot_id for w in plan.train} | {w.shot_id for w in plan.heldout} == {"park", "beach"}
        assert {w.video for w in every(plan) if w.shot_id == "park"} == {"a.mp4", "b.mp4"}
        assert len({w.split for w in every(plan) if w.shot_id == "park"}) == 1


def test_caps_take_from_every_shot_in_turn(street: Path, cache: Path) -> None:
    full = plan_windows(street, settings(), cache)
    plan = plan_windows(street, settings(max_train_windows=3, max_heldout_windows=2), cache)
    assert len(plan.train) == 3 and len(plan.heldout) == 2
    assert {window.shot_id for window in plan.train} == {window.shot_id for window in full.train}
    assert set(plan.train) < set(full.train) and set(plan.heldout) < set(full.heldout)
    assert [window.window_id for window in plan.heldout] == [window.window_id for window in full.heldout[:2]]


def test_names_are_unique_and_file_safe(tmp_path: Path, cache: Path) -> None:
    names = ("x/clip one.mp4", "x/clip-one.mp4", "é.mp4", "B.mp4", "b.mp4")
    for number, name in enumerate(names):
        put_video(tmp_path / name, (12,), tint=3 * number)
    put_rows(tmp_path, *(f"{name},words" for name in names))
    ids = [window.window_id for window in every(plan_windows(tmp_path, settings(frames=5, stride=5), cache))]
    assert len({name.casefold() for name in ids}) == len(ids) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in ids)
    assert ids == [window.window_id for window in every(plan_windows(tmp_path, settings(frames=5, stride=5), cache))]


def test_fingerprint_covers_data_settings_captions_and_cuts_but_not_the_place(
    street: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan_windows(street, settings(), cache).fingerprint
    assert plan_windows(street, settings(path="elsewhere"), tmp_path / "other").fingerprint == first
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "street.mp4").write_bytes((street / "street.mp4").read_bytes())
    assert plan_windows(put_rows(copy, "street.mp4,a street"), settings(), cache).fingerprint == first
    others = {plan_windows(put_rows(copy, "street.mp4,a road"), settings(), cache).fingerprint}
    others.add(plan_windows(street, settings(stride=5), cache).fingerprint)
    others.add(plan_windows(street, settings(split_seed=1), cache).fingerprint)
    monkeypatch.setattr(windows, "_detect_cuts", lambda _: [1.2])
    others.add(plan_windows(street, settings(), tmp_path / "third").fingerprint)
    assert len(others | {first}) == 5


def test_a_second_plan_decodes_nothing(street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan_windows(street, settings(), tmp_path)
    (found,) = (tmp_path / "shots").iterdir()
    assert json.loads(found.read_text())["cuts"] == [1.2, 2.0]
    code = (
        "import sys; from pathlib import Path; from cinelora.core.config import DataConfig; "
        "from cinelora.data.windows import plan_windows; "
        f"plan = plan_windows(Path({str(street)!r}), DataConfig(frames=5, stride=4, height=32, width=32, "
        f"heldout_shots=1), Path({str(tmp_path)!r})); "
        "assert not {'av', 'cv2', 'scenedetect', 'numpy', 'torch'} & set(sys.modules); "
        "print(plan.fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == first.fingerprint, done.stderr
    monkeypatch.setattr(windows, "DETECTOR", {"threshold": 99.0, "min_scene_len": 8})
    monkeypatch.setattr(windows, "_detect_cuts", lambda _: [])
    with pytest.raises(UserError, match="1 of 1 shots"):  # other settings search again
        plan_windows(street, settings(), tmp_path)


def test_a_shot_too_short_is_skipped(street: Path, cache: Path) -> None:
    plan = plan_windows(street, settings(frames=17, stride=1), cache)  # 1 s: the green shot lasts 0.8 s
    assert {window.shot_id for window in every(plan)} == {"street.mp4#00", "street.mp4#02"}


def test_no_shot_long_enough_names_the_longest_and_the_remedy(street: Path, cache: Path) -> None:
    # blue: 1.579 s at 16 fps hold int(25.264) + 1 = 26 frames; 25 = 4 * 6 + 1
    message = (
        "street.mp4#02: the longest shot has fewer frames than one window: 33 needed, 26 there at 16.0 fps; "
        "set data.frames=25 or give longer clips"
    )
    with pytest.raises(UserError) as caught:
        plan_windows(street, settings(frames=33), cache)
    assert str(caught.value) == message
    assert plan_windows(street, settings(frames=17), cache).train


def test_too_few_shots_say_how_many_there_are(street: Path, cache: Path) -> None:
    with pytest.raises(UserError, match=r"data.heldout_shots=3: leaves none .* 3 of 3 .*set data.heldout_shots=2 or"):
        plan_windows(street, settings(heldout_shots=3), cache)
    with pytest.raises(UserError, match=r"data.heldout_shots=1: leaves none .* 1 of 3 .*lower data.frames or add"):
        plan_windows(street, settings(frames=25), cache)


def test_one_video_under_two_names_would_leak(tmp_path: Path, cache: Path) -> None:
    put_video(tmp_path / "a.mp4", SHOTS)
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    with pytest.raises(UserError, match=r"b.mp4: same content as a.mp4"):
        plan_windows(put_rows(tmp_path, "a.mp4,a", "b.mp4,b"), settings(), cache)


def test_an_unreadable_video_is_named(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"words")
    with pytest.raises(UserError, match=r"a.mp4: cannot be read as video"):
        plan_windows(put_rows(tmp_path, "a.mp4,a"), settings(), cache)


def test_uneven_frame_times_are_cut_by_time_and_not_by_count(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "vfr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(40):  # 20 red frames of 100 ms, then 20 green ones of 40 ms
            image = np.empty((32, 32, 3), np.uint8)
            image[:] = COLOURS[number // 20]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = 100 * number if number < 20 else 2000 + 40 * (number - 20)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    plan = plan_windows(put_rows(tmp_path, "vfr.mkv,words"), settings(stride=1), cache)
    for window in every(plan):
        frames = video.decode_window(path, window.start_seconds, 16.0, 5, 32, 32, Resize.crop)
        assert {int(frame.mean(axis=(0, 1)).argmax()) for frame in frames} == {int(window.shot_id[-1])}
    assert {window.shot_id for window in every(plan)} == {"vfr.mkv#00", "vfr.mkv#01"}


def test_corrected_clips_have_another_fingerprint_and_older_caches_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_video(tmp_path / "data" / "a.mp4", SHOTS)
    root, cache = put_rows(tmp_path / "data", "a.mp4,a street"), tmp_path / "cache"
    before = plan_windows(root, settings(), cache).fingerprint
    (known,) = (cache / "shots").iterdir()
    facts = json.loads(known.read_text())
    monkeypatch.setattr(windows, "_detect_cuts", lambda _: pytest.fail("cuts are known"))
    known.write_text(json.dumps({name: value for name, value in facts.items() if name != "corrected"}))
    assert plan_windows(root, settings(), cache).fingerprint == before and json.loads(known.read_text()) == facts
    known.write_text(json.dumps(facts | {"corrected": "32 32 True 1 1 0"}))
    assert plan_windows(root, settings(), cache).fingerprint != before


def test_cuts_are_those_of_the_film_and_not_of_its_cover(tmp_path: Path) -> None:
    colours = np.repeat(np.array(COLOURS, np.uint8), SHOTS, axis=0)
    put_behind_cover(tmp_path / "a.mkv", np.tile(colours[:, None, None], (1, 32, 32, 1)))
    assert windows._detect_cuts(tmp_path / "a.mkv") == [1.2, 2.0]


def test_every_file_is_accounted_for(tmp_path: Path, cache: Path) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        put_video(tmp_path / name, (30,), tint=ord(name[0]) - ord("a"))
    put_video(tmp_path / "short.mp4", (3,))
    put_video(tmp_path / "loose.mp4", (30,), tint=9)
    put_rows(tmp_path, *(f"{name}.mp4,one" for name in ("a", "b", "c", "short")))
    plan = plan_windows(tmp_path, settings(frames=9, max_train_windows=1), cache)
    assert len(plan.left_out) == 3 and plan.left_out["loose.mp4"] == "not in metadata.csv"
    assert plan.left_out["short.mp4"] == "shorter than a window, 9 frames at 16 fps"
    assert sum(why == "past data.max_train_windows and data.max_heldout_windows" for why in plan.left_out.values()) == 1
    assert plan.account().startswith("2 of 5 used; left out: ") and plan.account().endswith(
        "; 1 training, 3 held-out windows"
    )
    assert WindowPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    older = {key: value for key, value in plan.to_json().items() if key != "left_out"}
    assert WindowPlan.from_json(older).left_out == {}


def test_a_long_account_names_the_file_that_holds_it_all() -> None:
    plan = WindowPlan((), (), "", left_out={f"{i}.mp4": "not in metadata.csv" for i in range(7)})
    most = "left out: 0.mp4, 1.mp4, 2.mp4, 3.mp4, 4.mp4"
    assert f"{most} and 2 more, all in list.json (not in metadata.csv)" in plan.account(Path("list.json"))
    assert f"{most}, 5.mp4, 6.mp4 (not in metadata.csv)" in plan.account()
