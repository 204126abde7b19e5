"""Models by name from servers, folders and object stores, with the faults of each."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from weights_server import serving, weights

from liteseg.errors import UserError
from liteseg.utils.weights import download
from liteseg.utils.weights import index as module
from liteseg.utils.weights.download import cache_path
from liteseg.utils.weights.index import FORMAT, add_entry
from liteseg.utils.weights.source import model_of, models, resolve
from liteseg.utils.weights.zoo import DEFAULT

CONTENT = weights()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def index(**entries) -> bytes:
    return json.dumps({"format": FORMAT, "models": entries}).encode()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LITESEG_ZOO", raising=False)
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    return tmp_path / "home"


@pytest.fixture
def server(monkeypatch):
    """A server with an index of one model, `ours`, of unknown checksum, in LITESEG_ZOO."""
    with serving() as server:
        server.files["/zoo/index.json"] = index(ours={"file": "ours.pdparams"})
        server.files["/zoo/ours.pdparams"] = CONTENT
        monkeypatch.setenv("LITESEG_ZOO", f"{server.url}/zoo")
        yield server


def cached(home: Path) -> list[str]:
    """The names of files that a later call could take for weights."""
    files = (path for path in home.rglob("*") if path.is_file())
    return sorted(p.name for p in files if p.name.endswith((".pdparams", ".tar.gz", ".zip")))


def test_a_model_is_downloaded_once_by_name(server, home):
    path = resolve("ours")
    assert path.read_bytes() == CONTENT
    assert resolve("ours") == path
    requested = [name for name, _ in server.requests if name.endswith("pdparams")]
    assert requested == ["/zoo/ours.pdparams"]
    assert [model.name for model in models()][:2] == ["ours", DEFAULT.name]


def test_a_command_requests_the_index_once(server, monkeypatch):
    monkeypatch.setattr(module, "_FRESH_S", 60.0)
    for _ in range(3):
        assert resolve("ours")
    assert [name for name, _ in server.requests] == ["/zoo/index.json", "/zoo/ours.pdparams"]


def test_later_downloads_must_equal_the_first(server, home):
    path = resolve("ours")
    assert (path.parent / f"{path.name}.sha256").read_text().strip() == SHA256
    path.unlink()
    server.files["/zoo/ours.pdparams"] = weights(1)
    with pytest.raises(UserError, match=f"expected {SHA256}.*first download.*delete ") as caught:
        resolve("ours")
    assert cached(home) == []
    record = str(caught.value).rpartition("delete ")[2].rstrip(")")
    Path(record).unlink()  # the fix in the message
    assert resolve("ours").read_bytes() == weights(1)


def test_a_file_put_there_by_hand_is_recorded_too(server):
    target = cache_path(f"{server.url}/zoo/ours.pdparams")
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT)
    assert resolve("ours") == target
    target.write_bytes(weights(1))
    with pytest.raises(UserError, match="SHA-256"):
        resolve("ours")


def test_a_known_checksum_is_required(server, home):
    server.files["/zoo/index.json"] = index(ours={"file": "ours.pdparams", "sha256": "0" * 64})
    with pytest.raises(UserError, match=f"SHA-256 is {SHA256}, expected 000"):
        resolve("ours")
    assert cached(home) == []
    server.files["/zoo/index.json"] = index(ours={"file": "ours.pdparams", "sha256": SHA256})
    assert resolve("ours").read_bytes() == CONTENT


def test_a_mirror_replaces_a_published_model(server):
    name, alias = DEFAULT.name, DEFAULT.aliases[0]
    entry = {"file": "ours.pdparams", "config": DEFAULT.config}
    server.files["/zoo/index.json"] = index(**{name: entry})
    for source in (name, alias, DEFAULT.url):
        assert resolve(source) == cache_path(f"{server.url}/zoo/ours.pdparams")
    assert model_of(alias).config == DEFAULT.config
    assert sum(model.name == name for model in models()) == 1


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_error_of_the_server(server, home, status):
    resolve("ours").unlink()
    if status == 404:
        del server.files["/zoo/ours.pdparams"]
    else:
        server.files["/zoo/other.json"] = b""
        server.status = status
        server.files["/zoo/index.json"] = index(ours={"file": "ours.pdparams"})
    with pytest.raises(UserError, match=f"the server answered {status}"):
        resolve("ours")
    assert cached(home) == []


def test_a_cut_transfer_resumes(server):
    assert model_of("ours")
    server.breaks = 0
    resolve("ours").unlink()
    server.requests.clear()
    original = server.files["/zoo/index.json"]
    assert original
    server.break_after, server.breaks = 120_000, 3  # the index is shorter than that
    assert resolve("ours").read_bytes() == CONTENT
    assert [r for name, r in server.requests if name.endswith("pdparams")] == [
        None,
        "bytes=120000-",
        "bytes=240000-",
    ]


def test_a_transfer_that_stays_cut_leaves_no_weights(server, home):
    server.break_after, server.breaks = 50_000, 99
    with pytest.raises(UserError, match=r"broke 3 times \(150000 of 300000 bytes.*resume"):
        resolve("ours")
    assert cached(home) == []
    server.breaks = 0
    assert resolve("ours").read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=150000-"


def test_a_slow_server_is_waited_for_and_a_stalled_one_is_not(server, home, monkeypatch):
    server.pause = 0.05
    assert resolve("ours").read_bytes() == CONTENT
    resolve("ours").unlink()
    monkeypatch.setattr(download, "_TIMEOUT_S", 0.2)
    server.pause = 0.6
    with pytest.raises(UserError, match=r"broke 3 times|can't be reached|timed out"):
        resolve("ours")
    assert cached(home) == []


def test_a_wrong_length_is_noticed(server, home):
    assert model_of("ours")
    path = cache_path(f"{server.url}/zoo/ours.pdparams")
    url = f"{server.url}/zoo/ours.pdparams"
    server.length = 299_999  # of an intact file: the client stops one byte early
    with pytest.raises(UserError, match="truncated"):
        resolve(url)
    server.length = 300_001
    with pytest.raises(UserError, match="broke 3 times"):
        resolve(url)
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>please log in</html>", "a web page"),
        (b"", "empty"),
        (CONTENT[:1000], "truncated"),
        (b"PK\x03\x04", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_wrong_content_is_never_kept(server, home, content, problem):
    server.files["/zoo/ours.pdparams"] = content
    with pytest.raises(UserError, match=problem) as caught:
        resolve("ours")
    assert f"{server.url}/zoo/ours.pdparams" in str(caught.value)
    assert ".part" not in str(caught.value)
    assert cached(home) == []
    server.files["/zoo/ours.pdparams"] = CONTENT
    assert resolve("ours").read_bytes() == CONTENT


def test_redirects(server, home):
    server.files["/zoo/index.json"] = index(ours={"file": f"{server.url}/moved/w.pdparams"})
    server.location = f"{server.url}/zoo/ours.pdparams"
    assert resolve("ours").read_bytes() == CONTENT
    resolve("ours").unlink()
    server.location = "file:///etc/passwd"
    with pytest.raises(UserError, match=r"redirect|not allowed"):
        resolve("ours")
    assert cached(home) == []


def test_without_a_network_the_earlier_index_counts(server, caplog):
    path = resolve("ours")
    server.shutdown()
    server.server_close()
    assert resolve("ours") == path
    assert "using the earlier download" in caplog.text


def test_without_any_index_there_is_an_error(server, home):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"can't be reached.*put it at ") as caught:
        resolve("ours")
    assert str(cache_path(f"{server.url}/zoo/index.json")) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>", "not an index of models"),
        (b"[1]", "lacks"),
        (b'{"format": "other", "models": {}}', "lacks"),
        (b'{"format": "%s"}' % FORMAT.encode(), "models"),
        (index(a="x"), "'a' is no model"),
        (index(a={}), "a has no file"),
        (index(**{"../a": {"file": "w.pdparams"}}), "is no model"),
        (index(a={"file": "../w.pdparams"}), "outside of the folder"),
        (index(a={"file": "/etc/passwd"}), "outside of the folder"),
        (index(a={"file": "file:///etc/passwd"}), "outside of the folder"),
        (index(a={"file": "w.pdparams", "sha256": "1"}), "sha256 of a is '1'"),
        (index(a={"file": "w.pdparams", "classes": "9"}), "classes of a is '9'"),
        (index(a={"file": "w.pdparams", "config": "../../x"}), "config of a"),
        (index(a={"file": "w.pdparams", "miou": 73.1}), "miou of a is 73.1"),
        (b'{"models": ' + b"[" * 100_000, "not an index of models"),
    ],
)
def test_an_index_that_is_none(server, content, problem, tmp_path, monkeypatch):
    assert model_of("ours")  # the earlier download is good
    server.files["/zoo/index.json"] = content
    with pytest.raises(UserError, match=problem) as caught:
        resolve("ours")
    assert f"{server.url}/zoo/index.json" in str(caught.value)
    monkeypatch.setenv("LITESEG_ZOO", str(tmp_path))
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(UserError, match=problem):
        models()
    server.files["/zoo/index.json"] = index(ours={"file": "ours.pdparams"})
    monkeypatch.setenv("LITESEG_ZOO", f"{server.url}/zoo/index.json")
    assert resolve("ours").read_bytes() == CONTENT


def test_several_indexes_and_folders(server, tmp_path, monkeypatch):
    share = tmp_path / "share"
    share.mkdir()
    (share / "w.pdparams").write_bytes(weights(1))
    entry = {"file": "w.pdparams", "aliases": ["mine"]}
    add_entry(share, "ours", entry)
    add_entry(share, "other", {"file": "w.pdparams"})
    monkeypatch.setenv("LITESEG_ZOO", f"{share}, {server.url}/zoo ,")
    assert [model.name for model in models()][:3] == ["ours", "other", "ours"]
    assert resolve("ours") == resolve("mine") == share / "w.pdparams"  # the first one
    with pytest.raises(UserError, match=r"did you mean ours"):
        resolve("ourz")
    (share / "w.pdparams").unlink()
    with pytest.raises(UserError, match="does not exist"):
        resolve("ours")


def test_an_entry_replaces_its_own_and_no_foreign_file(tmp_path):
    add_entry(tmp_path, "a", {"file": "1.zip", "aliases": ["one"], "miou": 0.5})
    add_entry(tmp_path, "b", {"file": "2.zip"})
    add_entry(tmp_path, "a", {"file": "3.zip", "miou": None})
    content = json.loads((tmp_path / "index.json").read_text())["models"]
    assert content == {"a": {"file": "3.zip", "aliases": ["one"]}, "b": {"file": "2.zip"}}
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="not an index"):
        add_entry(tmp_path, "a", {"file": "1.zip"})
    assert (tmp_path / "index.json").read_text() == "{}"


@pytest.fixture(scope="module")
def store():
    """A bucket with the same index and file, on moto's server."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed: the extra `test`")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs", reason="s3fs is not installed: the extra `data`")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("no_proxy", "127.0.0.1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        client.put_object(Bucket="models", Key="zoo/ours.pdparams", Body=CONTENT)
        client.put_object(
            Bucket="models", Key="zoo/index.json", Body=index(ours={"file": "ours.pdparams"})
        )
        yield client
    server.stop()


