"""Spectra on paper: updates whose singular values are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from analysis.figures.ranks import spectra
from analysis.statistics.findings import find
from analysis.statistics.spectra import read_spectra, spectra_csv, study_spectra, update_spectrum
from analysis.study.load import load_study
from analysis.study.rows import estimate
from cinelora.core.cli import UserError
from cinelora.core.files import write_json
from cinelora.core.paths import ADAPTER_FILE, StudyFolder
from tests.analysis.paper_study import Builder

A = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
B = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]])


def test_values_norm_and_ranks() -> None:
    found = update_spectrum("blocks.0.attn2.to_q", A, B, scale=0.5)
    assert found.values == pytest.approx([2.0, 1.5])
    assert (found.norm, found.stable_rank) == pytest.approx((2.5, 6.25 / 4))
    assert found.effective_rank == pytest.approx(np.exp(-(4 / 7 * np.log(4 / 7) + 3 / 7 * np.log(3 / 7))))
    assert found.kind == "attn2.to_q"


def test_equals_the_dense_update() -> None:
    random = np.random.default_rng(3)
    for rank, width, height in ((2, 7, 5), (6, 7, 5), (8, 4, 9)):
        a, b = random.normal(size=(rank, width)), random.normal(size=(height, rank))
        dense = np.linalg.svd(2.0 * b @ a, compute_uv=False)
        values = update_spectrum("blocks.0.x", a, b, 2.0).values
        shared = min(len(values), len(dense))
        assert values[:shared] == pytest.approx(dense[:shared]) and np.allclose(values[shared:], 0)


def test_an_adapter_at_its_start_has_no_rank() -> None:
    found = update_spectrum("blocks.0.x", A, 0 * B, 1.0)
    assert (found.norm, found.effective_rank, found.stable_rank) == (0.0, 0.0, 0.0)


def write(path: Path, **tensors: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"transformer.blocks.0.attn2.to_q.{name}.weight": each for name, each in tensors.items()}, path)
    return path


def test_files_and_rows(builder: Builder, tmp_path: Path) -> None:
    root = builder.build()
    write(root / "trials" / "r4s0" / "adapter" / ADAPTER_FILE, lora_A=A, lora_B=B)
    study = load_study(root)
    estimates = estimate(study)
    lines = spectra_csv(estimates, study_spectra(estimates)).splitlines()
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["rank 4", "", "4", "all"],
        ["rank 4", "", "4", "attn2.to_q"],
    ]
    assert all(line.endswith(",5,") for line in lines[1:])  # the update's norm; nothing recorded of the weight's
    write_json(StudyFolder(root).weight_norms("aa"), {"blocks.0.attn2.to_q": 20.0})
    lines = spectra_csv(estimates, study_spectra(estimates)).splitlines()
    assert all(line.endswith(",5,0.25") for line in lines[1:])
    with pytest.raises(UserError, match="the file is incomplete"):
        read_spectra(write(tmp_path / "half.safetensors", lora_A=A), 1.0)


def test_the_figure_has_a_line_for_each_kind_and_the_diagonal(builder: Builder) -> None:
    root = builder.build()
    assert spectra(find(load_study(root))) is None
    for trial, rank in (("r4s0", 4), ("r8s1", 8)):
        write(root / "trials" / trial / "adapter" / ADAPTER_FILE, lora_A=np.eye(rank), lora_B=np.eye(rank))
    figure = spectra(find(load_study(root)))
    assert figure is not None
    left, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[1.0] * 4, [1.0] * 8]
    assert [list(map(float, line.get_ydata())) for line in right.lines] == [pytest.approx([4, 8])] * 2
