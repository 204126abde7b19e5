from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from weights_server import serving, weights

from liteseg.errors import UserError
from liteseg.utils.files import sha256_of
from liteseg.utils.text import redacted
from liteseg.utils.weights import download
from liteseg.utils.weights.download import cache_path
from liteseg.utils.weights.source import resolve

CONTENT = weights()
assert len(CONTENT) == 300_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serving() as server:
        server.files["/a/model.pdparams"] = CONTENT
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "home"


def tar_of(*members, mode="w:gz") -> bytes:
    """A tar of (name, content) pairs and TarInfos."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def zip_of(*members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return buffer.getvalue()


def special(name, kind, target="") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def all_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_downloads_once(server, home):
    url = f"{server.url}/a/model.pdparams"
    path = resolve(url, SHA256.upper())
    assert path.read_bytes() == CONTENT
    assert path == cache_path(url)
    assert home in path.parents
    assert resolve(url, SHA256) == path
    assert len(server.requests) == 1
    assert all_files(home) == ["model.pdparams"]


def test_urls_of_the_same_file_name_do_not_collide():
    urls = [
        "http://h/a/m",
        "http://h/b/m",
        "http://g/a/m",
        "http://h/a/m?id=1",
        "http://h/a/m?id=2",
    ]
    assert len({cache_path(url) for url in urls}) == 5


def test_a_url_cannot_point_outside_the_cache(home):
    assert cache_path("http://h/../%2e%2e/%2fetc/x") == home / "weights" / "http+h" / "etc" / "x"
    with pytest.raises(UserError, match="contains no file name"):
        cache_path("http://h/..")


def test_a_broken_connection_is_resumed(server):
    server.breaks = 2
    assert resolve(f"{server.url}/a/model.pdparams", SHA256).read_bytes() == CONTENT
    assert [r for _, r in server.requests] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_later_run_resumes(server, home):
    server.breaks, server.break_after = 3, 10_000
    url = f"{server.url}/a/model.pdparams"
    with pytest.raises(UserError, match=r"broke 3 times \(30000 of 300000 bytes.*run again"):
        resolve(url)
    assert not cache_path(url).exists()
    assert resolve(url).read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=30000-"
    assert all_files(home) == ["model.pdparams"]


def test_a_file_that_changed_on_the_server_starts_over(server):
    server.breaks = 3
    server.break_after = 10
    url = f"{server.url}/a/model.pdparams"
    with pytest.raises(UserError, match="broke"):
        resolve(url)
    server.files["/a/model.pdparams"] = weights(1)
    assert resolve(url).read_bytes() == weights(1)


def test_a_part_that_is_too_long_is_discarded(server):
    url = f"{server.url}/a/model.pdparams"
    target = cache_path(url)
    target.parent.mkdir(parents=True)
    target.with_name("model.pdparams.part").write_bytes(CONTENT + b"more")
    etag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
    target.with_name("model.pdparams.part.version").write_text(etag)
    assert resolve(url).read_bytes() == CONTENT


def test_wrong_checksum(server, home):
    url = f"{server.url}/a/model.pdparams"
    with pytest.raises(UserError, match=f"SHA-256 is {SHA256}, expected {'0' * 64}"):
        resolve(url, "0" * 64)
    assert "model.pdparams" not in all_files(home)
    resolve(url)
    with pytest.raises(UserError, match="SHA-256"):  # of the one in the cache
        resolve(url, "0" * 64)


def test_404(server):
    url = f"{server.url}/none.pdparams"
    with pytest.raises(UserError, match="answered 404 Not Found") as caught:
        resolve(url)
    assert url in str(caught.value)
    assert str(cache_path(url)) in str(caught.value)


def test_no_network():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/m.pdparams"
        with pytest.raises(UserError, match="can't be reached") as caught:
            resolve(url)
        assert str(cache_path(url)) in str(caught.value)
        # The fix in the message works.
        cache_path(url).write_bytes(b"by hand")
        assert resolve(url).read_bytes() == b"by hand"


def test_disk_full(server):
    url = f"{server.url}/a/model.pdparams"
    target = cache_path(url)
    target.parent.mkdir(parents=True)
    target.with_name("model.pdparams.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"No space left.*LITESEG_HOME"):
        resolve(url)


def test_two_processes_at_once(server, home):
    url = f"{server.url}/a/model.pdparams"
    program = (
        "import sys; from liteseg.utils.weights.source import resolve;"
        "sys.stdout.write(str(resolve(sys.argv[1], sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, url, SHA256]
    root = str(Path(__file__).resolve().parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)
    ]
    answers = [process.communicate(timeout=60)[0].decode() for process in processes]
    assert answers == [str(cache_path(url))] * 2
    assert len(server.requests) == 1
    assert all_files(home) == ["model.pdparams"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("net.tar.gz", tar_of(("net/readme.txt", b"hi"), ("net/model.pdparams", CONTENT))),
        ("net.tar", tar_of(("./model.pdparams", CONTENT), mode="w")),
        ("net.tgz", tar_of(("STDCNet1.pdparams", CONTENT))),
        ("net.zip", zip_of(("x/", b""), ("x/other.pdparams", b"1"), ("x/model.pdparams", CONTENT))),
    ],
)
def test_archives(server, tmp_path, name, data):
    server.files[f"/{name}"] = data
    assert resolve(f"{server.url}/{name}").read_bytes() == CONTENT
    (tmp_path / name).write_bytes(data)
    path = resolve(tmp_path / name)
    assert path.read_bytes() == CONTENT
    before = path.stat().st_mtime_ns
    assert resolve(tmp_path / name).stat().st_mtime_ns == before


GOOD = ("model.pdparams", CONTENT)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.tar.gz", tar_of(GOOD, ("../evil.txt", b"x")), r"'../evil.txt' points outside"),
        ("a.tar.gz", tar_of(("../model.pdparams", b"x")), "points outside"),
        ("a.tar.gz", tar_of(GOOD, ("/tmp/evil", b"x")), r"'/tmp/evil' points outside"),
        ("a.tar.gz", tar_of(special("l", tarfile.SYMTYPE, "/etc"), GOOD), "link or device"),
        ("a.tar", tar_of(special("l", tarfile.LNKTYPE, "../x"), GOOD, mode="w"), "link or device"),
        ("a.tar.gz", tar_of(special("d", tarfile.CHRTYPE), GOOD), "link or device"),
        ("a.zip", zip_of(GOOD, ("../evil.txt", b"x")), "points outside"),
        ("a.zip", zip_of(GOOD, ("..\\evil.txt", b"x")), "points outside"),
        ("a.zip", zip_of(GOOD, ("C:\\evil.txt", b"x")), "points outside"),
        ("a.tar.gz", tar_of(("readme", b"x")), "should contain one model.pdparams, found none"),
        ("a.zip", zip_of(("a.pdparams", b"1"), ("b.pdparams", b"2")), r"found 2 \('a.pdp"),
        ("a.tar.gz", b"<html>404</html>", "can't be used"),
        ("a.tar.gz", tar_of(GOOD)[:1000], "can't be used"),
        ("a.zip", b"PK\x03\x04 no", "can't be used"),
        ("a.zip", b"", "can't be used"),
    ],
)
def test_bad_archives(tmp_path, home, name, data, why):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=why) as caught:
        resolve(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert all_files(tmp_path) == [name]


def test_zip_link_and_archive_bombs(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        link = zipfile.ZipInfo("model.pdparams")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    zeros = bytes(70 << 20)
    cases = {"l.zip": buffer.getvalue(), "b.zip": zip_of(("model.pdparams", zeros))}
    cases["b.tar.gz"] = tar_of(("first", zeros), GOOD)
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="is a link" if name == "l.zip" else "far more"):
            resolve(tmp_path / name)
        assert all_files(tmp_path / "home") == []


def test_local_paths(tmp_path):
    def touch(name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"w")
        return tmp_path / name

    single = touch("w.pdparams")
    assert resolve(single) == single
    last = touch("run/checkpoints/last/model.pdparams")
    assert resolve(tmp_path / "run") == last
    best = touch("run/checkpoints/best/model.pdparams")
    assert resolve(str(tmp_path / "run")) == best
    assert resolve(tmp_path / "run" / "checkpoints") == best
    assert resolve(tmp_path / "run" / "checkpoints" / "last") == last
    paddleseg = touch("output/best_model/model.pdparams")
    assert resolve(tmp_path / "output") == paddleseg
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"contains no model.pdparams"):
        resolve(tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        resolve(tmp_path / "none")
    with pytest.raises(UserError, match="check that it is the intended file"):
        resolve(single, "0" * 64)
    assert single.exists()
    assert sha256_of(single) == hashlib.sha256(b"w").hexdigest()


class Redirect(BaseHTTPRequestHandler):
    """Redirects every request to `server.location` and records the headers."""

    def do_GET(self):
        self.server.headers.append(self.headers)
        self.send_response(302)
        self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def redirect():
    with ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as server:
        server.headers = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x.pdparams", "file:///etc/passwd"])
def test_redirects_to_other_protocols_are_refused(location, redirect):
    redirect.location = location
    with pytest.raises(UserError, match=r"refused a redirect|not allowed"):
        resolve(f"http://127.0.0.1:{redirect.server_port}/m.pdparams")


def test_redirects_from_https_to_http_are_refused():
    request = urllib.request.Request("https://example.org/m.pdparams?token=secret")
    redirects = download._Redirects()
    for place in ("http://example.org/m", "ftp://example.org/m"):
        with pytest.raises(UserError, match="not https") as caught:
            redirects.redirect_request(request, None, 302, "", {}, place)
        assert "secret" not in str(caught.value)
    assert redirects.redirect_request(request, None, 302, "", {}, "https://cdn.example.org/m")


def test_redirects_do_not_receive_the_password(server, redirect):
    redirect.location = f"{server.url}/a/model.pdparams"
    resolve(f"http://me:secret@127.0.0.1:{redirect.server_port}/m.pdparams")
    assert redirect.headers[0]["Authorization"] == "Basic bWU6c2VjcmV0"


def test_http_and_https_have_their_own_cache_files(home):
    assert cache_path("https://h/m.pdparams") != cache_path("http://h/m.pdparams")
    assert cache_path("http://h:80/m.pdparams").is_relative_to(home / "weights")


@pytest.mark.parametrize(
    "url",
    [
        "https://../m.pdparams",
        "https://../../x/m.pdparams",
        "https:///m.pdparams",
        "https://h:port/m.pdparams",
        "https://[::1/m.pdparams",
        "https://h\n/m.pdparams",
        "https://h:99999/m.pdparams",
        "https://me:secret@../m.pdparams",
    ],
)
def test_malformed_addresses_are_refused(url, home):
    with pytest.raises(UserError) as caught:
        resolve(url)
    assert "secret" not in str(caught.value)
    assert not home.exists()


def test_size_limit(server, monkeypatch):
    monkeypatch.setattr(download, "_MAX_BYTES", 200_000)
    with pytest.raises(UserError, match="larger than"):
        resolve(f"{server.url}/a/model.pdparams")


def test_checksum_in_the_address(server):
    assert resolve(f"{server.url}/a/model.pdparams#sha256={SHA256}").read_bytes() == CONTENT
    with pytest.raises(UserError, match="SHA-256"):
        resolve(f"{server.url}/a/model.pdparams#sha256={'0' * 64}")


def test_tokens_are_redacted(server):
    url = f"{server.url}/missing.pdparams?token=secret"
    with pytest.raises(UserError) as caught:
        resolve(url)
    assert "secret" not in str(caught.value)
    assert redacted("pretrained: https://me:pw@h/a.tar?x=secret&y=1 # c") == (
        "pretrained: https://***@h/a.tar?*** # c"
    )
    assert redacted("see https://h/a.tar (ok)") == "see https://h/a.tar (ok)"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_sparse_members_are_refused(form, tmp_path):
    """1.5 kB that unpack to 500 MiB."""
    size = 500 << 20
    info = tarfile.TarInfo("model.pdparams")
    if form == tarfile.PAX_FORMAT:
        info.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": f"0,1,{size},0"}
        info.size = 1
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=form) as tar:
            tar.addfile(info, io.BytesIO(b"x"))
        data = content.getvalue()
    else:
        info.size, info.type = 1, tarfile.GNUTYPE_SPARSE
        header = bytearray(info.tobuf(form))
        header[386:398], header[398:410] = b"%011o\0" % 0, b"%011o\0" % 1
        header[483:495] = b"%011o\0" % size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data = bytes(header) + b"x".ljust(512, b"\0") + bytes(1024)
    (tmp_path / "m.tar").write_bytes(data)
    with pytest.raises(UserError, match="sparse"):
        resolve(tmp_path / "m.tar")
