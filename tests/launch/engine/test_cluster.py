"""Our scheduler on a real Ray of three nodes with two logical GPUs each; the workers only count."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cinelora.core.config import (
    ClusterConfig,
    LoraConfig,
    Method,
    Prune,
    StudyConfig,
    TrackingConfig,
    TrainConfig,
    TrialConfig,
)
from cinelora.core.files import read_json, write_json
from cinelora.core.paths import StudyFolder
from cinelora.core.records import TrialSpec
from cinelora.trial.job import Job
from launch.engine.loop import Engine, run_all
from launch.engine.pool import Pool
from launch.engine.run import run_missing
from sweeps.ledger import Ledger
from sweeps.plan import build_plan
from sweeps.prune import Pruner
from sweeps.scheduling.cluster import GangShape, Infeasible
from sweeps.scheduling.tasks import Task
from sweeps.status import DONE, PRUNED, study_status
from tests.launch.engine.light_worker import STEPS, LightWorker, OrderedWorker

SIZES = [1, 1, 2, 4, 1, 2]  # workers of the trials, one GPU each


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Its nodes say that they have 2 GPUs each, which Ray refuses where `tests/conftest.py` hides all."""
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        found.add_node(num_cpus=2, num_gpus=2)
    ray.init(address=found.address, log_to_driver=False, configure_logging=False)
    yield found
    ray.shutdown()
    found.shutdown()
    if hidden is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = hidden


def engine_with(root: Path, sizes: list[int], **settings: Any) -> tuple[Engine, list[TrialSpec]]:
    ledger = Ledger(StudyFolder(root / "study"))
    plan = build_plan([(TrialConfig(lora=LoraConfig(rank=rank + 1)), {"model": "m"}) for rank in range(len(sizes))])
    ledger.open("test")
    ledger.write_plan(plan)
    specs = [spec for spec in plan.trials if spec.config.method is Method.lora]
    engine = Engine(ledger, ClusterConfig(**settings), pool=Pool(worker=LightWorker))
    engine.update_nodes()
    for spec, size in zip(specs, sizes, strict=True):
        job = Job(spec, ledger.folder, "test", root, TrackingConfig())
        engine.add(job, Task(spec.trial_id, GangShape(size, 1, 1.0), "base", float(size)))
    return engine, specs


def events(engine: Engine, name: str) -> list[dict[str, Any]]:
    lines = engine.ledger.folder.events.read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def test_a_node_is_lost_in_the_middle(cluster: Any, tmp_path: Path) -> None:
    engine, specs = engine_with(tmp_path, SIZES)
    assert len(engine.pool.nodes) == 3, "the head has no CPU and takes no trials"
    with pytest.raises(Infeasible, match="16 x"):
        engine.add(Job(specs[0], engine.ledger.folder, "", tmp_path, TrackingConfig()),
                   Task("big", GangShape(16, 1, 1.0), "base", 1.0))  # fmt: skip
    victim = cluster.list_all_nodes()[1]
    removed: list[float] = []

    def remove_one(state: Engine) -> None:
        in_use = {member.node for run in state.running if run.phase == "run" for member in run.members}
        if not removed and victim.node_id in in_use:
            cluster.remove_node(victim, allow_graceful=False)
            removed.append(time.monotonic())

    errors = run_all(engine, remove_one)
    assert removed and errors == {}
    for spec, size in zip(specs, SIZES, strict=True):
        folder = engine.ledger.folder.trial(spec.trial_id)
        assert read_json(folder.result)["world_size"] == size
        assert [len((folder.root / f"steps-{rank}").read_text()) for rank in range(size)] == [STEPS] * size
    lost = {event["trial_id"] for event in events(engine, "lost")}
    assert lost, "the node had work"
    assert any(victim.node_id in event["gone"] for event in events(engine, "nodes"))
    done = [event["trial_id"] for event in events(engine, "done")]
    assert sorted(done) == sorted(spec.trial_id for spec in specs), "each is done once"
    started = [set(event["pids"]) for event in events(engine, "started")]
    assert len(set.union(*started)) < sum(map(len, started)), "members outlive their trials, in gangs of other sizes"
    engine.pool.close()
    cluster.add_node(num_cpus=2, num_gpus=2)


