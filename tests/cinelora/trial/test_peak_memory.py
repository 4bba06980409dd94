"""The peak memory of a trial is its own, not that of a larger one before it on the same worker."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cinelora.trial.run import _peak_memory_gib, _reset_peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the peak cannot be reset elsewhere")
def test_a_peak_is_forgotten() -> None:
    _reset_peak_memory()
    before = _peak_memory_gib()
    np.ones(2**26)  # half a GiB, gone at once
    large = _peak_memory_gib()
    assert large - before > 0.4
    _reset_peak_memory()
    assert large - _peak_memory_gib() > 0.4
