from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from liteseg.errors import UserError
from liteseg.utils.files import (
    atomic_write,
    check_writable,
    locked,
    read_json,
    read_regular,
    remove_leftovers,
    require_contained,
    sha256_of,
)


def test_write_bytes_and_text_with_missing_folders(tmp_path):
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


def test_full_disk_and_unwritable_paths(tmp_path):
    with pytest.raises(UserError, match="No space"), atomic_write(tmp_path / "f"):
        raise OSError(28, "No space left on device")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder"), atomic_write(tmp_path / "folder") as file:
        file.write(b"x")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError), atomic_write(tmp_path / "file" / "x") as file:
        file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_sha256_of(tmp_path):
    data = os.urandom((1 << 20) + 7)  # more than one block
    (tmp_path / "f").write_bytes(data)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_check_writable(tmp_path):
    assert check_writable(tmp_path / "new" / "er") == tmp_path / "new" / "er"
    assert os.listdir(tmp_path / "new" / "er") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in"):
        check_writable(tmp_path / "file")
    with pytest.raises(UserError, match="cannot write in"):
        check_writable("/proc/liteseg")


LOCK_AND_WAIT = """
import sys
from pathlib import Path
from liteseg.utils.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_releases_its_lock(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK_AND_WAIT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert other.stdout.readline() == b"locked\n"
    with pytest.raises(UserError, match=f"in use by process {other.pid} "), locked(tmp_path):
        pass
    other.kill()
    other.communicate()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_only_temporary_files_are_removed(tmp_path):
    kept = {"config.yml", ".config.yml.tmp", ".config.yml.xyz12345.tmp", ".other.01234567.tmp"}
    for name in kept | {".config.yml.0123abcd.tmp", ".vdlrecords.17.log.01234567.tmp"}:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "config.yml", "vdlrecords.*")
    remove_leftovers(tmp_path / "missing", "config.yml")
    assert set(os.listdir(tmp_path)) == kept


def test_only_regular_files_are_read(tmp_path):
    """A FIFO would hang, and /dev/zero fill the memory."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(b"12345")
    for path in (tmp_path / "fifo", tmp_path / "zero", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path)
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "file", 4)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "\xff"])
def test_broken_json_raises_one_type_of_error(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")


def test_the_lock_follows_no_link(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="remove it"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "content"


def test_links_that_leave_a_folder_are_found(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / "checkpoints").mkdir(parents=True)
    (outside / "best").mkdir(parents=True)
    (run / "a").write_text("x")
    (run / "checkpoints" / "inside").symlink_to("../a")
    (run / "dangling").symlink_to("nothing")
    require_contained(run)
    for link, target in (
        (run / "train.log", outside / "new"),
        (run / "checkpoints" / "last", outside / "best"),
        (run / "checkpoints" / "zero", Path("/dev/zero")),
    ):
        link.symlink_to(target)
        with pytest.raises(UserError, match="outside"):
            require_contained(run)
        link.unlink()
    os.mkfifo(run / "fifo")
    with pytest.raises(UserError, match="not a regular file"):
        require_contained(run)