def test_a_stop_sign_from_another_shell(cluster: Any, tmp_path: Path) -> None:
    engine, specs = engine_with(tmp_path, [1, 4])

    def stop(state: Engine) -> None:
        if len(state.running) == 2 and all(run.phase == "run" for run in state.running):
            state.ledger.folder.stop.touch()

    assert run_all(engine, stop) == {}
    assert engine.stopping and not engine.running
    assert {event["trial_id"] for event in events(engine, "stopped")} == {spec.trial_id for spec in specs}
    engine.pool.close()


def test_a_stop_while_all_that_is_left_runs_is_no_end(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM to the driver alone, as a batch system sends it."""
    ledger = Ledger(StudyFolder(tmp_path / "study"))
    plan = build_plan([(TrialConfig(), {"model": "m"})])
    ledger.open("test")
    ledger.write_plan(plan)

    def kill(engine: Engine) -> None:
        at_work = [run for run in engine.running if run.phase == "run"]
        if not engine.stop_requested and len(at_work) == len(engine.jobs) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("launch.engine.pool.connect", lambda address: None)
    monkeypatch.setattr("launch.engine.encoding.encode_all", lambda *_: None)
    monkeypatch.setattr("launch.engine.loop.run_all", lambda engine, tick: run_all(engine, kill))
    monkeypatch.setattr("launch.engine.loop.Engine", partial(Engine, pool=Pool(worker=LightWorker)))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        run_missing(StudyConfig(cache_dir=str(tmp_path)), ledger, plan, {}, {})
    named = [(event["event"], event.get("trial_id")) for event in map(json.loads, ledger.folder.events.open())]
    assert {key for event, key in named if event == "stopped"} == {spec.trial_id for spec in plan.trials}
    assert len(ledger.pending(plan)) == 2 and not ledger.folder.stop.exists()


def test_rates_that_fall_behind_leave_and_their_gangs_go_on(cluster: Any, tmp_path: Path) -> None:
    """The held-out loss is the rate. All rates of one rank train at once; of 9 another seed waits."""
    ledger = Ledger(StudyFolder(tmp_path / "study"))
    wanted = [(rate, 0) for rate in (1, 2, 3, 8, 9)] + [(9, 1)]
    configs = [TrialConfig(seed=seed, train=TrainConfig(steps=STEPS, learning_rate=rate)) for rate, seed in wanted]
    plan = build_plan([(config, {"model": "m"}) for config in configs])
    ledger.open("test")
    ledger.write_plan(plan)
    base, *specs = plan.trials
    write_json(ledger.folder.trial(base.trial_id).result, {})
    engine = Engine(ledger, ClusterConfig(), pool=Pool(worker=OrderedWorker), pruner=Pruner(ledger, Prune.halving))
    engine.update_nodes()
    for spec, size in zip(specs, (1, 1, 1, 1, 1, 2), strict=True):  # of 6 GPUs: the last one has to wait
        task = Task(spec.trial_id, GangShape(size, 1, 1.0), "base", 50.0 / size)
        engine.add(Job(spec, ledger.folder, "test", tmp_path, TrackingConfig()), task)
    assert run_all(engine, lambda state: None) == {}
    states = [trial.state for trial in study_status(ledger).trials]
    assert states[:4] == [DONE] * 4 and states[4:] == [PRUNED] * 3
    eight, nine, waiting = (ledger.pruned(spec.trial_id) or {} for spec in specs[3:])
    assert 5 <= eight["step"] < STEPS and 5 <= nine["step"] < STEPS and "others had less" in nine["why"]
    assert (waiting["step"], waiting["heldout_loss"]) == (0, None) and "pruned at seed 0" in waiting["why"]
    assert ledger.pending(plan, keep_pruned=True) == [] and len(ledger.pending(plan)) == 3
    assert not any(ledger.folder.trial(spec.trial_id).stop.exists() for spec in specs)
    pids = [pid for event in events(engine, "started") for pid in event["pids"]]
    assert len(engine.pool.idle) == len(set(pids)) == 5, "those who left are still there"
    engine.pool.close()
