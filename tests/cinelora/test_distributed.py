"""Devices and process groups."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cinelora import distributed


@pytest.mark.skipif(os.environ.get("CINELORA_TEST_GPU") == "1", reason="CINELORA_TEST_GPU=1")
def test_gpus_are_hidden_from_tests_and_their_processes() -> None:
    code = "import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "''\n"
    assert distributed.device_name() == "cpu"
