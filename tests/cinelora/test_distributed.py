"""Devices and process groups."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cinelora import distributed
from cinelora.core.cli import UserError


@pytest.mark.skipif(os.environ.get("CINELORA_TEST_GPU") == "1", reason="CINELORA_TEST_GPU=1")
def test_gpus_are_hidden_from_tests_and_their_processes() -> None:
    code = "import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "''\n"
    assert distributed.device_name() == "cpu"


@pytest.mark.parametrize(("gpus", "shared"), [("abc", ""), ("aba", "0 and 2"), ("abb", "1 and 2")])
def test_two_processes_on_one_gpu_are_refused_in_all(gpus: str, shared: str) -> None:
    store = torch.distributed.HashStore()

    def refused(rank: int) -> str:
        try:
            distributed.check_own_gpu(store, rank, len(gpus), gpus[rank])
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(gpus)) as pool:
        lines = list(pool.map(refused, range(len(gpus))))
    assert len(set(lines)) == 1 and (f"processes {shared} are on one GPU" in lines[0] if shared else lines[0] == "")
