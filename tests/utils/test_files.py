from __future__ import annotations

import os

import pytest

from liteseg.errors import UserError
from liteseg.utils.files import atomic_write, check_writable


def test_writes_bytes_and_text_with_folders(tmp_path):
    with atomic_write(tmp_path / "a" / "b") as file:
        file.write(b"\x00\x01")
    with atomic_write(tmp_path / "t", "w") as file:
        file.write("ü\n")
    assert (tmp_path / "a" / "b").read_bytes() == b"\x00\x01"
    assert (tmp_path / "t").read_text(encoding="utf-8") == "ü\n"
    assert sorted(os.listdir(tmp_path)) == ["a", "t"]


def test_a_failed_write_changes_nothing(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    writing = atomic_write(path, "w")
    file = writing.__enter__()
    file.write("half")
    file.flush()
    assert path.read_text() == "old"
    stop = KeyboardInterrupt()
    assert not writing.__exit__(type(stop), stop, None)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_disk_full_and_wrong_places(tmp_path):
    with pytest.raises(UserError, match="No space"), atomic_write(tmp_path / "f"):
        raise OSError(28, "No space left on device")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder"), atomic_write(tmp_path / "folder") as file:
        file.write(b"x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError), atomic_write(tmp_path / "file" / "x") as file:
        file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_check_writable(tmp_path):
    assert check_writable(tmp_path / "new" / "er") == tmp_path / "new" / "er"
    assert os.listdir(tmp_path / "new" / "er") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in"):
        check_writable(tmp_path / "file")
    with pytest.raises(UserError, match="cannot write in"):
        check_writable("/proc/liteseg")
