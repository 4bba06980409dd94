"""Files that are whole or absent; hashes of content."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cinelora.core.files import content_hash, read_json, whole_file, whole_folder, write_json


def test_hash_is_of_content() -> None:
    assert content_hash({"b": 1, "a": [1.5]}) == content_hash({"a": [1.5], "b": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    with pytest.raises(ValueError, match="JSON"):
        content_hash(float("nan"))


def test_a_crash_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"value": 1})
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_text('{"value": 2')
        raise KeyboardInterrupt
    assert read_json(path) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs the device /dev/full")
def test_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A write that fails half way on a full disk raises the error of the system."""
    path = tmp_path / "result.json"
    with pytest.raises(OSError, match="No space left") as full, whole_file(path) as temporary:
        temporary.write_text("the first half")
        with open("/dev/full", "w") as rest:
            rest.write("x" * 100_000)
    assert full.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt), whole_folder(path) as temporary:
        (temporary / "half").write_text("1")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    for content, replace in (("first", False), ("second", False), ("third", True)):
        with whole_folder(path, replace) as temporary:
            (temporary / content).write_text(content)
        assert [p.name for p in path.iterdir()] == ["first" if not replace else "third"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
