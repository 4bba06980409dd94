"""Truncated updates are the closest of their rank (Eckart and Young), compared with dense matrices of small size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cinelora.core.cli import UserError
from cinelora.wan.low_rank import read_factors, singular_values, truncated

SHAPES = ((4, 7, 5), (5, 7, 5), (8, 4, 9), (3, 2, 2))  # r, in, out; the last two hold less than r


def factors(rank: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(rank)
    return random.normal(size=(rank, width)), random.normal(size=(height, rank))


def test_on_paper() -> None:
    """B A = diag(3, 2, 1): at rank 2 each factor holds the roots of 3 and 2, and 1 is lost."""
    a, b = np.eye(3), np.diag([3.0, 2.0, 1.0])
    assert singular_values(a, b) == pytest.approx([3, 2, 1])
    smaller_a, smaller_b = truncated(a, b, 2)
    assert np.abs(smaller_a) == pytest.approx(np.diag([3.0, 2.0, 1.0])[:2] ** 0.5)
    assert smaller_b @ smaller_a == pytest.approx(np.diag([3.0, 2.0, 0.0]))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_is_what_the_values_left_out_say(shape: tuple[int, int, int]) -> None:
    a, b = factors(*shape)
    values = singular_values(a, b)
    for rank in range(1, len(a) + 1):
        smaller_a, smaller_b = truncated(a, b, rank)
        assert smaller_a.shape == (rank, a.shape[1]) and smaller_b.shape == (len(b), rank)
        error = np.linalg.norm(b @ a - smaller_b @ smaller_a)
        assert error == pytest.approx(np.sqrt(np.square(values[rank:]).sum()), abs=1e-12)


def test_a_planted_update_of_rank_2_cut_to_2_is_itself() -> None:
    a, b = factors(2, 9, 6)
    mix = np.random.default_rng(5).normal(size=(2, 6))
    wide_a, wide_b = np.linalg.pinv(mix) @ a, b @ mix  # factors of rank 6 with the same product
    smaller_a, smaller_b = truncated(wide_a, wide_b, 2)
    assert smaller_b @ smaller_a == pytest.approx(b @ a, abs=1e-12)
    assert singular_values(wide_a, wide_b)[2:] == pytest.approx(np.zeros(4), abs=1e-12)


def test_a_smaller_cut_is_the_head_of_a_larger() -> None:
    a, b = factors(6, 8, 7)
    (large_a, large_b), (small_a, small_b) = truncated(a, b, 5), truncated(a, b, 2)
    assert np.array_equal(large_a[:2], small_a) and np.array_equal(large_b[:, :2], small_b)


def test_the_dense_update_is_never_formed() -> None:
    """The dense update would take 80 GB."""
    a, b = np.zeros((2, 100_000)), np.zeros((100_000, 2))
    a[0, 0] = a[1, 1] = 1.0
    b[0, 0], b[1, 1] = 3.0, 2.0
    smaller_a, smaller_b = truncated(a, b, 1)
    assert float(smaller_b[0] @ smaller_a[:, 0]) == pytest.approx(3.0)


def test_ranks_outside_the_update_are_refused() -> None:
    a, b = factors(3, 4, 4)
    for rank in (0, 4):
        with pytest.raises(ValueError, match="an update of rank 3"):
            truncated(a, b, rank)


def test_files_are_read_layer_by_layer(tmp_path: Path) -> None:
    a, b = (each.astype(np.float32) for each in factors(2, 3, 4))
    names = [f"transformer.blocks.{block}.ffn.net.2.lora_{which}.weight" for block in (1, 0) for which in "AB"]
    save_file(dict(zip(names, (a, b, 2 * a, b), strict=True)), tmp_path / "whole")
    found = list(read_factors(tmp_path / "whole"))
    assert [layer for layer, *_ in found] == ["blocks.0.ffn.net.2", "blocks.1.ffn.net.2"]
    assert np.array_equal(found[0][1], 2 * a) and found[0][2].dtype == np.float64
    save_file({names[0]: a}, tmp_path / "half")
    with pytest.raises(UserError, match="the file is incomplete"):
        list(read_factors(tmp_path / "half"))
