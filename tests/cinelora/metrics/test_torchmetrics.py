"""The streaming metrics equal the distances of all features to 1e-9, however these are batched or spread."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from cinelora.metrics.distances import UnreliableDistance, frechet_distance, kernel_distance
from cinelora.metrics.torchmetrics import (
    FrechetVideoDistance,
    KernelVideoDistance,
    _gather_rows,
    _gathering_device,
)

pytestmark = pytest.mark.filterwarnings("ignore::cinelora.metrics.distances.UnreliableDistance")
ROOT = Path(__file__).parents[3]
METRICS = {
    "frechet": (FrechetVideoDistance, {}, frechet_distance),
    "kid": (KernelVideoDistance, {}, kernel_distance),
    "jedi": (KernelVideoDistance, {"preset": "jedi"}, lambda x, y: kernel_distance(x, y, "jedi")),
}


def _sets(n: int = 50, m: int = 45, dims: int = 6, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n + dims)
    scale = np.geomspace(1, 1e-3, dims)
    return random.normal(size=(n, dims)) * scale + offset, 1.4 * random.normal(size=(m, dims)) * scale + offset + 0.2


def _fed(metric: FrechetVideoDistance, real: np.ndarray, made: np.ndarray, batch: int) -> FrechetVideoDistance:
    for rows, is_real in ((real, True), (made, False)):
        for part in torch.from_numpy(rows).split(batch):
            metric.update(part, real=is_real)
    return metric


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("dims", [1, 6, 60])  # 60: fewer clips than dimensions
@pytest.mark.parametrize("name", METRICS)
def test_any_batch_size_gives_the_distance_of_all(name: str, dims: int, batch: int) -> None:
    kind, options, distance = METRICS[name]
    real, made = _sets(dims=dims)
    found = _fed(kind(**options), real, made, batch).compute()
    assert found.dtype == torch.float64 and found.shape == ()
    assert float(found) == pytest.approx(distance(real, made), rel=1e-9)


def test_large_means_cost_no_digits() -> None:
    """Sums of outer products would lose twice the digits of the offset: all but 8 of 16."""
    real, made = _sets(offset=1e4)
    found = float(_fed(FrechetVideoDistance(), real, made, 4).compute())
    assert found == pytest.approx(frechet_distance(real, made), rel=1e-9)


def test_frechet_equals_the_metric_for_images() -> None:
    real, made = _sets(dims=4)
    theirs = FrechetInceptionDistance(feature=_Same()).set_dtype(torch.float64)
    for rows, is_real in ((real, True), (made, False)):
        theirs.update(torch.from_numpy(rows), real=is_real)
    ours = _fed(FrechetVideoDistance(), real, made, 9)
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()), rel=1e-7)  # roots of eigenvalues there


class _Same(torch.nn.Module):
    num_features = 4

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


def test_the_state_stays_small() -> None:
    metric = FrechetVideoDistance()
    for _ in range(40):
        metric.update(torch.randn(10, 6, generator=torch.Generator().manual_seed(0)), real=True)
        assert sum(len(block) for block in metric.real_rows) <= 2 * 7
    assert not metric.generated_rows


def test_order_and_empty_batches_do_not_matter() -> None:
    real, made = _sets()
    plain = float(_fed(FrechetVideoDistance(), real, made, 5).compute())
    turned = _fed(FrechetVideoDistance(), real[::-1].copy(), made[::-1].copy(), 5)
    turned.update(torch.zeros(0, 6), real=True)
    assert float(turned.compute()) == pytest.approx(plain, rel=1e-12)


class _Net(torch.nn.Module):
    """Mean over frames through a dropout and a batch norm: wrong in training mode, and B would matter."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.norm(clips.float().mean(dim=(1, 3, 4)) / 255))


