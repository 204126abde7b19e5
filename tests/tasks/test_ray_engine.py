"""`predict --engine ray`: a cluster of two workers on this machine, one of which dies."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time

import pytest
from test_full_disk import mount
from test_predict import files_of, write_image
from tiny_export import make_export

import liteseg
from liteseg.errors import UserError

IMAGES = 200

WITHOUT_PADDLE = """
import sys
sys.modules["paddle"] = None  # importing it raises ImportError
from pathlib import Path
from liteseg.tasks import ray_engine
from liteseg.tasks.inputs import find_jobs
from liteseg.tasks.outputs import Results
model, photos, out = sys.argv[1:]
segmenter = ray_engine.open_segmenter(None, model)
jobs = find_jobs([photos])
ray_engine.predict_jobs(segmenter, jobs, Results(Path(out), ("mask",)), lambda *row: print(*row))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        write_image(root / f"{number % 3}" / f"{number:03d}.png", number, (32, 64))
    (root / "broken.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def expected(exported, photos, tmp_path_factory):
    """The results of the local engine."""
    out = tmp_path_factory.mktemp("local")
    liteseg.predict(photos, out, model=exported, threads=1)
    return contents(out)


@pytest.fixture(scope="module")
def cluster(exported):
    """Two cores, so two actors; returns the processes of those that run."""
    import psutil

    ray = pytest.importorskip("ray", reason="Ray is not installed: the extra `ray`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        options = {"include_dashboard": False, "log_to_driver": False}
        ray.init(num_cpus=2, object_store_memory=100 << 20, **options)
        tree = psutil.Process().children
        yield lambda: [p for p in tree(recursive=True) if "MapBatches(_Actor" in p.name()]
        ray.shutdown()


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def check(result, out, expected, photos):
    assert (result.inputs, result.failed) == (IMAGES + 1, 1)
    assert contents(out) == expected
    (line,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    assert line["name"] == f"{photos}/broken.png"
    assert "not an image" in line["error"]


def test_a_worker_dies(cluster, exported, photos, expected, tmp_path):
    """Every image once, with the bytes of the local engine; URLs in both directions."""

    def kill():
        while len(files_of(tmp_path)) < 12:
            time.sleep(0.01)
        cluster()[0].kill()
        killed.append(len(files_of(tmp_path)))

    killed: list[int] = []
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    options = {"model": exported, "engine": "ray", "actors": 2}
    result = liteseg.predict(f"file://{photos}", f"file://{tmp_path}", **options)
    thread.join(10)
    assert killed[0] < 3 * IMAGES
    check(result, tmp_path, expected, f"file://{photos}")


def test_resuming(cluster, exported, photos, expected, tmp_path):
    liteseg.predict(photos, tmp_path, model=exported, threads=1, shard=(0, 2))
    there = len(contents(tmp_path)) // 3
    result = liteseg.predict(photos, tmp_path, model=exported, engine="ray", skip_existing=True)
    assert result.existing == there > 0
    check(result, tmp_path, expected, photos)


def test_a_full_disk_of_an_actor(cluster, exported, photos, tmp_path):
    """Its message, without Ray's traceback."""
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path)
    try:
        with pytest.raises(UserError) as raised:
            liteseg.predict(photos, tmp_path, model=exported, engine="ray")
        assert re.fullmatch(
            rf"cannot write {tmp_path}/\S+\.png: No space left on device; .* \(on the host \S+\)",
            str(raised.value),
        )
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "run"}, "--engine ray: the model is missing; expected the folder of an exp"),
        ({"model": "none"}, "--engine ray: the model is none; expected the folder of an exported"),
        ({"inputs_from": "-"}, "processes of Ray read the list"),
    ],
)
def test_what_ray_cannot_run(photos, tmp_path, options, message):
    inputs = [] if "inputs_from" in options else photos
    with pytest.raises(UserError, match=message):
        liteseg.predict(inputs, tmp_path, engine="ray", **options)


def test_without_ray(photos, tmp_path, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'liteseg\[ray\]'"):
        liteseg.predict(photos, tmp_path, model=exported, engine="ray")


def test_the_workers_need_no_paddle(exported, photos, expected, tmp_path):
    command = [sys.executable, "-c", WITHOUT_PADDLE, exported, photos / "0", tmp_path]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = contents(tmp_path)
    assert len(found) == len(list((photos / "0").iterdir()))
    assert found == {name: expected[f"0/{name}"] for name in found}
