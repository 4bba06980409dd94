"""Features and clip scores of a batch, net by net, with nets whose output is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cinelora.core.config import DataConfig, ScoreConfig, TrialConfig
from cinelora.core.paths import TrialFolder
from cinelora.data.windows import Window
from cinelora.features.extract import Batch, clip_metrics, feature_sets, score_batch
from cinelora.features.motion import pair_stats
from cinelora.features.nets import NETS, Net
from cinelora.features.results import Scored, load_part, merged
from cinelora.metrics.catalogue import APART, study_metrics
from cinelora.metrics.feature_nets import WEIGHTS
from cinelora.trial import scoring
from cinelora.trial.resident import ResidentModel

WINDOWS = [Window(name, "v.mp4", f"caption of {name}", "shot", 0.0, "heldout") for name in ("a", "b")]


def _clips(frames: int) -> np.ndarray:
    """uint8 (2, T, 16, 16, 3): frame t of clip n has the level 10 n + t."""
    levels = 10 * np.arange(2)[:, None] + np.arange(frames)
    return np.broadcast_to(levels[..., None, None, None], (2, frames, 16, 16, 3)).astype(np.uint8)


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Video nets give the first and last level they see, frame nets the level of each frame, pairs their difference."""

    def video(net: Any, frames: np.ndarray) -> np.ndarray:
        return frames[:, [0, -1], 0, 0, 0].astype(np.float32)

    def frame(net: Any, frames: np.ndarray) -> np.ndarray:
        return np.stack([frames[:, :, 0, 0, 0], np.ones(frames.shape[:2])], axis=-1).astype(np.float32)

    def pair(net: Any, frames: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        levels, real = frames[:, :, 0, 0, 0].astype(np.float32), reference[:, :, 0, 0, 0]
        return (levels - real) ** 2, np.diff(levels, axis=1) ** 2

    for name, facts in WEIGHTS.items():
        extract = {"video": video, "frame": frame, "pair": pair}[facts.kind]
        monkeypatch.setitem(NETS, name, Net(facts, NETS[name].build, extract))
    monkeypatch.setattr(
        "cinelora.features.extract.text_features", lambda net, texts: np.tile(np.float32([0, len(texts)]), (2, 1))
    )


def _base(*names: str) -> ResidentModel:
    return ResidentModel(("", "", False), Path(), None, None, dict.fromkeys(names))


def _score(
    resident: ResidentModel, generated: np.ndarray, reference: np.ndarray, dropped: int = 1, flow: str = ""
) -> Scored:
    captions = [window.caption for window in WINDOWS]
    batch = Batch(resident.nets, generated, reference, dropped, 16.0, captions)
    metrics = clip_metrics(resident.nets, flow, generated.shape[1])
    return score_batch(batch, ["a", "b"], metrics, feature_sets(resident.nets))


def test_every_configured_net_gives_its_features_and_scores(nets: None) -> None:
    base = _base(*WEIGHTS)
    found = _score(base, _clips(33), _clips(33))
    kept = [name for name in WEIGHTS if name not in ("lpips", "stlpips")] + ["ycbcr"]
    assert list(found.features) == feature_sets(base.nets) == kept
    assert found.features["i3d"][1].tolist() == [11.0, 42.0]  # frames 1 to 32
    assert found.features["vjepa"][1].tolist() == [11.0, 26.0]  # the first 16 of those: it sees no more
    assert found.features["dino"][1].tolist() == [10 + np.arange(1, 33).mean(), 1.0]
    of_sets = ("fvd", "kvd", "jedi", "style_distance", "diversity", "memorisation")
    names = {each.name for each in study_metrics(WEIGHTS) if not each.entry.derived}
    names -= {f"similarity_64[{net}]" for net in WEIGHTS}  # 33 frames have none so far apart
    assert set(found.values) == {name for name in names if not name.startswith(of_sets)}
    assert found.clip_ids == ["a", "b"] and all(values.shape == (2,) for values in found.values.values())


def test_lpips_and_captions_by_hand(nets: None) -> None:
    generated, reference = _clips(3), _clips(3)
    reference[:, 1:] += 2
    base = _base("lpips", "stlpips", "clip_b32")
    values = _score(base, generated, reference).values
    assert values["lpips"][0] == values["stlpips[alex]"][0] == 4.0 and values["neighbours[stlpips]"][0] == 1.0
    kept = _score(base, generated, reference, dropped=0).values
    assert kept["lpips"].tolist() == [pytest.approx(8 / 3)] * 2
    cosines = [1 / np.hypot(level, 1) for level in (1, 2)]  # of (level, 1) with the caption's (0, 2)
    assert values["clip_sim[clip_b32]"][0] == pytest.approx(100 * np.mean(cosines), rel=1e-6)


def test_of_the_reference_only_metrics_without_another_clip_are_kept(nets: None) -> None:
    kept = {each.name for each in clip_metrics(("mnv2", "clip_b32", "lpips")) if each.kind == "clip"}
    families = ("consistency", "tdelta", *(f"similarity_{apart}" for apart in APART))
    of_nets = {f"{name}[{net}]" for name in families for net in ("mnv2", "clip_b32")}
    assert kept == of_nets | {"clip_sim[clip_b32]", "motion[absdiff]", "temporal_flickering"}


def test_known_flow_of_the_reference_gives_the_same_scores(nets: None) -> None:
    random = np.random.default_rng(0)
    generated, reference = (random.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    found = _score(_base(), generated, reference, flow="dis").values
    known = Batch({}, generated, reference, 1, 16.0, reference_pairs={"dis": pair_stats(reference, "dis")})
    for each in clip_metrics((), "dis"):
        assert found[each.name].tolist() == known.values(each).tolist(), each.name
    assert "warp_excess[dis]" in found
    assert "motion[dis]" not in _score(_base(), generated, reference).values


def test_parts_of_many_workers_are_merged_in_the_order_of_the_windows() -> None:
    parts = [
        Scored(["c", "a"], {"i3d": np.float32([[3], [1]])}, {"psnr": np.array([30.0, 10.0])}),
        Scored(),
        Scored(["b"], {"i3d": np.float32([[2]])}, {"psnr": np.array([20.0])}),
    ]
    found = merged(parts, ["a", "b", "c"])
    assert found.clip_ids == ["a", "b", "c"] and found.values["psnr"].tolist() == [10.0, 20.0, 30.0]
    assert found.features["i3d"].tolist() == [[1], [2], [3]] and merged([Scored()], []) == Scored()


def test_a_score_that_is_no_number_fails_the_trial() -> None:
    with pytest.raises(ValueError, match=r"psnr of b is not finite: nan"):
        scoring._check_finite(Scored(["a", "b"], {}, {"psnr": np.array([1.0, np.nan])}))


def test_reference_flow_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    base, asked = _base(), []

    def frames_of(data: DataConfig, window: Window) -> np.ndarray:
        asked.append(window.window_id)
        return frames["ab".index(window.window_id)]

    monkeypatch.setattr(base, "reference_frames", frames_of)
    both = base.reference_pairs(DataConfig(), WINDOWS, "dis")
    again = base.reference_pairs(DataConfig(), WINDOWS[1:], "dis")
    assert asked == ["a", "b"] and np.array_equal(both.error[1:], again.error)
    assert np.array_equal(both.error, pair_stats(frames, "dis").error)


def _scores_of(path: Path, base: ResidentModel, generated: Any) -> Iterator[Scored]:
    """Scores of two batches of one clip of `generated`, with flow, in the folder `path`."""
    spec = SimpleNamespace(config=TrialConfig(score=ScoreConfig(flow="dis"), data=DataConfig(fps=16.0, frames=5)))
    job: Any = SimpleNamespace(spec=spec, folder=TrialFolder(path))
    return scoring._scored(job, base, "hash", generated, [[window] for window in WINDOWS])


def test_clips_are_read_and_written_while_the_model_generates(
    nets: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    random = np.random.default_rng(2)
    generated, truth = (random.integers(0, 256, (2, 5, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    base, busy, read, written = _base("mnv2", "i3d"), Event(), Event(), []

    def frames_of(data: DataConfig, window: Window) -> np.ndarray:
        assert window is WINDOWS[0] or busy.wait(20), "read before the model is at work again"
        if window is WINDOWS[1]:
            read.set()
        return truth["ab".index(window.window_id)]

    def write(paths: list[Path], clips: np.ndarray, fps: float) -> None:
        assert busy.wait(20), "written before the model is at work again"
        written.append((paths, clips.tobytes(), fps))

    def model() -> Iterator[Any]:
        yield 0, WINDOWS[:1], generated[:1]
        busy.set()
        assert read.wait(20), "not read while the model is at work"
        yield 1, WINDOWS[1:], generated[1:]

    monkeypatch.setattr(base, "reference_frames", frames_of)
    monkeypatch.setattr(scoring, "write_clips", write)
    parts = list(_scores_of(tmp_path, base, model()))
    folder = TrialFolder(tmp_path)
    assert written == [([folder.sample(id)], generated[[row]].tobytes(), 16.0) for row, id in enumerate("ab")]
    found, expected = merged(parts, ["a", "b"]), _score(base, generated, truth, flow="dis")
    assert list(found.values) == list(expected.values) and list(found.features) == list(expected.features)
    for name, values in (found.values | found.features).items():
        assert values.tolist() == (expected.values | expected.features)[name].tolist(), name
    saved = [load_part(folder.part(index), "hash") for index in range(2)]
    assert [part and part.clip_ids for part in saved] == [["a"], ["b"]]
    assert all(part and set(part.values) == set(expected.values) for part in saved)


@pytest.mark.parametrize("bad", ["a", "b"])
def test_a_clip_that_cannot_be_written_fails_the_trial(
    nets: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: str
) -> None:
    frames, base, asked = _clips(5), _base(), []

    def write(paths: list[Path], clips: np.ndarray, fps: float) -> None:
        if paths[0].stem == bad:
            raise OSError("No space left on device")

    def model() -> Iterator[Any]:
        for row, window in enumerate(WINDOWS):
            asked.append(window.window_id)
            yield row, [window], frames[[row]]

    monkeypatch.setattr(base, "reference_frames", lambda data, window: frames[0])
    monkeypatch.setattr(scoring, "write_clips", write)
    with pytest.raises(OSError, match="No space left"):
        list(_scores_of(tmp_path, base, model()))
    folder = TrialFolder(tmp_path)
    assert [folder.part(row).exists() for row in range(2)] == [bad == "b", False], "whole parts stay, the bad one not"
