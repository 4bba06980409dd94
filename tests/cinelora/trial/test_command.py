"""The command that runs one trial in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cinelora.core.cli import exit_status
from cinelora.core.config import ModelConfig, TrialConfig
from cinelora.training.checkpoint import Stopped
from cinelora.trial import __main__ as command
from cinelora.trial.job import Job
from sweeps.plan import trial_spec


def test_a_stopped_trial_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(job: Job, *_: Any) -> None:
        assert job.spec.config.model.sequence_workers == 1, "one process shares tokens with no other"
        raise Stopped("stopped after step 3 of 6")

    monkeypatch.setattr(sys, "argv", ["trial", str(tmp_path / "study/trials/abc")])
    spec = trial_spec(TrialConfig(model=ModelConfig(sequence_workers=2)), {})
    monkeypatch.setattr(command, "read_trial", lambda folder: (spec, None))
    monkeypatch.setattr(command.distributed, "start", lambda *_: None)
    monkeypatch.setattr(command, "load_resident_model", lambda job: None)
    monkeypatch.setattr(command, "run_trial", stopped)
    assert exit_status(command.main) == 130
    assert capsys.readouterr().err == "cinelora: stopped\n"
