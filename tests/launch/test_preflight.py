"""Planning: hashes of the configured feature nets, clips that a net cannot process, models that are not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cinelora.core.cli import UserError
from cinelora.core.config import (
    AnswerConfig,
    DataConfig,
    LongCaptions,
    Method,
    ModelConfig,
    SampleConfig,
    ScoreConfig,
    StudyConfig,
    TrialConfig,
)
from cinelora.core.files import file_sha256
from cinelora.data.windows import Window, WindowPlan
from cinelora.wan import checkpoint as models
from cinelora.wan.checkpoint import EXAMPLE
from launch.preflight import Fingerprints, check_nets, make_plan, planning_cache, trial_config
from sweeps.plan import trial_spec
from tests import tiny_study


@pytest.fixture
def fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fingerprints:
    """Fingerprints of a data set and a model that are not read."""
    monkeypatch.setattr(Fingerprints, "_windows", lambda self, data: WindowPlan((), (), "data"))
    monkeypatch.setattr(Fingerprints, "_model", lambda self, config: "model")
    return Fingerprints(tmp_path / "cache")


def test_whatever_is_configured_is_hashed_and_nothing_else(tmp_path: Path, fingerprints: Fingerprints) -> None:
    plain = fingerprints.of(TrialConfig())
    assert set(plain) == {"data", "encoder", "model"}
    for name in ("i3d.pt", "vith16.pth.tar", "ssv2-probe.pth.tar"):
        (tmp_path / name).write_text(name)
    found = fingerprints.of(TrialConfig(score=ScoreConfig(i3d=str(tmp_path / "i3d.pt"), vjepa=str(tmp_path))))
    assert found == plain | {
        "i3d": file_sha256(tmp_path / "i3d.pt"),
        "vjepa.encoder": file_sha256(tmp_path / "vith16.pth.tar"),
        "vjepa.probe": file_sha256(tmp_path / "ssv2-probe.pth.tar"),
    }


def test_a_study_without_clips_has_no_frozen_row_and_needs_no_net(
    fingerprints: Fingerprints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fingerprints, "denoiser", lambda self, model: {"num_attention_heads": 1})
    without = StudyConfig(sample=SampleConfig(clips=False), score=ScoreConfig(i3d="nowhere.pt"))
    plan = make_plan([without], fingerprints)
    assert [spec.config.method.value for spec in plan.trials] == ["base", "lora"]
    assert {tuple(spec.fingerprints) for spec in plan.trials} == {("data", "encoder", "model")}
    for configs, message in (
        ([without, replace(without, sample=SampleConfig())], "sample.clips: has two values in one study"),
        ([replace(without, method=Method.frozen)], "sample.clips=false: method=frozen has no held-out loss"),
        ([replace(without, answer=AnswerConfig(scores=["psnr"]))], "answer.scores=psnr: needs clips"),
    ):
        with pytest.raises(UserError, match=message):
            make_plan(configs, fingerprints)


def test_a_pin_decides_and_a_changed_pin_is_seen(tmp_path: Path, fingerprints: Fingerprints) -> None:
    own = tmp_path / "own.pth"
    own.write_text("trained by us")
    score = ScoreConfig(dino=str(own))
    with pytest.raises(UserError, match=r"score\.dino=.*SHA-256 of the weights expected.*pin score\.dino_sha256"):
        fingerprints.of(TrialConfig(score=score))
    pinned = replace(score, dino_sha256=file_sha256(own))
    assert fingerprints.of(TrialConfig(score=pinned))["dino"] == file_sha256(own)
    with pytest.raises(UserError, match="expected aaaa"):
        fingerprints.of(TrialConfig(score=replace(score, dino_sha256="a" * 64)))


@pytest.mark.parametrize(
    ("score", "data", "message"),
    [
        (
            ScoreConfig(i3d="w.pt"),
            DataConfig(frames=9),
            r"score\.i3d=w\.pt: needs 10 scored frames, data\.frames=9 gives 8",
        ),
        (ScoreConfig(lpips="w.pt"), DataConfig(height=16), r"score\.lpips=w\.pt: needs 31 pixels a side, there are 16"),
        (ScoreConfig(stlpips="w"), DataConfig(height=16), r"score\.stlpips=w: needs 21 pixels a side, there are 16"),
        (ScoreConfig(clip_b32="nowhere"), DataConfig(), r"score\.clip_b32=nowhere: no tokenizer there"),
    ],
)
def test_what_a_net_cannot_process_is_refused_before_training(
    score: ScoreConfig, data: DataConfig, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_nets(TrialConfig(score=score, data=data))


def test_what_a_net_can_process_passes() -> None:
    check_nets(TrialConfig(score=ScoreConfig(i3d="w", videomae="w", lpips="w"), data=DataConfig(frames=17)))
    check_nets(TrialConfig(score=ScoreConfig(i3d="w", keep_first_frame=True), data=DataConfig(frames=13)))


def test_captions_that_the_model_would_cut_are_named_and_refused(tmp_path: Path) -> None:
    clips = tiny_study.write_clips(tmp_path / "clips")
    rows = (clips / "metadata.csv").read_text().splitlines()
    fits, long = "x" * 511, "y" * 512  # the tiny model has one token per byte, and one for the end
    (clips / "metadata.csv").write_text("\n".join([*rows[:2], f"clip1.mp4,{long}", f"clip2.mp4,{fits}", rows[4]]))
    config = tiny_study.tiny_config(clips)
    with pytest.raises(UserError) as refused:
        Fingerprints(tmp_path / "cache").of(config)
    assert str(refused.value) == (
        "data.long_captions=refuse: more tokens than the 512 that the model reads: metadata.csv line 3 (513); "
        "shorten them, or set data.long_captions=cut"
    )
    cutting = Fingerprints(tmp_path / "cache")
    sample = replace(config.sample, negative_prompt="z" * 600)
    cut = replace(config, data=replace(config.data, long_captions=LongCaptions.cut), sample=sample)
    found = [cutting.of(cut), cutting.of(cut)]
    assert cutting.remarks == [
        "data.long_captions=cut: more tokens than the 512 that the model reads, cut there: "
        "metadata.csv line 3 (513), sample.negative_prompt (601)"
    ]
    assert trial_spec(config, found[0]).trial_id == trial_spec(replace(cut, sample=config.sample), found[1]).trial_id


def test_captions_that_clip_would_cut_are_counted(
    tmp_path: Path, fingerprints: Fingerprints, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [Window("a", "a.mp4", caption, "a", 0.0, "heldout") for caption in ("short", "long")]
    monkeypatch.setattr(Fingerprints, "_windows", lambda self, data: WindowPlan((), tuple(windows), "data"))
    monkeypatch.setattr("launch.preflight.weight_fingerprints", lambda *_: {})
    monkeypatch.setattr("cinelora.features.nets.clip.token_counts", lambda folder, texts: [78, 77])
    (tmp_path / "tokenizer.json").touch()
    fingerprints.of(TrialConfig(score=ScoreConfig(clip_b32=str(tmp_path))))
    assert fingerprints.remarks == [
        "score.clip_b32: 1 of 2 held-out captions have more than the 77 tokens that CLIP reads; "
        "clip_sim[clip_b32] compares with their beginning"
    ]


def test_paths_mean_the_same_to_a_worker_elsewhere() -> None:
    score = trial_config(StudyConfig(score=ScoreConfig(i3d="w.pt", vjepa="/models"))).score
    assert (score.i3d, score.vjepa, score.dino) == (str(Path("w.pt").resolve()), "/models", "")


def test_a_plan_needs_no_checkpoint_and_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(config: ModelConfig) -> Path:
        raise UserError(f"model.hub={config.hub}: not in the hub's cache")

    monkeypatch.setattr(models, "_hub_folder", absent)
    monkeypatch.setattr(Fingerprints, "_windows", lambda self, data: WindowPlan((), (), "data"))
    config = TrialConfig(model=ModelConfig(path="", hub=EXAMPLE, revision="abc"))
    planning = Fingerprints(tmp_path, plan_only=True)
    assert len(planning.of(config)["model"]) == 64 and planning.denoiser(config.model)["num_layers"] == 40
    assert planning.remarks == [
        f"model.hub={EXAMPLE}: not here, planned by its published sizes; fetch: hf download {EXAMPLE} --revision abc"
    ]
    with pytest.raises(UserError, match="not in the hub's cache"):
        Fingerprints(tmp_path).of(config)
    other = TrialConfig(model=ModelConfig(path="", hub="somebody/else"))
    with pytest.raises(UserError, match="somebody/else"):
        planning.of(other)


def test_a_cache_that_cannot_be_written_is_planned_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    for name in ("models/tiny", "encodings/abc"):
        (cache / name).mkdir(parents=True)
    with planning_cache(cache) as found:
        assert found == cache

    def refused(name: str, folder: Path) -> None:
        raise UserError(f"{name} {folder}: cannot be written")

    monkeypatch.setattr("launch.preflight.check_writable", refused)
    with planning_cache(cache) as found:
        (found / "encodings" / "abc").mkdir(parents=True)
        assert (found / "models" / "tiny").samefile(cache / "models" / "tiny")
    assert list((cache / "encodings" / "abc").iterdir()) == [] and not found.exists()
