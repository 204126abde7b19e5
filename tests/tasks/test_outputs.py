"""Where results go: which exist, what a kill leaves behind, failures.jsonl, a full disk."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import pytest

from liteseg.errors import UserError
from liteseg.report.visualize import write_png
from liteseg.tasks import outputs
from liteseg.tasks.inputs import Job, in_shard
from liteseg.tasks.outputs import ENDINGS, KINDS, Failures, OutputFailed, Results

IMAGE, VIDEO = Job(Path("in/x.png"), "deep/x"), Job(Path("in/v.mp4"), "v")


def lines(folder):
    return [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]


def test_results_that_are_there(tmp_path):
    results = Results(tmp_path, KINDS, skip_existing=True)
    files = results.of(IMAGE)
    expected = [tmp_path / f"deep/x{ENDINGS[kind]}.png" for kind in KINDS]
    assert files == expected
    for file in files:
        assert not results.are_there(IMAGE)
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert results.are_there(IMAGE)
    assert not Results(tmp_path, KINDS).are_there(IMAGE)
    (tmp_path / "v_label").mkdir()  # perhaps not of all frames
    assert not Results(tmp_path, ("mask",), skip_existing=True).are_there(VIDEO)
    (tmp_path / "v_overlay.mp4").touch()
    assert results.are_there(VIDEO)


def test_only_leftovers_of_the_shard_are_removed(tmp_path):
    names = [f"deep/.x{i}_label.png.0123abcd.tmp" for i in range(20)]
    others = [".notes.0123abcd.tmp", "x_label.png", ".x_label.png.tmp", "deep/.git"]
    videos = [".v_overlay.0123abcd.tmp.mp4"]
    for name in (*names, *others, *videos):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    results = Results(tmp_path, KINDS)
    results.remove_leftovers((0, 2))
    kept = {name for i, name in enumerate(names) if in_shard(f"deep/x{i}", (1, 2))}
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found - {*others, *videos} == kept
    results.remove_leftovers(None)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {*others}


def test_failures_of_an_earlier_call_are_replaced(tmp_path):
    failures = Failures(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    failures.add(IMAGE, "broken\nin two lines")
    failures.add(VIDEO, "b")
    assert lines(tmp_path) == [
        {"name": "in/x.png", "error": "broken\nin two lines", "place": "deep/x"},
        {"name": "in/v.mp4", "error": "b", "place": "v"},
    ]
    Failures(tmp_path, None).add(VIDEO, "c")
    assert lines(tmp_path) == [{"name": "in/v.mp4", "error": "c", "place": "v"}]
    Failures(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_shards_share_the_file_and_replace_their_own_lines(tmp_path):
    jobs = [Job(Path(f"{i}.png"), f"{i}") for i in range(40)]

    def run(index, failures, error):
        for job in jobs:
            if in_shard(job.place, (index, 3)):
                failures.add(job, error * 500)

    shards = [Failures(tmp_path, (index, 3)) for index in range(3)]
    threads = [threading.Thread(target=run, args=(i, shards[i], "e")) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(line["place"]) for line in lines(tmp_path)) == list(range(40))
    with open(tmp_path / "failures.jsonl", "a") as file:
        file.write('{"name": "cut by a ki')
    run(1, Failures(tmp_path, (1, 3)), "n")
    found = {line["place"]: line["error"][0] for line in lines(tmp_path)}
    assert found == {job.place: "n" if in_shard(job.place, (1, 3)) else "e" for job in jobs}


def test_failures_in_a_store(tmp_path):
    pytest.importorskip("fsspec", reason="fsspec is not installed: the extra `data`")
    for shard, name in ((None, "failures"), ((1, 4), "failures_1_of_4")):
        for errors in (["a", "b"], []):
            failures = Failures(f"file://{tmp_path}", shard)
            for error in errors:
                failures.add(Job("https://me:secret@host/x.png?key=secret", "x"), error)
            failures.finish()
            text = (tmp_path / f"{name}.jsonl").read_text()
            assert [json.loads(line)["error"] for line in text.splitlines()] == errors
            assert "secret" not in text


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, OutputFailed),
        (errno.EDQUOT, OutputFailed),
        (errno.EROFS, OutputFailed),
        (errno.ENAMETOOLONG, UserError),
        (errno.EISDIR, UserError),
    ],
)
def test_only_errors_of_the_disk_end_the_run(tmp_path, monkeypatch, number, kind):
    def fail(path, content):
        raise UserError(f"cannot write {path}") from OSError(number, "reason")

    monkeypatch.setattr(outputs, "write", fail)
    with pytest.raises(UserError, match=r"cannot write .*x_label\.png") as raised:
        Results(tmp_path, ("mask",)).write(IMAGE, [b""])
    assert type(raised.value) is kind
    with pytest.raises(OutputFailed, match="on the host "):
        Results("s3://bucket", ("mask",)).write(IMAGE, [b""])


def test_links_and_files_of_the_user_are_not_replaced(tmp_path):
    import numpy as np

    write_png(tmp_path / "deep" / "x_label.png", np.zeros((2, 2), np.uint8))
    results = Results(tmp_path, ("mask",))
    results.require_replaceable([IMAGE])
    (tmp_path / "v_overlay.mp4").write_bytes(b"mine")
    Results(tmp_path, KINDS, overwrite=True).require_replaceable([VIDEO])
    with pytest.raises(UserError, match="not written by liteseg"):
        Results(tmp_path, KINDS).require_replaceable([IMAGE, VIDEO])
