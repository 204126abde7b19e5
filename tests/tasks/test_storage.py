"""Files in folders, in fsspec's stores, and what a user reads when a store refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from liteseg.errors import UserError
from liteseg.tasks.storage import (
    check_storage,
    child,
    exists,
    is_url,
    kind_of,
    location,
    read,
    scan,
    write,
)

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: the extra `data`")


class NoCredentials(Exception):
    """As that of botocore, which is no OSError."""


class Refusing(fsspec.AbstractFileSystem):
    protocol = "refusing"

    def _refuse(self, *args, **options):
        raise NoCredentials("Unable to locate credentials")

    info = ls = cat_file = pipe_file = makedirs = _refuse


@pytest.fixture(autouse=True)
def refusing_store():
    fsspec.register_implementation("refusing", Refusing, clobber=True)


@pytest.fixture(params=["folder", "file", "memory"])
def root(request, tmp_path):
    """An empty folder of the disk, the same by its URL, and one in fsspec's memory."""
    fsspec.filesystem("memory").store.clear()
    if request.param == "folder":
        return tmp_path
    if request.param == "file":
        return f"file://{tmp_path}"
    return f"memory://{tmp_path.name}"


def test_files_are_written_listed_and_read(root):
    names = ["b/two.png", "b/one.png", "a.png", "c/d/deep.png", ".hidden", "b/ü %1#.png"]
    for name in names:
        write(child(root, name), name.encode())
    assert scan(root) == (["b", "c"], ["a.png"])
    assert scan(child(root, "b")) == ([], ["one.png", "two.png", "ü %1#.png"])
    assert scan(child(root, "c")) == (["d"], [])
    for name in names:
        assert read(child(root, name)) == name.encode()
    write(child(root, "a.png"), b"new")
    assert read(child(root, "a.png")) == b"new"
    found = [kind_of(child(root, name)) for name in ("a.png", "b", "none", "b/none.png")]
    assert found == ["file", "folder", "missing", "missing"]
    assert [exists(child(root, name)) for name in ("a.png", "b", "none")] == [True, True, False]


def test_nothing_is_half_written(root, monkeypatch):
    """A failed write leaves the earlier file, and no temporary one."""
    write(child(root, "a.png"), b"old")

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    memory, file = map(fsspec.get_filesystem_class, ("memory", "file"))
    # The last operation of each: in an object store writing itself is atomic.
    for owner, name in ((os, "replace"), (file, "mv"), (memory, "pipe_file")):
        monkeypatch.setattr(owner, name, fail)
    with pytest.raises(UserError, match="No space left"):
        write(child(root, "a.png"), b"new")
    assert read(child(root, "a.png")) == b"old"
    path = Path(str(root).replace("file://", ""))
    assert [p.name for p in path.glob(".*")] == []


def test_a_store_is_checked_before_the_work(root, tmp_path):
    check_storage(root)
    assert list(tmp_path.iterdir()) == []
    assert fsspec.filesystem("memory").store == {}


@pytest.mark.parametrize(
    "use", [kind_of, scan, read, exists, check_storage, lambda url: write(url, b"")]
)
def test_a_store_without_credentials(use):
    with pytest.raises(UserError) as raised:
        use("refusing://bucket/photos")
    message = str(raised.value)
    assert message.startswith("refusing://bucket/photos")
    assert "NoCredentials: Unable to locate credentials" in message
    assert "credentials of the store" in message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/a.png", "Protocol not known: nosuch"),
        ("nosuch://bucket/a.png", r"pip install 'liteseg\[data\]'"),
        ("file:///none/a.png", "file:///none/a.png: does not exist"),
        ("memory://none/a.png", "does not exist"),
    ],
)
def test_what_cannot_be_read(url, message):
    with pytest.raises(UserError, match=message):
        read(url)


def test_locations(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert location("~/a") == Path("/home/me/a")
    assert location("s3://bucket/a") == "s3://bucket/a"
    assert [is_url("s3://a"), is_url("a:b"), is_url(Path("a"))] == [True, False, False]
    assert [child(Path("a"), "b/c"), child("s3://a/", "b")] == [Path("a/b/c"), "s3://a/b"]