@pytest.mark.parametrize("name", METRICS)
def test_a_feature_net_is_run_in_eval_mode_without_gradients(name: str) -> None:
    kind, options, distance = METRICS[name]
    random = np.random.default_rng(0)
    real, made = (random.integers(0, 255, (n, 2, 3, 4, 4), dtype=np.uint8) for n in (12, 9))
    net = _Net()
    metric = kind(features=net, **options).train()
    _fed(metric, real, made, 4)
    features = [net.eval()(torch.from_numpy(clips)).detach().numpy() for clips in (real, made)]
    assert float(metric.compute()) == pytest.approx(distance(*features), rel=1e-6)  # the net computes in float32
    assert not any(rows.requires_grad for rows in metric.real_rows)
    by_function = _fed(kind(features=lambda clips: net(clips), **options), real, made, 4)
    assert float(by_function.compute()) == pytest.approx(float(metric.compute()), rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_reset_keeps_the_real_clips_if_told(name: str) -> None:
    kind, options, distance = METRICS[name]
    real, made = _sets()
    other = made + 1
    for keep in (True, False):
        metric = _fed(kind(reset_real_features=not keep, **options), real, made, 8)
        metric.reset()
        metric.update(torch.from_numpy(other), real=False)
        if keep:
            assert float(metric.compute()) == pytest.approx(distance(real, other), rel=1e-9)
        else:
            with pytest.raises(ValueError, match="no real clips"):
                metric.compute()


@pytest.mark.parametrize("name", METRICS)
def test_copies_and_merged_states(name: str) -> None:
    kind, options, distance = METRICS[name]
    real, made = _sets()
    first, second = kind(**options), kind(**options)
    _fed(first, real[:20], made[:30], 6)
    _fed(second, real[20:], made[30:], 6)
    merged = copy.deepcopy(first)
    merged.merge_state(second)
    assert float(merged.compute()) == pytest.approx(distance(real, made), rel=1e-9)
    unpickled = pickle.loads(pickle.dumps(first))
    assert float(unpickled.compute()) == pytest.approx(distance(real[:20], made[:30]), rel=1e-9)


def test_calling_is_updating() -> None:
    real, made = _sets()
    metric = FrechetVideoDistance(reset_real_features=False)
    assert metric(torch.from_numpy(real), real=True) is None
    metric(torch.from_numpy(made), real=False)
    assert float(metric.compute()) == pytest.approx(frechet_distance(real, made), rel=1e-9)


def test_two_processes_give_the_distance_of_all(tmp_path: Path) -> None:
    """One of them has no generated clips at first; a joined state is split again, so that both can go on."""
    real, made = _sets(m=52)
    np.save(tmp_path / "real.npy", real)
    np.save(tmp_path / "made.npy", made)
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.cinelora.metrics.torchmetrics_member", str(tmp_path), str(rank)], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    outputs = [member.communicate(timeout=240) for member in members]
    assert [member.returncode for member in members] == [0, 0], outputs[0][1][-2000:] + outputs[1][1][-2000:]
    for out, _ in outputs:
        line = json.loads(out.splitlines()[-1])
        for name, distance in (("FrechetVideoDistance", frechet_distance), ("KernelVideoDistance", METRICS["jedi"][2])):
            assert line[name] == pytest.approx([distance(real, made[:40]), distance(real, made)], rel=1e-9)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # torchmetrics' own word on the same mistake
@pytest.mark.parametrize("name", METRICS)
def test_bad_input_is_refused(name: str) -> None:
    kind, options, _ = METRICS[name]
    metric = kind(**options)
    with pytest.raises(ValueError, match="no real clips"):
        metric.compute()
    with pytest.raises(ValueError, match="NaN or infinity: 6 values"):
        metric.update(torch.full((2, 3), float("nan")), real=True)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\): give \(clips, dimensions\)"):
        metric.update(torch.zeros(2, 3, 4), real=True)
    metric.update(torch.randn(1, 3), real=True)
    with pytest.raises(ValueError, match="features of 4 dimensions after 3"):
        metric.update(torch.zeros(2, 4), real=False)
    metric.update(torch.randn(5, 3), real=False)
    with pytest.raises(ValueError, match="at least 2"):
        metric.compute()
    with pytest.raises(TypeError, match="feature net or None, not int"):
        kind(features=2048, **options)


def test_a_failed_compute_in_a_process_group_is_survived() -> None:
    own = not torch.distributed.is_initialized()
    if own:
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        metric = FrechetVideoDistance()
        metric.update(torch.eye(3), real=True)
        for _ in range(2):
            with pytest.raises(ValueError, match="no generated clips"):
                metric.compute()
        metric.update(torch.eye(3), real=False)
        assert float(metric.compute()) == pytest.approx(0.0, abs=1e-9)
    finally:
        if own:
            torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("backend", "device"), [("cuda:nccl", "cuda"), ("cpu:gloo,cuda:nccl", "cpu"), ("meta:fake", "meta")]
)
def test_rows_are_gathered_where_the_backend_takes_them(
    backend: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda group: backend)
    assert _gathering_device() == torch.device(device)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_gathered_rows_come_back_to_their_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def gather(rows: torch.Tensor, group: object) -> list[torch.Tensor]:
        sent.append(rows.device.type)
        return [torch.ones(2, 3), torch.ones(0, 0)]

    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda group: "meta:fake")
    monkeypatch.setattr("cinelora.metrics.torchmetrics.gather_all_tensors", gather)
    joined = _gather_rows(torch.zeros(2, 3, device=device))
    assert sent == ["meta"]
    assert [(tuple(rows.shape), rows.device.type) for rows in joined] == [((2, 3), device), ((0, 3), device)]


def test_an_unknown_preset_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no kernel distance 'fid'"):
        KernelVideoDistance(preset="fid")


@pytest.mark.parametrize(
    ("real", "message"),
    [(torch.eye(6)[:5], "5 clips for 6 dimensions"), (torch.full((30, 6), 0.1), "all equal")],
)
def test_unreliable_sets_warn(real: torch.Tensor, message: str) -> None:
    metric = FrechetVideoDistance()
    metric.update(real, real=True)
    metric.update(torch.randn(30, 6), real=False)
    with pytest.warns(UnreliableDistance, match=message):
        metric.compute()