def test_a_bucket_is_a_zoo(store, monkeypatch, home):
    monkeypatch.setenv("LITESEG_ZOO", "s3://models/zoo")
    path = resolve("ours")
    assert path == home / "weights" / "s3+models" / "zoo" / "ours.pdparams"
    assert path.read_bytes() == CONTENT
    assert resolve("s3://models/zoo/ours.pdparams", SHA256) == path
    # Half a transfer of the same version is completed, and of another version repeated.
    version = store.head_object(Bucket="models", Key="zoo/ours.pdparams")["ETag"]
    for stored, begin in ((version, CONTENT[:1000]), ("other", b"x" * 1000)):
        path.unlink()
        path.with_name("ours.pdparams.part").write_bytes(begin)
        path.with_name("ours.pdparams.part.version").write_text(stored)
        assert resolve("ours").read_bytes() == CONTENT
    store.put_object(Bucket="models", Key="zoo/ours.pdparams", Body=b"<html>")
    path.unlink()
    with pytest.raises(UserError, match="SHA-256"):
        resolve("ours")
    assert cached(home) == []
    store.put_object(Bucket="models", Key="zoo/ours.pdparams", Body=CONTENT)


@pytest.mark.parametrize("address", ["s3://models/zoo/none.pdparams", "s3://nowhere/w.pdparams"])
def test_a_missing_object(store, home, address):
    with pytest.raises(UserError, match="can't be read") as caught:
        resolve(address)
    assert address in str(caught.value)
    assert str(cache_path(address)) in str(caught.value)


def test_an_object_store_without_its_package(home):
    code = (
        "import sys; sys.modules['fsspec'] = None\n"
        "from liteseg.utils.weights.source import resolve\n"
        "try: resolve('s3://b/w.pdparams')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert "UserError s3://b/w.pdparams: " in done.stdout
    assert "pip install" in done.stdout
