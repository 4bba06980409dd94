"""The code versions and machines of the trials of a study, and a warning where the versions differ.

In: the provenance.json of finished trials (`cinelora/trial/provenance.py`), absent in older studies. Out:
sentences without times, so that the same ledger gives the same page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from analysis.study.files import Run
from analysis.study.load import Study

SHORT = 7  # digits of a hash
NOT_RECORDED = "not recorded"
CodeKey = tuple[str, ...]  # equal where the code is the same, even under another commit


def warning(study: Study) -> str:
    """The code versions, if there are several; else ""."""
    codes = _codes(study)
    if not codes or len(keys := {key for of_trial in codes.values() for key in of_trial}) < 2:
        return ""
    versions = "; ".join(f"{text} ({_trials(count)})" for text, count in _counted(_code_texts(codes).values()))
    return f"trials of {len(keys)} code versions: {versions}"


def provenance_lines(study: Study) -> tuple[str, ...]:
    """One line for each code version and each kind of machine; none where nothing was recorded."""
    codes = _codes(study)
    machines = [
        text
        for trial in study.trials
        for text in dict.fromkeys(_machine(worker["hardware"]) for run in trial.runs for worker in run["workers"])
    ]
    lines = [f"Code: {text}: {_trials(count)}." for text, count in _counted(_code_texts(codes).values()) if codes]
    if study.rates:
        commits = ", ".join(commit[:SHORT] for commit in study.rates["commits"]) or NOT_RECORDED
        lines.append(f"Learning rates: searched in {study.rates['folder']}, commit {commits}.")
    return (*lines, *(f"Machine: {text}: {_trials(count)}." for text, count in _counted(machines)))


def _codes(study: Study) -> dict[str, dict[CodeKey, str]]:
    """Trial id -> key of each code it ran, in order -> commit; {} where no trial recorded any."""
    if not any(trial.runs for trial in study.trials):
        return {}
    return {trial.spec.trial_id: _codes_of(trial.runs) for trial in study.trials}


def _codes_of(runs: Iterable[Run]) -> dict[CodeKey, str]:
    found: dict[CodeKey, str] = {}
    for code in (worker["code"] for run in runs for worker in run["workers"]):
        key = (code["version"] or "", code["tree"] or "", code["diff_sha256"] or "")
        found.setdefault(key, code["commit"] or "")
    return found or {(): ""}


def _code_texts(codes: Mapping[str, Mapping[CodeKey, str]]) -> dict[str, str]:
    """Trial id -> description of its code, with all commits that have this code."""
    commits: dict[CodeKey, set[str]] = {}
    for of_trial in codes.values():
        for key, commit in of_trial.items():
            commits.setdefault(key, set()).add(commit[:SHORT])
    return {trial: ", then ".join(_code(key, commits[key]) for key in of_trial) for trial, of_trial in codes.items()}


def _code(key: CodeKey, commits: Iterable[str]) -> str:
    if not key:
        return NOT_RECORDED
    version, _, diff = key
    named = "/".join(sorted(filter(None, commits)))
    parts = [f"cinelora {version}".strip(), *([f"commit {named}"] if named else [])]
    return ", ".join(parts) + (f" with changes {diff[:SHORT]}" if diff else "")


def _machine(hardware: Mapping[str, Any]) -> str:
    text = f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']:.0f} GiB"
    if not (gpus := hardware.get("gpus")):
        return f"{text}, no GPU"
    cards = ", ".join(f"{count} x {name}" for name, count in Counter(gpus).items())
    drives = [("driver", hardware["driver"]), ("CUDA", hardware["cuda"]), ("NCCL", hardware["nccl"])]
    return f"{text}, {cards} a process ({', '.join(f'{name} {value}' for name, value in drives if value)})"


def _counted(texts: Iterable[str]) -> list[tuple[str, int]]:
    """The most frequent first, then by name."""
    return sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
