"""The scores against the same real clip: exact values on paper, and three faults of synthetic clips."""

from __future__ import annotations

import numpy as np
import pytest

from cinelora.features.clip_scores import consistency, similarity
from cinelora.features.nets.frames import Floats, Frames
from cinelora.metrics.catalogue import metric
from cinelora.metrics.gaps import gaps, profile_gap, sources
from cinelora.score.selftest.distortions import shuffle
from cinelora.score.selftest.exact import moving_clips

APART = (1, 2, 4, 8)


def test_the_area_between_two_curves_on_paper() -> None:
    real = [np.array([0.9]), np.array([0.8]), np.array([0.6])]
    above = [np.array([1.0]), np.array([1.0]), np.array([1.0])]  # 0.1, 0.2, 0.4: (0.15 + 0.3) / 2
    crossing = [np.array([0.9]), np.array([0.9]), np.array([0.5])]  # 0, 0.1, -0.1: (0.05 + 2 triangles of 0.025) / 2
    assert profile_gap(above, real) == pytest.approx([0.225])
    assert profile_gap(crossing, real) == pytest.approx([0.05])
    assert profile_gap(above[:1], real[:1]) == pytest.approx([0.1])
    assert profile_gap(real, real) == [0.0]


def test_similarity_is_the_mean_cosine_of_frames_so_far_apart() -> None:
    turning = np.array([[[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]]], dtype=np.float32)
    assert [similarity(turning, apart)[0] for apart in (1, 2, 3, 4)] == [0, 1, 0, 1]
    opposite = np.array([[[1, 0], [-1, 0], [1, 0]]], dtype=np.float32)
    assert similarity(opposite, 1) == [0]


def test_only_what_both_have_is_compared_net_by_net() -> None:
    one, two = np.array([0.5]), np.array([0.7])
    made = {"consistency[mnv2]": one, "similarity_2[dino]": one, "similarity_1[dino]": one, "psnr": one}
    real = {"consistency[mnv2]": two, "similarity_1[dino]": two, "consistency[dino]": two}
    found = gaps(made, real)
    assert found == {"consistency_gap[mnv2]": pytest.approx([0.2]), "profile_gap[dino]": pytest.approx([0.2])}
    assert sources(metric("profile_gap[dino]"), made) == ["similarity_1[dino]", "similarity_2[dino]"]
    assert sources(metric("psnr"), made) == []


def features(clips: Frames) -> Floats:
    """Grey 8 x 12 pictures, (N, T, 96)."""
    grey = clips.mean(-1).reshape(*clips.shape[:2], 8, 4, 12, 4).mean((3, 5))
    return np.asarray(grey.reshape(*clips.shape[:2], -1), dtype=np.float32)


def scores(feats: Floats) -> dict[str, np.ndarray]:
    of_pairs = {f"similarity_{apart}[mnv2]": similarity(feats, apart) for apart in APART}
    return {"consistency[mnv2]": consistency(feats), **of_pairs}


def test_frozen_shuffled_and_drifting_copies_are_told_from_the_real_clips() -> None:
    clips = moving_clips(12)
    real, steps = features(clips), np.arange(clips.shape[1])[:, None]
    away = np.random.default_rng(0).normal(size=real.shape[-1]) * real.std()
    drifting = real + (0.02 * steps**1.5 * away).astype(np.float32)
    own = scores(real)
    found = {
        name: gaps(scores(feats), own)
        for name, feats in {
            "same": real,
            "frozen": np.repeat(real[:, :1], real.shape[1], axis=1),
            "shuffled": features(shuffle(clips, 0)),
            "drifting": drifting,
        }.items()
    }
    means = {name: {score: values.mean() for score, values in each.items()} for name, each in found.items()}
    gap, profile = "consistency_gap[mnv2]", "profile_gap[mnv2]"
    assert means["same"] == {gap: 0.0, profile: 0.0}
    for fault in ("frozen", "shuffled", "drifting"):
        assert (found[fault][profile] > 0).mean() > 0.9, fault
    assert means["frozen"][gap] > 0 and means["shuffled"][gap] > 0
    near = np.abs(scores(drifting)["similarity_1[mnv2]"] - own["similarity_1[mnv2]"]).mean()
    assert means["drifting"][profile] > 3 * near, "neighbours hide the drift"
