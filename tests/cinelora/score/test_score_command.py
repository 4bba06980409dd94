"""The scoring command on tiny folders: numbers worked out by hand, protocols, and one line for everything bad."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cinelora.core.cli import UserError
from cinelora.core.files import file_sha256
from cinelora.data.video import write_mp4
from cinelora.features.extract import Batch, clip_metrics
from cinelora.features.nets import NETS, Net
from cinelora.features.nets.files import Loaded
from cinelora.metrics.catalogue import FAMILIES, PSNR_CAP_DB, Metric, family
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.score import run as scorerun
from cinelora.score.__main__ import main
from cinelora.score.request import parse_metrics
from tests.cinelora.data.test_video import damage

HASH = "ab" * 32
Run = Callable[..., dict[str, Any]]
Refuse = Callable[..., str]


def write_images(folder: Path, frames: np.ndarray, start: int = 0) -> None:
    """uint8 (T, H, W, 3) as numbered PNG files: what is read back is what was written."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame_{start + index:03d}.png")


def flat(levels: list[int], frames: int = 3, side: int = 16) -> list[np.ndarray]:
    """A clip of one grey per level."""
    return [np.full((frames, side, side, 3), level, np.uint8) for level in levels]


def noise(seed: int, frames: int = 3, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


def clips(root: Path, side: str, made: list[np.ndarray]) -> Path:
    for index, frames in enumerate(made):
        write_images(root / side / f"clip{index}", frames)
    return root / side


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Score `gen` against `real` below tmp_path; the JSON, with what was printed under "stdout" and "stderr"."""

    def command(*options: str) -> dict[str, Any]:
        out = tmp_path / "scores.json"
        folders = ("--generated", str(tmp_path / "gen"), "--reference", str(tmp_path / "real"))
        assert main([*folders, "--cache", str(tmp_path / "cache"), "--out", str(out), *options]) == 0
        said = capsys.readouterr()
        return json.loads(out.read_text()) | {"stdout": said.out, "stderr": said.err}

    return command


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """The one line on stderr of a run that must fail."""

    def command(*options: str) -> str:
        folders = ("--generated", str(tmp_path / "gen"), "--reference", str(tmp_path / "real"))
        assert main([*folders, "--cache", str(tmp_path / "cache"), *options]) == 2
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if "clips" not in line or line.startswith("cinelora: ")]
        assert len(lines) == 1 and lines[0].startswith("cinelora: ") and said.out == ""
        return lines[0].removeprefix("cinelora: ")

    return command


@pytest.fixture
def corner_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """I3D and MobileNetV2 whose features are the first pixel of the clip, or the red and green of each frame's."""

    def of_clip(net: Any, frames: np.ndarray, batch: int = 1) -> np.ndarray:
        return frames[:, 0, 0, 0, :1].astype(np.float32)

    def of_frames(net: Any, frames: np.ndarray, batch: int = 1) -> np.ndarray:
        return frames[:, :, 0, 0, :2].astype(np.float32)

    for name, extract in (("i3d", of_clip), ("mnv2", of_frames)):
        monkeypatch.setitem(NETS, name, Net(WEIGHTS[name], NETS[name].build, extract))
    opened = Loaded(torch.nn.Identity(), {"weights": HASH})
    monkeypatch.setattr(scorerun, "open_net", lambda name, path, pins, device: opened)


I3D = ("--weights", "i3d=anywhere.pt")


def test_fvd_by_hand_with_its_protocol(tmp_path: Path, run: Run, corner_nets: None) -> None:
    clips(tmp_path, "gen", flat([10, 20], frames=10))
    clips(tmp_path, "real", flat([30, 50], frames=10))
    found = run("--metrics", "fvd[i3d]", *I3D)
    score = found["scores"]["fvd[i3d]"]
    assert score["value"] == pytest.approx(25**2 + (np.sqrt(200) - np.sqrt(50)) ** 2)  # means 15, 40; variances 50, 200
    wanted = {
        "n": 2, "reference_n": 2, "d": 400, "frames": 10, "first_frame": "kept", "fps": None, "size": [16, 16],
        "resize": "none", "covariance": "N-1", "standardised": "no", "weights_sha256": {"weights": HASH},
        "network_size": [224, 224], "better": "lower", "error": "none",
    }  # fmt: skip
    assert {key: score["protocol"][key] for key in wanted} == wanted
    assert "2 clips for 400 dimensions" in found["warnings"][0] and found["warnings"][0] in found["stderr"]
    line = next(line for line in found["stdout"].splitlines() if line.startswith("fvd[i3d]"))
    assert line.split()[1] == "675" and "n 2/2, d 400, 10 frames, first kept, abababab" in line


def test_kvd_and_jedi_by_hand(tmp_path: Path, run: Run, corner_nets: None) -> None:
    clips(tmp_path, "gen", flat([1, 2], frames=10))
    clips(tmp_path, "real", flat([3, 4], frames=10))
    found = run("--metrics", "kvd[i3d],jedi[i3d]", *I3D)["scores"]
    cube = lambda a, b: (a * b + 1) ** 3  # noqa: E731
    assert found["kvd[i3d]"]["value"] == pytest.approx(cube(1, 2) + cube(3, 4) - cube(1, 4) - cube(2, 3))
    assert found["kvd[i3d]"]["protocol"]["matched_pairs"] == "left out"
    within, between = ((1 + 4) / 2) ** 2 + ((9 + 16) / 2) ** 2, (1 + 4) * (9 + 16) / 4
    assert found["jedi[i3d]"]["value"] == pytest.approx(100 * (within - 2 * between))
    (tmp_path / "gen" / "clip1").rename(tmp_path / "gen" / "other")
    unpaired = run("--metrics", "kvd[i3d]", *I3D)["scores"]["kvd[i3d]"]
    crossed = (cube(1, 3) + cube(1, 4) + cube(2, 3) + cube(2, 4)) / 2
    assert unpaired["value"] == pytest.approx(cube(1, 2) + cube(3, 4) - crossed)
    assert "matched_pairs" not in unpaired["protocol"]


def test_errors_of_set_metrics_are_repeatable(tmp_path: Path, run: Run, corner_nets: None) -> None:
    clips(tmp_path, "gen", flat(list(range(0, 44, 2)), frames=10))
    clips(tmp_path, "real", flat(list(range(60, 126, 3)), frames=10))
    asked = ("--metrics", "fvd[i3d],kvd[i3d],fvd_inf[i3d]", *I3D)
    found = run(*asked)["scores"]
    assert run(*asked)["scores"] == found
    deviation = np.std(np.arange(22), ddof=1)  # 22 levels in steps of 2 about 21, in steps of 3 about 91.5
    assert found["fvd[i3d]"]["value"] == pytest.approx(70.5**2 + deviation**2)
    assert all(0 < each["standard_error"] < np.inf for each in found.values()) and "bias" not in found["kvd[i3d]"]
    assert found["fvd[i3d]"]["protocol"]["error"] == "100 random halves, seed 0, pairs drawn together"
    for draws in ("0", "1"):  # one half has no spread
        without = run(*asked, "--draws", draws)["scores"]["fvd[i3d]"]
        assert without["standard_error"] is None and without["protocol"]["error"] == "none"


def test_psnr_of_pairs_and_the_dropped_first_frame(tmp_path: Path, run: Run) -> None:
    made = flat([100, 100])
    made[0] = made[0].copy()
    made[0][1:] += 51  # 255 / 5: 20 log10(5) dB
    clips(tmp_path, "gen", made)
    clips(tmp_path, "real", flat([100, 100]))
    exact, off = PSNR_CAP_DB, 20 * np.log10(5)
    dropped = run("--metrics", "psnr", "--drop-first")["scores"]["psnr"]
    assert dropped["per_clip"] == {"clip0": pytest.approx(off, rel=1e-6), "clip1": exact}
    assert dropped["value"] == pytest.approx((off + exact) / 2) and dropped["protocol"]["first_frame"] == "dropped"
    assert dropped["standard_error"] == pytest.approx(abs(exact - off) / 2)  # of two: half their difference
    kept = run("--metrics", "psnr")["scores"]["psnr"]
    assert kept["per_clip"]["clip0"] == pytest.approx((exact + 2 * off) / 3) and kept["protocol"]["frames"] == 3


def test_a_folder_scores_as_in_a_study(tmp_path: Path, run: Run, corner_nets: None) -> None:
    made, true = [noise(0), noise(1)], [noise(2), noise(3)]
    clips(tmp_path, "gen", made)
    clips(tmp_path, "real", true)
    names = ("consistency[mnv2]", "image_similarity[mnv2]", "motion[absdiff]", "psnr", "ssim")
    found = run("--metrics", ",".join(names), "--weights", "mnv2=anywhere", "--drop-first")["scores"]
    batch = Batch({"mnv2": None}, np.stack(made), np.stack(true), dropped=1)
    of_study = {each.name: batch.values(each) for each in clip_metrics(("mnv2",)) if each.name in names}
    for name, values in of_study.items():
        assert list(found[name]["per_clip"].values()) == values.tolist(), name
    assert set(of_study) == set(names)


def test_the_gap_is_that_of_each_clip_to_its_own_reference_clip(tmp_path: Path, run: Run, corner_nets: None) -> None:
    clips(tmp_path, "gen", [noise(0), noise(1)])
    clips(tmp_path, "real", [noise(2), noise(1)])
    own, gap = "consistency[mnv2]", "consistency_gap[mnv2]"
    found = run("--metrics", f"{gap},{own}", "--weights", "mnv2=anywhere")["scores"]
    assert list(found) == [gap, own] and found[gap]["protocol"]["better"] == "lower"
    off = abs(2 * found[own]["value"] - 2 * found[own]["reference"])
    assert found[gap]["per_clip"] == {"clip0": pytest.approx(off), "clip1": 0.0} and off > 0
    assert run("--metrics", gap, "--weights", "mnv2=anywhere")["scores"] == {gap: found[gap]}


@pytest.mark.parametrize(("option", "frames", "first"), [("--keep-first", 3, "kept"), ("--drop-first", 2, "dropped")])
def test_the_protocol_says_whether_the_first_frame_counts(
    option: str, frames: int, first: str, tmp_path: Path, run: Run, corner_nets: None
) -> None:
    for side in ("gen", "real"):
        clips(tmp_path, side, [noise(0), noise(1)])
    asked = ("--metrics", "image_similarity[mnv2],psnr,motion[absdiff]", "--weights", "mnv2=anywhere", option)
    found = {name: score["protocol"] for name, score in run(*asked)["scores"].items()}
    for name in ("image_similarity[mnv2]", "psnr"):
        assert (found[name]["frames"], found[name]["first_frame"]) == (frames, first), name
    assert (found["motion[absdiff]"]["frames"], found["motion[absdiff]"]["first_frame"]) == (3, "kept")


def test_without_weights_pixels_are_scored_and_the_rest_is_named(tmp_path: Path, run: Run) -> None:
    clips(tmp_path, "gen", [noise(0), noise(1)])
    clips(tmp_path, "real", [noise(2), noise(3)])
    found = run()
    assert list(found["scores"]) == ["motion[absdiff]", "temporal_flickering", "psnr", "ssim"]
    assert "no weights at hand, so no fvd" in found["stderr"] and found["paired"]
    motion = found["scores"]["motion[absdiff]"]
    steps = [np.abs(np.diff(noise(seed).astype(int), axis=0)).mean() for seed in (2, 3)]
    assert motion["reference"] == pytest.approx(np.mean(steps))


def test_a_change_of_size_needs_a_rule(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    clips(tmp_path, "gen", [noise(0), noise(1, side=20)])
    clips(tmp_path, "real", [noise(2), noise(3)])
    said = refuse("--metrics", "motion")
    assert "clip0 is 16x16 pixels" in said and "clip1 is 20x20; give --size HxW, and --resize squash or crop" in said
    facts = run("--metrics", "motion", "--size", "16x24", "--resize", "crop")["scores"]["motion[absdiff]"]["protocol"]
    assert facts["size"] == [16, 24] and facts["resize"] == "crop, Lanczos"


def test_lengths_must_agree_or_be_cut(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    clips(tmp_path, "gen", [noise(0, 4), noise(1, 3)])
    clips(tmp_path, "real", [noise(2, 4), noise(3, 4)])
    said = refuse("--metrics", "motion")
    assert "clip0 has 4 frames" in said and "clip1 has 3; give --frames N" in said
    assert "clip1: 3 frames, --frames asks for 4" in refuse("--metrics", "motion", "--frames", "4")
    assert "--frames asks for 3 after the dropped first" in refuse("--metrics", "psnr", "--frames", "3", "--drop-first")
    cut = run("--metrics", "motion", "--frames", "3")["scores"]["motion[absdiff]"]
    assert cut["protocol"]["frames"] == 3
    assert cut["per_clip"]["clip0"] == np.abs(np.diff(noise(0, 4)[:3].astype(int), axis=0)).mean()


def test_rates_must_agree_or_be_resampled(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    for side in ("gen", "real"):
        for name, rate, levels in (("a", 8, [0, 100, 200]), ("b", 16, [0, 50, 100, 150, 200, 250])):
            (tmp_path / side).mkdir(exist_ok=True)
            write_mp4(tmp_path / side / f"{name}.mp4", np.concatenate(flat(levels, frames=1)), rate)
    said = refuse("--metrics", "motion")
    assert "a.mp4 has 8 frames per second" in said and "b.mp4 has 16; give --fps F to resample both by time" in said
    found = run("--metrics", "motion", "--fps", "8")["scores"]["motion[absdiff]"]
    assert found["protocol"]["fps"] == 8 and found["protocol"]["frames"] == 3
    assert all(value == pytest.approx(100, abs=3) for value in found["per_clip"].values())  # the codec rounds


def test_a_gap_is_named_and_skipped_with_its_pair(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    for side, seed in (("gen", 0), ("real", 10)):
        clips(tmp_path, side, [noise(seed + index) for index in range(4)])
    (tmp_path / "gen" / "clip1" / "frame_001.png").unlink()
    (tmp_path / "real" / "clip2" / "frame_000.png").write_bytes(b"torn")
    said = refuse("--metrics", "psnr")
    assert "clip1: frame 1 is missing between frame_000.png and frame_002.png" in said and said.endswith("--skip-bad")
    found = run("--metrics", "psnr", "--skip-bad")
    assert (
        list(found["scores"]["psnr"]["per_clip"]) == ["clip0", "clip3"]
        and found["scores"]["psnr"]["protocol"]["n"] == 2
    )
    assert [Path(each["path"]).parts[-2:] for each in found["skipped"]] == [("gen", "clip1"), ("real", "clip2")]
    assert "2 clip(s) skipped" in found["stderr"] and "2 skipped" in found["stdout"]


def test_a_corrupt_video_is_named(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    for side in ("gen", "real"):
        (tmp_path / side / "deep").mkdir(parents=True)
        for index in range(3):
            write_mp4(tmp_path / side / "deep" / f"{index}.mp4", noise(index), 16)
    torn = tmp_path / "real" / "deep" / "1.mp4"
    torn.write_bytes(torn.read_bytes()[:300])
    assert str(torn) in refuse("--metrics", "motion")
    found = run("--metrics", "psnr", "--skip-bad")
    assert found["scores"]["psnr"]["per_clip"] == {"deep/0": PSNR_CAP_DB, "deep/2": PSNR_CAP_DB}


def test_damage_that_decodes_and_pipes_drop_their_pairs(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    for side in ("gen", "real"):
        for index in range(4):
            write_mp4(tmp_path / side / f"{index}.mp4", noise(index, frames=9, side=64), 16)
    damage(tmp_path / "gen" / "1.mp4", 0)
    (tmp_path / "gen" / "2.mp4").unlink()
    os.mkfifo(tmp_path / "gen" / "2.mp4")
    assert "1.mp4: damaged at second 0; export or fetch it again" in refuse("--metrics", "psnr")
    found = run("--metrics", "psnr", "--skip-bad")
    assert list(found["scores"]["psnr"]["per_clip"]) == ["0", "3"] and len(found["skipped"]) == 2
    assert "is not a regular file" in found["skipped"][1]["reason"] and "2 skipped" in found["stdout"]


def test_stems_pair_across_folders_and_strangers_do_not(tmp_path: Path, run: Run, refuse: Refuse) -> None:
    clips(tmp_path / "gen", "rank8", [noise(0), noise(1)])
    clips(tmp_path, "real", [noise(0), noise(1)])
    assert run("--metrics", "psnr")["scores"]["psnr"]["value"] == PSNR_CAP_DB
    (tmp_path / "real" / "clip1").rename(tmp_path / "real" / "stranger")
    said = refuse("--metrics", "ssim")
    assert said.startswith("ssim compares a clip with its reference clip, but") and "none of its name" in said
    assert not run("--metrics", "motion")["paired"]


def _one_clip(root: Path) -> None:
    clips(root, "gen", [noise(0)])
    clips(root, "real", [noise(1), noise(2)])


def _mixed_kinds(root: Path) -> None:
    clips(root, "gen", [noise(0), noise(1)])
    clips(root, "real", [noise(2), noise(3)])
    write_mp4(root / "gen" / "clip0" / "film.mp4", noise(0), 16)


def _unnumbered(root: Path) -> None:
    clips(root, "gen", [noise(0), noise(1)])
    clips(root, "real", [noise(2), noise(3)])
    (root / "gen" / "clip0" / "frame_000.png").rename(root / "gen" / "clip0" / "poster.png")


def _same_number(root: Path) -> None:
    clips(root, "gen", [noise(0), noise(1)])
    clips(root, "real", [noise(2), noise(3)])
    Image.fromarray(noise(4)[0]).save(root / "gen" / "clip0" / "frame_1.png")


def _same_name(root: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        (root / "gen").mkdir(exist_ok=True)
        (root / "gen" / name).write_bytes(b"")
    clips(root, "real", [noise(2), noise(3)])


def _no_clips(root: Path) -> None:
    (root / "gen").mkdir()
    clips(root, "real", [noise(2), noise(3)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_one_clip, "gen: 1 clip(s) to score; a set needs 2 or more"),
        (_mixed_kinds, "clip0: holds videos and images (film.mp4, frame_000.png)"),
        (_unnumbered, "poster.png: no number at the end of its name"),
        (_same_number, "frame_001.png and frame_1.png have one number"),
        (_same_name, "two clips of one name"),
        (_no_clips, "gen: no clips there"),
        (lambda root: None, "gen: no such folder"),
    ],
)
def test_folders_that_cannot_be_scored(
    make: Callable[[Path], None], message: str, tmp_path: Path, refuse: Refuse
) -> None:
    make(tmp_path)
    assert message in refuse("--metrics", "motion")


def test_features_without_spread_or_meaning_are_refused(
    tmp_path: Path, refuse: Refuse, corner_nets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips(tmp_path, "gen", flat([10, 10], frames=10))
    clips(tmp_path, "real", flat([30, 50], frames=10))
    assert "gen: i3d sees 2 equal clips (constant features)" in refuse("--metrics", "fvd[i3d]", *I3D)
    assert "fvd_inf[i3d] needs 20 clips in each folder; there are 2 and 2" in refuse("--metrics", "fvd_inf[i3d]", *I3D)
    assert "exactly 16 frames, there are 10" in refuse("--metrics", "fvd[vjepa]", "--weights", "vjepa=x")
    assert "dynamic_degree[dis] needs the frame rate" in refuse("--metrics", "dynamic_degree")
    broken = Net(WEIGHTS["i3d"], NETS["i3d"].build, lambda net, frames: np.full((len(frames), 1), np.nan, np.float32))
    monkeypatch.setitem(NETS, "i3d", broken)
    assert "clip0: i3d features: not a finite number" in refuse("--metrics", "fvd[i3d]", *I3D)


def test_pickled_weights_are_refused(tmp_path: Path, refuse: Refuse) -> None:
    clips(tmp_path, "gen", [noise(0), noise(1)])
    clips(tmp_path, "real", [noise(2), noise(3)])
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps({"x": Path("/")}))
    asked = ("--metrics", "consistency[dino]", "--weights", f"dino={evil}")
    said = refuse(*asked)
    assert said.startswith(f"--weights dino={evil}: SHA-256") and "--sha256 dino=HEX" in said
    assert "not a file of tensors" in refuse(*asked, "--sha256", f"dino={file_sha256(evil)}")
    assert "needs DINO weights; give dino_vitbase16_pretrain.pth" in refuse("--metrics", "consistency[dino]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics", "fid"), "--metrics fid: no such metric; there are fvd[tnv2|"),
        (("--metrics", "fvd"), "--metrics fvd: a name in brackets is missing; there are fvd[tnv2], fvd[i3d]"),
        (("--metrics", "consistency[i3d]"), "no consistency of i3d; there are consistency[mnv2]"),
        (("--metrics", "psnr[i3d]"), "psnr takes no brackets"),
        (("--metrics", ","), "names no metric"),
        (("--frames", "0"), "--frames 0: must be 1 or more"),
        (("--size", "64"), "--size 64: give height x width"),
        (("--resize", "crop"), "--resize crop: needs a size"),
        (("--fps", "-1"), "--fps -1.0: must be above 0"),
        (("--device", "cuda:99"), "--device cuda:99: "),
        (("--device", "gpu"), "give a device that torch has here, e.g. cpu"),
        (("--weights", "resnet=x"), "--weights resnet=x: give NET=..."),
        (("--sha256", "i3d=123"), "is not a SHA-256"),
        (("--keep-first", "--drop-first"), "not allowed with"),
        (("--nope",), "unrecognized arguments: --nope"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], message: str, refuse: Refuse) -> None:
    assert message in refuse(*options)


def test_names_of_metrics() -> None:
    wanted = (
        Metric("fvd", "i3d"),
        Metric("motion", "absdiff"),
        Metric("temporal_flickering"),
        Metric("warp_error", "dis"),
    )
    assert parse_metrics("fvd[i3d], motion,flicker,motion[absdiff],warp_error") == wanted
    for name, each in FAMILIES.items():  # every family has a name that is understood, and says what it needs
        text = f"{name}[{each.of[-1]}]" if each.of else name
        if each.needs:
            with pytest.raises(UserError, match="no such metric"):
                parse_metrics(text)
        else:
            metric = parse_metrics(text)[0]
            assert metric.family == family(name) and metric.net in {"", *WEIGHTS}
    with pytest.raises(UserError, match="no such metric"):
        parse_metrics("fvd[i3d")
