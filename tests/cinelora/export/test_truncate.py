"""Truncating the adapters of a real tiny study: at full rank the loss is reproduced; finished ones are skipped."""

from __future__ import annotations

import csv
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cinelora.core.cli import UserError
from cinelora.core.config import LoraConfig, Method, TrainConfig, TrialConfig
from cinelora.core.files import read_json, write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialResult, TrialSpec, TruncationResult
from cinelora.export.truncate import main, truncate_adapter, truncate_study, truncated_adapters
from cinelora.trial.run import HELDOUT_LOSS
from tests.tiny_study import make_job, run, tiny_config


@pytest.fixture(scope="module")
def finished(study_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, Path]:
    """(a study with rank 4 trained under rsLoRA at scale 3.5 and rank 2 only planned, its cache)."""
    settings = {"lora__scaling": "rslora", "lora__alpha": 7.0, "train__learning_rate": 3e-2}
    study = StudyFolder(tmp_path_factory.mktemp("truncation") / "study")
    jobs = [
        replace(make_job(study_root, tiny_config(study_root / "clips", lora__rank=rank, **settings)), study=study)
        for rank in (4, 2)
    ]
    write_json(study.plan, {"trials": [job.spec.to_json() for job in jobs]})
    result = run(jobs[0])
    assert result.scale == 3.5
    return study, jobs[0].cache_dir


@pytest.fixture
def study(finished: tuple[StudyFolder, Path], tmp_path: Path) -> StudyFolder:
    return StudyFolder(shutil.copytree(finished[0].root, tmp_path / "study"))


@pytest.fixture
def cache(finished: tuple[StudyFolder, Path]) -> Path:
    return finished[1]


def change(path: Path, **fields: Any) -> None:
    write_json(path, {**read_json(path), **fields})


def test_the_whole_adapter_gives_its_recorded_loss(study: StudyFolder, cache: Path) -> None:
    source = truncated_adapters(study, scored=False)[0]
    whole, half = truncate_study(study, cache)
    assert (whole.rank, half.rank, whole.kept) == (4, 2, 1.0) and 0 < half.kept < 1
    assert source.result.heldout_loss == pytest.approx(whole.heldout_loss, abs=1e-6)
    assert abs(half.heldout_loss - whole.heldout_loss) > 1e-6
    place = study.truncation.trial(f"{source.spec.trial_id}-r2")
    assert TruncationResult.from_json(read_json(place.result)) == half and not half.scored
    with open(place.clip_scores, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["metric"] for row in rows} == {HELDOUT_LOSS}
    assert np.mean([float(row["value"]) for row in rows]) == half.heldout_loss
    norms = read_json(study.weight_norms(source.spec.fingerprints["model"]))
    assert norms["blocks.0.attn2.to_q"] > 0 and not any("norm" in name for name in norms)
    assert truncate_study(study, cache) == []


def test_trials_whose_workers_shared_tokens_are_truncated_in_one_process(study: StudyFolder, cache: Path) -> None:
    plan = read_json(study.plan)
    for trial in plan["trials"]:
        trial["config"]["model"]["sequence_workers"] = 2
    write_json(study.plan, plan)
    whole, _ = truncate_study(study, cache)
    assert whole.heldout_loss == pytest.approx(truncated_adapters(study, False)[0].result.heldout_loss, abs=1e-6)


def test_scores_are_added_to_what_is_done_and_equal_losses_stay(study: StudyFolder, cache: Path) -> None:
    _, half = truncate_study(study, cache)
    [again] = truncate_study(study, cache, scored=True)
    assert again == replace(half, scored=True)
    place = study.truncation.trial(f"{half.trial_id}-r2")
    assert "psnr" in place.clip_scores.read_text() and not list(place.root.glob("parts/*"))
    assert [clip.stem for clip in place.root.glob("samples/*.mp4")] == ["clip1_s00_w000"]
    assert truncate_study(study, cache) == truncate_study(study, cache, scored=True) == []


def test_an_adapter_trained_again_is_truncated_again(study: StudyFolder, cache: Path) -> None:
    truncate_study(study, cache)
    change(study.trial(truncated_adapters(study, scored=False)[0].spec.trial_id).result, adapter_sha256="another")
    assert [each.done(study) for each in truncated_adapters(study, scored=False)] == [False, False]


