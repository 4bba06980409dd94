"""What a sweep and the commands do on a GPU, at the smallest size.

    make test-gpu                                             skipped, with the reason, on a machine without a GPU
    CINELORA_TEST_GPU=cpu python -m pytest -m gpu             the same on the CPU, to test these tests

Bits differ from the CPU's and among ZeRO stages: the tolerances are of float32. The same run again has equal bits.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

from cinelora import distributed
from cinelora.core.config import Checkpointing, Dtype, LoraConfig, TargetSet
from cinelora.core.files import read_json, write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.seeds import draw_noise
from cinelora.data.video import read_all, write_mp4
from cinelora.export.__main__ import main as export
from cinelora.export.truncate import truncate_study
from cinelora.metrics.distances import frechet_distance, kernel_distance
from cinelora.metrics.torchmetrics import FrechetVideoDistance, KernelVideoDistance
from cinelora.render.__main__ import main as render
from cinelora.score.__main__ import main as score
from cinelora.training.batch import training_batch
from cinelora.training.heldout import window_losses
from cinelora.trial import resident as base
from cinelora.trial.job import Job
from cinelora.trial.resident import ResidentModel, load_resident_model
from cinelora.wan import acceleration, lora, sampler
from cinelora.wan.acceleration import checkpoint_blocks
from cinelora.wan.encoding import Encodings
from cinelora.wan.loading import load_transformer, load_vae
from tests import tiny_study
from tests.cinelora.export.test_export import velocity
from tests.launch.test_sweep import results, sweep

pytestmark = pytest.mark.gpu
WEIGHTS = Path(os.environ.get("CINELORA_CACHE", ".cache")) / "weights"
CLOSE = {"rel": 2e-3}  # losses after some steps of training


def make_job(root: Path, study: Path, **changes: Any) -> Job:
    settings = {"lora__rank": 4, "zero__persistence_threshold": 0, **changes}
    job = tiny_study.make_job(root, tiny_study.tiny_config(root / "clips", **settings))
    return replace(job, study=StudyFolder(study))


@pytest.fixture(scope="module")
def resident(study_root: Path) -> ResidentModel:
    job = make_job(study_root, study_root / "base")
    if not torch.distributed.is_initialized():
        distributed.start(0, 1, "127.0.0.1", distributed.free_port())
    return load_resident_model(job)


@pytest.fixture(scope="module")
def finished(study_root: Path, resident: ResidentModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Any]:
    """A study with rank 4 trained and rank 2 planned: (its job, its result)."""
    study = tmp_path_factory.mktemp("gpu") / "study"
    jobs = [make_job(study_root, study, lora__rank=rank) for rank in (4, 2)]
    write_json(jobs[0].study.plan, {"trials": [job.spec.to_json() for job in jobs]})
    write_json(jobs[0].folder.spec, jobs[0].spec.to_json())
    return jobs[0], tiny_study.run(jobs[0], resident)


@pytest.fixture
def adapted(resident: ResidentModel) -> Iterator[ResidentModel]:
    """The base under an adapter that changes its output."""
    for name, parameter in lora.attach(resident.transformer, LoraConfig(rank=2), seed=0):
        if ".lora_B" in name:
            parameter.data = 0.1 * draw_noise(tuple(parameter.shape), name).to(parameter)
    yield resident
    lora.detach(resident.transformer)


# --- training ---


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_trains_and_resumes(
    study_root: Path, tmp_path: Path, finished: tuple[Job, Any], stage: int
) -> None:
    class Killed(Exception):
        pass

    def kill(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train" and done == 5:  # one step past the checkpoint at 4
            raise Killed

    job = make_job(study_root, tmp_path, zero__stage=stage)
    with pytest.raises(Killed):
        tiny_study.run(job, None, kill)
    resumed = tiny_study.run(job)
    with open(job.folder.train_csv, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(7)), "each step once, none missing"
    assert resumed.heldout_loss == pytest.approx(finished[1].heldout_loss, **CLOSE)
    assert resumed.heldout_loss < 0.99 * float(rows[0]["heldout_loss"]) and resumed.peak_memory_gib > 0


@pytest.mark.parametrize("kind", [Checkpointing.none, Checkpointing.attention, Checkpointing.all])
def test_compiled_blocks_compute_the_same(
    study_root: Path, tmp_path: Path, resident: ResidentModel, monkeypatch: pytest.MonkeyPatch, kind: Checkpointing
) -> None:
    backend = "inductor" if torch.cuda.is_available() else "aot_eager"  # which needs no compiler
    compile_blocks = acceleration.compile_blocks
    monkeypatch.setattr(base, "compile_blocks", lambda model: compile_blocks(model, backend))
    job = make_job(study_root, tmp_path, model__compile=True)
    compiled, config = load_resident_model(job), job.spec.config
    batch = training_batch(config, Encodings(job.encodings), job.windows(), 0, range(2))
    found = []
    for on, kept in ((resident, Checkpointing.none), (compiled, kind)):
        parameters = lora.attach(on.transformer, LoraConfig(rank=2, targets=TargetSet.attn), seed=0)
        checkpoint_blocks(on.transformer, kept, 0, 0)
        loss = batch.losses(on.transformer).mean()
        loss.backward()
        found.append([loss.detach(), *(each.grad for name, each in parameters if ".lora_B" in name)])
        on.transformer.disable_gradient_checkpointing()
        lora.detach(on.transformer)
    for eager, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=1e-3 * float(eager.abs().max()))
    assert tiny_study.run(job, compiled).heldout_loss < found[0][0], "a whole trial runs compiled"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_same_again_gives_the_same_bytes(
    study_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, dtype: str
) -> None:
    class Killed(Exception):
        pass

    def kill(what: str, done: int, total: int, loss: float | None) -> None:
        if what == "train" and done == 5:
            raise Killed

    compile_blocks, backend = acceleration.compile_blocks, "inductor" if torch.cuda.is_available() else "aot_eager"
    monkeypatch.setattr(base, "compile_blocks", lambda model: compile_blocks(model, backend))
    found = []
    for run in ("first", "again", "resumed"):
        job = make_job(study_root, tmp_path / run, model__compile=compiled, model__dtype=dtype)
        if run == "resumed":
            with pytest.raises(Killed):
                tiny_study.run(job, None, kill)
        result = tiny_study.run(job)
        clips = {path.name: path.read_bytes() for path in (job.folder.root / "samples").glob("*.mp4")}
        found.append((result.adapter_sha256, result.heldout_loss, clips))
    assert found[0] == found[1] == found[2] and found[0][2]


# --- losses and clips ---


def test_heldout_loss_and_clips_are_those_of_the_cpu(
    finished: tuple[Job, Any], adapted: ResidentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, config = finished[0], finished[0].spec.config
    encodings, windows = Encodings(job.encodings), job.windows().heldout

    def computed(transformer: Any, vae: Any) -> tuple[Any, Any]:
        parts = sampler.generate(transformer, vae, adapted.folder, config, encodings, windows, [0])
        with torch.no_grad():
            clips = np.concatenate([frames for _, _, frames in parts])
        return window_losses(transformer, config, encodings, windows), clips

    losses, clips = computed(adapted.transformer, adapted.vae)
    with monkeypatch.context() as there:
        there.setattr(distributed, "device_name", lambda: "cpu")
        transformer = load_transformer(adapted.folder, config.model.dtype)
        lora.attach(transformer, LoraConfig(rank=2), seed=0)
        transformer.load_state_dict(adapted.transformer.state_dict())
        expected, drawn = computed(transformer, load_vae(adapted.folder))
    assert losses == pytest.approx(expected, rel=1e-3)
    assert clips.shape == drawn.shape and np.abs(clips.astype(float) - drawn.astype(float)).mean() < 1.0


@pytest.mark.parametrize("place", ["cpu", "device"])
def test_video_distances_gather_wherever_their_rows_are(resident: ResidentModel, place: str) -> None:
    random = np.random.default_rng(0)
    real, generated = random.normal(size=(50, 6)), random.normal(size=(45, 6)) + 1
    for metric, distance in ((FrechetVideoDistance(), frechet_distance), (KernelVideoDistance(), kernel_distance)):
        metric = metric.to("cpu" if place == "cpu" else distributed.device_name())
        metric.update(torch.from_numpy(real), real=True)
        metric.update(torch.from_numpy(generated), real=False)
        assert float(metric.compute()) == pytest.approx(distance(real, generated), rel=1e-9)


# --- commands ---


def test_rendering(finished: tuple[Job, Any], tmp_path: Path) -> None:
    job = finished[0]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    place = [str(job.study.root), "--cache", str(job.cache_dir), "--out", str(tmp_path / "out")]
    assert render([*place, "--image", str(tmp_path / "a.png"), "--prompt", "a square"]) == 0
    clips = [read_all(tmp_path / "out" / f"{name}.mp4") for name in ("base", "rank-4")]
    assert clips[0].shape == clips[1].shape == (9, 32, 32, 3) and not np.array_equal(*clips)


def test_a_truncated_adapter_of_full_rank_has_its_recorded_loss(finished: tuple[Job, Any], tmp_path: Path) -> None:
    job, result = finished
    study = StudyFolder(shutil.copytree(job.study.root, tmp_path / "study"))
    whole, half = truncate_study(study, job.cache_dir)
    assert (whole.rank, half.rank, whole.kept) == (4, 2, 1.0)
    assert whole.heldout_loss == pytest.approx(result.heldout_loss, rel=1e-4)


@pytest.mark.skipif(not (WEIGHTS / "tnv2.safetensors").exists(), reason="no metric weights: run `make fetch`")
def test_the_score_command_gives_the_numbers_of_the_cpu(finished: tuple[Job, Any], tmp_path: Path) -> None:
    tiny_study.write_clips(tmp_path / "real")
    for clip in (tmp_path / "real").glob("*.mp4"):
        write_mp4(tmp_path / "generated" / clip.name, 255 - read_all(clip), 16)
    found = []
    for device in (distributed.device_name(), "cpu"):
        out = tmp_path / f"{len(found)}.json"
        places = ["--generated", str(tmp_path / "generated"), "--reference", str(tmp_path / "real"), "--out", str(out)]
        nets = ["--weights", f"tnv2={WEIGHTS}/tnv2.safetensors", "--metrics", "fvd[tnv2],kvd[tnv2],psnr,ssim"]
        assert score([*places, *nets, "--cache", str(tmp_path / "cache"), "--device", device]) == 0
        found.append({name: each["value"] for name, each in json.loads(out.read_text())["scores"].items()})
    assert len(found[0]) == 4 and found[0] == pytest.approx(found[1], rel=1e-2, abs=1e-4)


def test_the_stock_pipeline_computes_the_exported_adapter(finished: tuple[Job, Any], tmp_path: Path) -> None:
    job, out = finished[0], tmp_path / "film.safetensors"
    folder, device = Path(tiny_study.model_folder(job.spec.config.model, job.cache_dir)), distributed.device_name()
    assert export([str(job.folder.root), "--out", str(out)]) == 0
    stock: Any = WanImageToVideoPipeline.from_pretrained(folder, local_files_only=True).to(device)
    plain = velocity(stock.transformer)
    stock.load_lora_weights(out.parent, weight_name=out.name)
    ours = load_transformer(folder, Dtype.float32, device)
    lora.load_adapter(ours, next(job.folder.adapter.glob("*.safetensors")))
    torch.testing.assert_close(velocity(stock.transformer), velocity(ours), rtol=0, atol=1e-4)
    assert (velocity(ours) - plain).abs().max() > 1e-3


def test_a_sweep_whose_trials_share_the_gpu(tmp_path: Path) -> None:
    gpu = torch.cuda.is_available()
    tiny_study.write_clips(tmp_path / "clips")
    place = ["lora.rank=2,4", "seed=0", f"cluster.gpus_per_worker={0.25 if gpu else 0}"]
    done = sweep(tmp_path, *place)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(results(tmp_path)) == {(0, 0), (2, 0), (4, 0)}
    for path in (tmp_path / "sweep" / "trials").glob("*/provenance.json"):
        workers = read_json(path)["runs"][-1]["workers"]
        assert all(("gpus" in each["hardware"]) == gpu for each in workers), "trained where the plan says"
    assert "nothing left to do: 3 of 3" in sweep(tmp_path, *place).stdout
