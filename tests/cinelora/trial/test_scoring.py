"""Features and clip scores of a batch, net by net, with nets that are worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinelora.core.config import DataConfig
from cinelora.data.windows import Window
from cinelora.features import extract as extraction
from cinelora.features.extract import CLIP_VALUES, Batch, feature_nets, score_batch
from cinelora.features.motion import FLOWS, Footage, pair_stats
from cinelora.features.nets import NETS, Net
from cinelora.metrics.catalogue import OF_FLOW, directions
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

    def pair(net: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first[:, :, 0, 0, 0].astype(np.float32) - second[:, :, 0, 0, 0]) ** 2

    for name, facts in WEIGHTS.items():
        extract = {"video": video, "frame": frame, "pair": pair}[facts.kind]
        monkeypatch.setitem(NETS, name, Net(facts, NETS[name].load, extract))
    monkeypatch.setattr(extraction, "text_features", lambda net, texts: np.tile(np.float32([0, len(texts)]), (2, 1)))


def _base(*names: str) -> ResidentModel:
    return ResidentModel(("", "", False), Path(), None, None, dict.fromkeys(names))


def test_every_configured_net_gives_its_features_and_scores(nets: None) -> None:
    base = _base(*WEIGHTS)
    found = score_batch(base.nets, WINDOWS, _clips(33), _clips(33), first=False)
    kept = [name for name in WEIGHTS if name != "lpips"] + ["ycbcr"]
    assert list(found.features) == feature_nets(base.nets) == kept
    assert found.features["i3d"][1].tolist() == [11.0, 42.0]  # frames 1 to 32
    assert found.features["vjepa"][1].tolist() == [11.0, 26.0]  # the first 16 of those: it sees no more
    assert found.features["dino"][1].tolist() == [10 + np.arange(1, 33).mean(), 1.0]
    of_sets = ("fvd", "kvd", "jedi", "style_distance", "diversity", "memorisation")
    clip_metrics = {name for name in directions(WEIGHTS) if not name.startswith(of_sets)}
    assert {row.metric for row in found.rows} == clip_metrics
    assert {row.clip_id for row in found.rows} == {"a", "b"}


def test_lpips_and_captions_by_hand(nets: None) -> None:
    made, true = _clips(3), _clips(3)
    true[:, 1:] += 2
    base = _base("lpips", "clip_b32")
    rows = score_batch(base.nets, WINDOWS, made, true, first=False).rows
    values = {(row.clip_id, row.metric): row.value for row in rows}
    assert values["a", "lpips"] == 4.0
    kept = score_batch(base.nets, WINDOWS, made, true, first=True).rows
    assert [row.value for row in kept if row.metric == "lpips"] == [pytest.approx(8 / 3)] * 2
    cosines = [1 / np.hypot(level, 1) for level in (1, 2)]  # of (level, 1) with the caption's (0, 2)
    assert values["a", "clip_sim[clip_b32]"] == pytest.approx(100 * np.mean(cosines), rel=1e-6)


def test_only_what_a_true_clip_can_be_asked_is_kept_of_the_reference(nets: None) -> None:
    base = _base("mnv2", "clip_b32", "lpips")
    rows = score_batch(base.nets, WINDOWS, _clips(3), _clips(3), first=False).rows
    kept = {row.metric for row in rows if scoring.family(row.metric) in scoring.OF_REAL_CLIPS}
    of_nets = {f"{name}[{net}]" for name in ("consistency", "tdelta") for net in ("mnv2", "clip_b32")}
    assert kept == of_nets | {"clip_sim[clip_b32]", "motion[absdiff]", "temporal_flickering"}


def test_flow_scores_are_those_of_the_command(nets: None) -> None:
    random = np.random.default_rng(0)
    made, true = (random.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    known = pair_stats(true, FLOWS["dis"])
    batch = Batch(made, true, 1, 16.0, {})
    found = score_batch(_base(), WINDOWS, made, true, False, Footage(made, 16.0, true, "dis", known))
    values = {(row.clip_id, row.metric): row.value for row in found.rows}
    for name in (*OF_FLOW, "temporal_flickering"):
        expected = CLIP_VALUES[name](batch, "dis")
        full = name if name == "temporal_flickering" else f"{name}[dis]"
        assert [values[clip, full] for clip in ("a", "b")] == expected.tolist(), name
    assert "motion[dis]" not in {row.metric for row in score_batch(_base(), WINDOWS, made, true, False).rows}


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
    assert np.array_equal(both.error, pair_stats(frames, FLOWS["dis"]).error)
