"""Prediction of many images: kills, full disks, shards, lists, object stores, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_full_disk import mount
from test_predict import RedSegmenter, files_of, write_image

import liteseg
from liteseg.errors import UserError
from liteseg.tasks import predict as module

SLOW = """
import sys, time
sys.path[:0] = sys.argv[1:3]
from test_predict import RedSegmenter
import liteseg
class Slow(RedSegmenter):
    def predict(self, image):
        time.sleep(0.1)
        return super().predict(image)
liteseg.predict(sys.argv[3], sys.argv[4], model=Slow(), skip_existing=True)
"""


def predict(inputs, output, **options):
    return liteseg.predict(inputs, output, model=RedSegmenter(), **options)


def contents(folder):
    return {name: (Path(folder) / name).read_bytes() for name in files_of(Path(folder))}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve images in three folders."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(12):
        write_image(root / f"{number % 3}" / f"{number:02d}.png", number)
    return root


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory):
    """Their results in one call."""
    out = tmp_path_factory.mktemp("expected")
    assert predict(photos, out).inputs == 12
    return contents(out)


def test_a_killed_job_continues(photos, expected, tmp_path):
    """Every image once: results that exist are left as they are, and no part remains."""
    here = Path(__file__).parent
    code = [sys.executable, "-c", SLOW, f"{here}", f"{here.parent}", f"{photos}", f"{tmp_path}"]
    process = subprocess.Popen(code)
    deadline = time.monotonic() + 120
    while len(files_of(tmp_path)) < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    (tmp_path / "0" / ".00_label.png.0123abcd.tmp").write_bytes(b"half")
    written = Counter(path.name[:2] for path in tmp_path.rglob("[0-9]*.png"))
    complete = [name for name, count in written.items() if count == 3]
    files = [path for path in tmp_path.rglob("*.png") if path.name[:2] in complete]
    times = [path.stat().st_mtime_ns for path in files]
    assert 0 < len(complete) < 12
    result = predict(photos, tmp_path, skip_existing=True)
    assert (result.inputs, result.existing, result.failed) == (12, len(complete), 0)
    assert contents(tmp_path) == expected
    assert [path.stat().st_mtime_ns for path in files] == times
    again = predict(photos, tmp_path, skip_existing=True)
    assert (again.inputs, again.existing) == (12, 12)


def test_shards_give_the_results_of_one_call(photos, expected, tmp_path, monkeypatch):
    counts = [predict(photos, tmp_path, shard=(index, 3)).inputs for index in range(2)]
    # The last shard as by two processes of Paddle's launcher.
    monkeypatch.setattr(module, "connect", lambda: None)
    monkeypatch.setattr(module, "summed_at_the_end", lambda counts: counts)
    for rank in range(2):
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
        monkeypatch.setenv("PADDLE_TRAINER_ID", f"{rank}")
        counts.append(predict(photos, tmp_path, shard=(2, 3)).inputs)
    assert sum(counts) == 12
    assert contents(tmp_path) == expected


@pytest.mark.parametrize("shard", [(2, 2), (0, 0), (-1, 2)])
def test_no_such_shard(photos, tmp_path, shard):
    with pytest.raises(UserError, match="expected I/N with I from 0 to N-1"):
        predict(photos, tmp_path / "out", shard=shard)
    assert list(tmp_path.iterdir()) == []


def test_broken_inputs_are_recorded_and_the_others_predicted(photos, expected, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "broken.png").write_bytes((photos / "0" / "00.png").read_bytes()[:99])
    listed = [*sorted(photos.rglob("*.png")), tmp_path / "broken.png", "none.png", tmp_path]
    (tmp_path / "list.txt").write_text("\n".join(map(str, listed)))
    messages = []
    result = predict([], out, inputs_from=tmp_path / "list.txt", on_skip=messages.append)
    assert (result.inputs, result.failed, result.failures) == (15, 3, out / "failures.jsonl")
    lines = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert {line["name"]: line["error"] for line in lines} == {
        str(source): error for source, error in result.skipped.items()
    }
    assert sorted(line["name"] for line in lines) == sorted(map(str, listed[-3:]))
    assert sorted(messages) == sorted(f"skipped: {line['error']}" for line in lines)
    prefix = str(photos)[1:]
    assert contents(out) == {f"{prefix}/{name}": data for name, data in expected.items()}
    # Fixed, they are predicted by the next call, and the list of failures is gone.
    write_image(tmp_path / "broken.png")
    (tmp_path / "list.txt").write_text("\n".join(map(str, listed[:-2])))
    result = predict([], out, inputs_from=tmp_path / "list.txt", skip_existing=True)
    assert (result.inputs, result.existing, result.failed) == (13, 12, 0)
    assert not (out / "failures.jsonl").exists()


def test_inputs_or_a_list(photos, tmp_path):
    for given, listed in (([], None), ([photos], "list.txt")):
        with pytest.raises(UserError, match="give either inputs, or a list"):
            predict(given, tmp_path, inputs_from=listed)


def test_a_full_disk_ends_the_run(tmp_path):
    """With one message; what is written stays, and the next call continues."""
    for number in range(30):
        write_image(tmp_path / "in" / f"{number:02d}.png", number, (200, 300))
    out = tmp_path / "out"
    out.mkdir()
    mount("-t", "tmpfs", "-o", "size=300k", "tmpfs", out)
    try:
        with pytest.raises(UserError) as raised:
            predict(tmp_path / "in", out, what="mask")
        assert "No space left on device; free some space" in str(raised.value)
        written = contents(out)
        assert 0 < len(written) < 30
        assert [path.name for path in out.rglob(".*")] == []
        mount("-o", "remount,size=8m", out)
        result = predict(tmp_path / "in", out, what="mask", skip_existing=True)
        assert (result.inputs, result.existing, result.failed) == (30, len(written), 0)
        after = contents(out)
        assert len(after) == 30
        assert {name: after[name] for name in written} == written
    finally:
        subprocess.run(["umount", "--lazy", out], check=True)


def test_a_result_that_cannot_be_written_is_a_failure_of_its_own(photos, tmp_path):
    (tmp_path / "1" / "01_label.png").mkdir(parents=True)
    (tmp_path / "1" / "01_label.png" / "mine").touch()
    result = predict(photos, tmp_path, what="mask", overwrite=True)
    assert (result.inputs, list(result.skipped)) == (12, [photos / "1" / "01.png"])


def test_files_of_the_user_beyond_the_first_inputs(photos, tmp_path, monkeypatch):
    """They are found when their turn comes; the run continues."""
    monkeypatch.setattr(module, "_FIRST", 3)
    own = tmp_path / "2" / "11_label.png"
    write_image(own)
    before = own.read_bytes()
    result = predict(photos, tmp_path, what="mask")
    assert (result.inputs, list(result.skipped)) == (12, [photos / "2" / "11.png"])
    assert "not written by liteseg" in result.skipped[photos / "2" / "11.png"]
    assert own.read_bytes() == before


class Measured(RedSegmenter):
    """Measures the memory at its last image."""

    def __init__(self, count):
        super().__init__()
        self.left, self.memory = count, 0

    def predict(self, image):
        self.left -= 1
        if self.left == 0:
            # pathlib's names are in Python's table of strings, which grows in large blocks.
            others = tracemalloc.Filter(False, "*pathlib*")
            snapshot = tracemalloc.take_snapshot().filter_traces([others])
            self.memory = sum(trace.size for trace in snapshot.traces)
        return super().predict(image)


def memory_of(count, folder):
    """The memory at the last one of `count` images, in 20 folders."""
    write_image(folder / "0.png", size=(8, 8))
    for number in range(count):
        path = folder / "in" / f"{number * 20 // count}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "0.png", path)
    segmenter = Measured(count)
    tracemalloc.start()
    result = liteseg.predict(folder / "in", folder / "out", model=segmenter, what="mask")
    tracemalloc.stop()
    assert (result.inputs, result.failed) == (count, 0)
    return segmenter.memory


def test_memory_does_not_grow_with_the_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FIRST", 20)
    memory_of(20, tmp_path / "first")  # imports, caches
    few, many = memory_of(60, tmp_path / "few"), memory_of(600, tmp_path / "many")
    assert abs(many - few) < 20_000
    monkeypatch.setattr(module, "_FIRST", 600)  # a list of them
    assert memory_of(600, tmp_path / "list") > few + 60_000


def test_urls(photos, expected, tmp_path):
    """The memory of fsspec in place of an object store, in both directions."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: the extra `data`")
    store = fsspec.filesystem("memory")
    store.store.clear()
    for path in photos.rglob("*.png"):
        store.pipe_file(f"/in/{path.relative_to(photos)}", path.read_bytes())
    store.pipe_file("/in/broken.png", b"no image")
    store.pipe_file("/in/v.mp4", b"no video")
    for _ in range(2):
        result = predict("memory://in", "memory://out", skip_existing=True)
        assert (result.inputs, result.failed) == (14, 2)
    assert result.existing == 12
    found = {path[5:]: data.getvalue() for path, data in store.store.items() if "/out/" in path}
    lines = [json.loads(line) for line in found.pop("failures.jsonl").splitlines()]
    assert found == expected
    assert {line["name"] for line in lines} == {"memory://in/broken.png", "memory://in/v.mp4"}
    assert "videos are read from and written to local folders" in lines[1]["error"]
    assert predict("memory://in/**/0?.png", tmp_path, what="mask").inputs == 10
    label = np.array(Image.open(tmp_path / "0" / "00_label.png"))
    np.testing.assert_array_equal(
        label, RedSegmenter().predict(np.array(Image.open(photos / "0" / "00.png")))
    )
    with pytest.raises(UserError, match="is an input, too"):
        predict("memory://in/", "memory://in")
    for given, message in (("memory://none", "does not exist"), ("memory://in/*.tif", "no images")):
        with pytest.raises(UserError, match=message):
            predict(given, tmp_path)


def test_a_store_that_refuses(photos, tmp_path, monkeypatch):
    """Before the model is loaded, in one message."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: the extra `data`")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, output in (("s3://bucket/photos", tmp_path), (photos, "s3://bucket/out")):
        with pytest.raises(UserError, match=r"NoCredentialsError.*credentials of the store"):
            liteseg.predict(given, output, model="none")
