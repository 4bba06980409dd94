"""The self-tests themselves: the exact ones pass, a blind score is caught, faults are what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cinelora.metrics.distances import polynomial_mmd, standardise
from cinelora.score.selftest import __main__ as selftest
from cinelora.score.selftest.__main__ import (
    DRAWS,
    Material,
    Result,
    broken,
    load_nets,
    main,
    measure,
    run_checks,
    sensitivity_table,
    table,
)
from cinelora.score.selftest.distortions import CRFS, DISTORTIONS, shake
from cinelora.score.selftest.exact import EXACT_CHECKS, Check, moving_clips
from cinelora.score.selftest.footage import FOOTAGE_CHECKS, Evidence, sensitivity

CLIPS = moving_clips(6, size=(32, 48), frames=9)


@pytest.mark.parametrize("check", EXACT_CHECKS, ids=lambda check: check.name)
def test_exact_check(check: Check) -> None:
    findings = check.run()
    assert findings and all(finding.ok for finding in findings), findings


def test_the_numbers_are_those_of_the_list() -> None:
    numbers = sorted(check.number for check in (*EXACT_CHECKS, *FOOTAGE_CHECKS))
    assert numbers == list(range(1, 19))


@pytest.mark.parametrize("fault", list(DISTORTIONS))
def test_a_fault_is_repeatable_and_leaves_the_clips_alone(fault: str) -> None:
    before = CLIPS.copy()
    found = DISTORTIONS[fault](CLIPS, 3)
    assert np.array_equal(CLIPS, before) and found.dtype == np.uint8
    assert found.shape == (CLIPS.shape if fault != "double speed" else (6, 5, 32, 48, 3))
    assert np.array_equal(found, DISTORTIONS[fault](CLIPS, 3))


def _frame_numbers(fault: str) -> list[int]:
    """Which frame stands where, read off clips whose frame t has level t."""
    numbered = np.broadcast_to(np.arange(9, dtype=np.uint8)[None, :, None, None, None], (1, 9, 16, 24, 3))
    return [int(level) for level in DISTORTIONS[fault](numbered, 0)[0, :, 0, 0, 0]]


def test_faults_of_order() -> None:
    assert _frame_numbers("freeze") == [0] * 9
    assert _frame_numbers("hold 2") == [0, 0, 2, 2, 4, 4, 6, 6, 8]
    assert _frame_numbers("hold 4") == [0, 0, 0, 0, 4, 4, 4, 4, 8]
    assert _frame_numbers("half speed") == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert _frame_numbers("double speed") == [0, 2, 4, 6, 8]
    assert _frame_numbers("reverse") == list(range(9))[::-1]
    assert _frame_numbers("swap 8") == [1, 0, 3, 2, 5, 4, 7, 6, 8]  # only four pairs fit
    assert sum(a != b for a, b in enumerate(_frame_numbers("swap 1"))) == 2
    assert sorted(_frame_numbers("shuffle")) == list(range(9)) != _frame_numbers("shuffle")


def test_mixtures_take_the_other_clip() -> None:
    a, b = np.zeros((1, 4, 16, 16, 3), np.uint8), np.ones((1, 4, 16, 16, 3), np.uint8)
    both = np.concatenate([a, b])
    assert DISTORTIONS["interleave"](both, 0)[0, :, 0, 0, 0].tolist() == [0, 1, 0, 1]
    assert DISTORTIONS["switch"](both, 0)[1, :, 0, 0, 0].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("twins", [("static shift", "jitter"), ("static warp", "warp per frame")])
def test_static_faults_are_one_field_and_the_others_many(twins: tuple[str, str]) -> None:
    still = np.repeat(CLIPS[:1, :1], 5, axis=1)
    static, fresh = (DISTORTIONS[name](still, 0)[0] for name in twins)
    assert np.array_equal(static[0], static[4]) and not np.array_equal(static[0], still[0, 0])
    assert not np.array_equal(fresh[0], fresh[1])
    assert np.array_equal(static[0], fresh[0])  # one distribution: the first draw of both


def test_noise_and_flicker_have_their_size() -> None:
    grey = np.full((1, 64, 16, 16, 3), 100, np.uint8)
    static, fresh = (DISTORTIONS[name](grey, 0)[0].astype(float) for name in ("static noise", "fresh noise"))
    assert not np.diff(static, axis=0).any() and fresh.std() == pytest.approx(15, rel=0.02)
    assert static.std() == pytest.approx(15, rel=0.1)
    assert set(np.unique(DISTORTIONS["flicker 10 %"](grey, 0))) == {90, 110}
    errors = [np.abs(DISTORTIONS[f"crf {crf}"](CLIPS, 0).astype(int) - CLIPS).mean() for crf in CRFS]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert np.array_equal(shake(grey, 0, per_frame=True), grey)  # nothing in it to move


def _change(frames: np.ndarray) -> np.ndarray:
    """A frame net: levels on a coarse grid, (N, T, 6)."""
    return frames.mean(axis=-1).reshape(*frames.shape[:2], 2, 16, 3, 16).mean(axis=(3, 5)).reshape(*frames.shape[:2], 6)


def test_a_frame_net_gives_a_content_and_a_temporal_column() -> None:
    material = Material("made", CLIPS, 3)
    seen = measure(material, {"grid": lambda clips: _change(clips).astype(np.float32)}, ("clean", "shuffle", "freeze"))
    assert seen.content == ["grid"] and seen.temporal == ["grid delta"]
    assert seen.distance["grid"]["clean"] == seen.distance["grid delta"]["clean"] == pytest.approx(0.0, abs=1e-9)
    assert abs(seen.distance["grid"]["shuffle"]) < 1e-6 < seen.distance["grid delta"]["shuffle"]
    assert {"tdelta[grid]", "consistency[grid]", "motion[dis]"} <= set(seen.scores)
    assert seen.scores["motion[dis]"]["freeze"] == 0.0 and set(seen.between) == {"grid", "grid delta"}


def test_gaps_are_those_to_the_clean_clips() -> None:
    def encode(clips: np.ndarray) -> np.ndarray:
        return _change(clips).astype(np.float32)

    seen = measure(Material("made", CLIPS[:4], 2), {"mnv2": encode}, ("clean", "freeze"))
    for name in ("consistency_gap[mnv2]", "profile_gap[mnv2]", "warp_excess[dis]"):
        assert seen.scores[name]["clean"] == 0 != seen.scores[name]["freeze"]


def test_a_net_of_pairs_is_asked_for_four_clips_and_their_clean_ones() -> None:
    def compare(clips: np.ndarray, real: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        assert len(clips) == 4
        levels = clips.mean(axis=(2, 3, 4))
        return np.abs((levels - real.mean(axis=(2, 3, 4))) if real is not None else levels[:, :0]), np.diff(
            levels, axis=1
        )

    seen = measure(Material("made", CLIPS, 3), {"stlpips": compare}, ("clean", "freeze", "double speed"))
    assert seen.distance == seen.between == {}
    assert seen.scores["stlpips[alex]"]["clean"] == 0 < seen.scores["stlpips[alex]"]["freeze"]
    assert (
        set(seen.scores["stlpips[alex]"]) == {"clean", "freeze"} and seen.scores["neighbours[stlpips]"]["freeze"] == 0
    )
    assert "double speed" in seen.scores["neighbours[stlpips]"]


def test_warps_are_averaged_over_draws() -> None:
    def encode(clips: np.ndarray) -> np.ndarray:
        return _change(clips).mean(axis=1).astype(np.float32)

    seen = measure(Material("made", CLIPS, 3), {"grid": encode}, ("static warp",))
    draws = []
    for seed in range(DRAWS["static warp"]):
        real, made = standardise(encode(CLIPS), encode(DISTORTIONS["static warp"](CLIPS, seed)))
        draws.append(polynomial_mmd(real, made, matched=True))
    assert seen.distance["grid"]["static warp"] == pytest.approx(np.mean(draws)) and len(set(draws)) == 5
    assert seen.temporal == ["grid"]  # one vector a clip is taken to see time


RISING = (
    "clean", "static shift", "static warp", "static noise", "swap 1", "swap 2", "swap 4", "swap 8", "hold 2", "hold 4",
    "freeze", "shuffle", "reverse", "jitter", "warp per frame", "fresh noise", "flicker 2 %", "flicker 5 %",
    "flicker 10 %", "crf 18", "crf 28", "crf 38", "cropped", "squashed", "switch", "interleave",
)  # fmt: skip


def _evidence(**changes: Mapping[str, float]) -> Evidence:
    """Evidence that passes every check, with values of `temporal`, `content` or a score changed."""
    rising = {fault: float(index) for index, fault in enumerate(RISING)}
    content = rising | {"shuffle": 0.0, "reverse": 0.0, "warp per frame": 2.1}
    scores = {
        "motion[dis]": rising | {"clean": 1.0, "freeze": 0.0, "double speed": 2.0, "half speed": 0.5},
        "temporal_flickering": {fault: -value for fault, value in rising.items()} | {"freeze": 1.0, "static noise": 0},
        "warp_error[dis]": rising,
        "tdelta[net]": rising,
        "stlpips[alex]": rising,
        "neighbours[stlpips]": rising | {"freeze": 0.0},
        "consistency[net]": rising,
        "consistency_gap[net]": rising,
        "profile_gap[net]": rising,
        "warp_excess[dis]": rising | {"freeze": -1.0},
    }
    distance = {"temporal": rising | changes.get("temporal", {}), "content": content | changes.get("content", {})}
    scores = {name: values | changes.get(name.split("[")[0], {}) for name, values in scores.items()}
    return Evidence("made", {"temporal": True, "content": False}, distance, {"temporal": 1.0, "content": 1.0}, scores)


def _broken_numbers(evidence: Evidence) -> set[int]:
    return {c.number for c in FOOTAGE_CHECKS if any(finding.ok is False for finding in c.run(evidence))}


def test_good_evidence_breaks_nothing() -> None:
    assert _broken_numbers(_evidence()) == set()
    assert sensitivity(_evidence(), "temporal") == 7.0
    assert sensitivity(_evidence(temporal={"static warp": -0.1}), "temporal") is None


@pytest.mark.parametrize(
    ("subject", "values", "number"),
    [
        ("content", {"shuffle": 0.1}, 5),
        ("temporal", {"swap 4": 5.0}, 6),
        ("temporal", {"hold 2": -0.1}, 7),
        ("consistency", {"freeze": -1.0}, 7),
        ("motion", {"freeze": 0.1}, 7),
        ("temporal", {"jitter": 1.2}, 8),
        ("temporal", {"static warp": 8.0}, 9),
        ("content", {"warp per frame": 2.4}, 9),
        ("tdelta", {"static noise": 9.0}, 10),
        ("temporal", {"flicker 5 %": 15.0}, 11),
        ("temporal_flickering", {"flicker 10 %": 0.0}, 11),
        ("content", {"reverse": 0.1}, 12),
        ("motion", {"half speed": 0.9}, 13),
        ("motion", {"double speed": 1.0}, 13),
        ("content", {"crf 28": 0.0}, 14),
        ("temporal", {"interleave": 10.0}, 15),
        ("temporal", {"switch": -0.1}, 15),
        ("warp_error", {"switch": -1.0}, 15),
        ("consistency_gap", {"freeze": 1.0}, 17),
        ("profile_gap", {"clean": 0.1}, 17),
        ("warp_excess", {"interleave": 0.0}, 17),
        ("stlpips", {"clean": 0.1}, 18),
        ("stlpips", {"freeze": 1.0}, 18),
        ("stlpips", {"static shift": 2.5}, 18),
        ("neighbours", {"freeze": 0.1}, 18),
        ("neighbours", {"interleave": 0.0}, 18),
    ],
)
def test_a_score_that_does_not_see_is_caught(subject: str, values: dict[str, float], number: int) -> None:
    evidence = _evidence(**{subject: values})
    assert _broken_numbers(evidence) == {number}
    results = [Result(check, "made", check.run(evidence)) for check in FOOTAGE_CHECKS]
    assert broken(results) >= 1 and "BROKEN" in table(results)


def test_tables_name_every_check_and_net() -> None:
    evidence = _evidence()
    text = table(run_checks([evidence]))
    assert all(f"{check.number:2d} {check.name}: " in text for check in (*EXACT_CHECKS, *FOOTAGE_CHECKS))
    assert "BROKEN" not in text and "note   made" in text
    assert "n/a" in sensitivity_table([_evidence(temporal={"static warp": 0.0})])


def test_exit_status_says_whether_an_order_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_nets(tmp_path) == {}
    seen = _evidence()
    monkeypatch.setattr(selftest, "measure", lambda material, nets: seen)
    monkeypatch.setattr(selftest, "EXACT_CHECKS", ())
    for found, code in ((_evidence(), 0), (_evidence(content={"shuffle": 1.0}), 1)):
        seen = found
        assert main(["--cache", str(tmp_path), "--clips", "4"]) == code
    said = capsys.readouterr().out
    assert "tnv2: n/a (needs " in said and "sample clips: n/a" in said and "0 findings broken" in said


def test_too_few_clips_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--clips", "3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