def test_a_planted_adapter_of_rank_2_is_kept_whole(study: StudyFolder, tmp_path: Path) -> None:
    path = study.trial(truncated_adapters(study, scored=False)[0].spec.trial_id).adapter_file
    tensors = load_file(path)
    for name, each in tensors.items():
        each[(slice(2, None), ...) if ".lora_A." in name else (..., slice(2, None))] = 0
    save_file(tensors, tmp_path / "planted")
    factors, kept = truncate_adapter(tmp_path / "planted", 3.5, 2)
    assert kept == 1.0 and len(factors) == len(tensors) / 2
    for layer, (a, b) in factors.items():
        full_a, full_b = (tensors[f"transformer.{layer}.lora_{which}.weight"].astype(np.float64) for which in "AB")
        assert b @ a == pytest.approx(3.5 * full_b @ full_a, abs=1e-12)


def test_refusals_are_one_line(study: StudyFolder, cache: Path, tmp_path: Path, capsys: Any) -> None:
    result = study.trial(truncated_adapters(study, scored=False)[0].spec.trial_id).result
    recorded = read_json(result)["heldout_loss"]
    change(result, heldout_loss=recorded + 0.01)
    with pytest.raises(UserError, match="its adapter gives heldout_loss"):
        truncate_study(study, cache)
    assert not list(study.truncation.root.rglob("result.json"))
    assert main([str(study.root), "--cache", str(tmp_path / "empty")]) == 2
    plan = read_json(study.plan)
    for trial in plan["trials"]:
        trial["fingerprints"]["model"] = "0" * 64
    write_json(study.plan, plan)
    assert main([str(study.root), "--cache", str(cache)]) == 2
    result.unlink()
    assert main([str(study.root), "--cache", str(cache)]) == 2
    assert main([str(tmp_path), "--cache", str(cache)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cinelora:")]
    wanted = (
        "does not hold all encodings",
        "is not the base model",
        "no finished adapter",
        "give the folder of a study",
    )
    assert len(lines) == 4 and all(words in line for words, line in zip(wanted, lines, strict=True))


def planned(folder: StudyFolder, finished: set[str], **trials: dict[str, Any]) -> StudyFolder:
    """A study of trials given by rank, seed and rate, without files but plan and results."""
    specs = [
        TrialSpec(
            name,
            TrialConfig(
                method=each.get("method", Method.lora),
                arm=each.get("arm", ""),
                seed=each.get("seed", 0),
                lora=LoraConfig(rank=each["rank"]),
                train=TrainConfig(learning_rate=each.get("rate", 1e-3)),
            ),
            {"model": "m", "data": "d"},
        )
        for name, each in trials.items()
    ]
    write_json(folder.plan, {"trials": [spec.to_json() for spec in specs]})
    blank = {item.name: None for item in fields(TrialResult)}
    for spec in specs:
        if spec.trial_id in finished:
            write_json(folder.trial(spec.trial_id).result, {**blank, "rank": spec.config.lora.rank})
    return folder


def ranks_by_trial(folder: StudyFolder) -> dict[str, list[int]]:
    ranks: dict[str, list[int]] = {}
    for each in truncated_adapters(folder, scored=False):
        ranks.setdefault(each.spec.trial_id, []).append(each.rank)
    return ranks


def test_each_seed_has_its_largest_finished_rank_truncated(tmp_path: Path) -> None:
    """Rates are tuned to ranks and split nothing; controls, full fine-tunes and lone ranks are left out."""
    folder = planned(
        StudyFolder(tmp_path),
        {"a1", "a4", "b8", "c8", "full"},
        a1={"rank": 1, "rate": 1e-2},
        a4={"rank": 4},
        a8={"rank": 8},
        b1={"rank": 1, "rate": 1e-2, "seed": 1},
        b8={"rank": 8, "seed": 1},
        c8={"rank": 8, "arm": "source_clips"},
        full={"rank": 16, "method": Method.full},
    )
    assert ranks_by_trial(folder) == {"a4": [4, 1], "b8": [8, 1]}


def test_two_rates_at_one_rank_are_two_series(tmp_path: Path) -> None:
    trials = {f"r{rank}at{rate}": {"rank": rank, "rate": float(rate)} for rank in (2, 4) for rate in ("1e-3", "1e-2")}
    folder = planned(StudyFolder(tmp_path), set(trials) - {"r4at1e-2"}, **trials)
    assert ranks_by_trial(folder) == {"r4at1e-3": [4, 2]}
