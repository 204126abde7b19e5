"""The files that `predict` finds: kinds of inputs, order, shards, lists; one folder at a time."""

from __future__ import annotations

import glob
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from liteseg.errors import UserError
from liteseg.tasks import inputs
from liteseg.tasks.inputs import find_jobs, in_shard, jobs_of_list

FILES = (
    *("b.jpg", "a.png", "A.png", "notes.txt", "deep/er/x.png", "deep/y.jpg", "deep/y.png"),
    *("left/1/a.png", "left/2/b.png", "right/1/a.png", ".hidden/h.png", "odd [1]/a.png"),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


def places(*found, **options):
    return [job.place for job in find_jobs(found, **options)]


def test_the_order_is_files_then_folders_by_name(folder):
    assert places("in") == [
        *("A", "a", "b", "deep/y", "deep/y_2", "deep/er/x", "left/1/a", "left/2/b"),
        *("odd [1]/a", "right/1/a"),
    ]
    several = places("in/deep", "in/left/1", "in/b.jpg")
    assert several == ["deep/y", "deep/y_2", "deep/er/x", "1/a", "b"]


@pytest.mark.parametrize(
    "pattern",
    [
        *("in/*.png", "in/**/*.png", "in/*/*/a.*", "in/left/**", "in/**/1/*", "i?/**/**/[ab].png"),
        *("in/deep/**/y*", "in/**/deep/**/*.png", "in/**/er/**/x.png", "in/odd [[]1]/*"),
    ],
)
def test_patterns_as_those_of_python(folder, pattern):
    expected = {path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    found = [str(job.source) for job in find_jobs([pattern])]
    assert set(found) == {path for path in expected if not path.endswith(".txt")}
    assert len(set(found)) == len(found) > 0


def test_the_places_of_a_pattern_keep_its_subfolders(folder):
    assert places("in/**/a.png") == ["a", "left/1/a", "odd [1]/a", "right/1/a"]
    assert places("in/left/*/*", "in/deep/*") == ["left/1/a", "left/2/b", "deep/y", "deep/y_2"]
    assert places(str(folder / "left" / "*" / "a.png")) == ["1/a"]


def test_a_file_with_a_wildcard_in_its_name(folder):
    assert places("in/odd [1]/a.png") == ["a"]
    assert places("in/odd [1]") == ["a"]


def test_inputs_of_one_name_have_places_of_their_own(folder, caplog):
    assert places("in/left/1", "in/right/1", "in/left/1/a.png", "in/right/1/a.png") == [
        *("1/a", "1_2/a", "a", "a_2")
    ]
    assert "in/right/1: its results are named 1_2; 1: in/left/1" in caplog.text


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_and_complete(folder, count):
    shards = [places("in", shard=(index, count)) for index in range(count)]
    assert Counter(place for shard in shards for place in shard) == Counter(places("in"))


def test_shards_do_not_depend_on_the_other_files(folder):
    before = [set(places("in", shard=(index, 3))) for index in range(3)]
    for number in range(50):
        (folder / f"new{number}.png").touch()
    (folder / "A.png").unlink()
    for index, shard in enumerate(before):
        now = {place for place in places("in", shard=(index, 3)) if "new" not in place}
        assert now == shard - {"A"}


def test_shards_are_even():
    counts = Counter(
        index for i in range(4000) for index in range(4) if in_shard(f"{i}", (index, 4))
    )
    assert min(counts.values()) > 900


def test_a_shard_may_be_empty_but_an_input_may_not(folder):
    assert any(places("in/b.jpg", shard=(index, 2)) == [] for index in range(2))
    for given in ("in/*.tif", "in/none*/*", "in/.hidden"):
        (folder / ".hidden" / "h.png").unlink(missing_ok=True)
        with pytest.raises(UserError, match="contains no images or videos"):
            find_jobs([given], shard=(0, 2))


def test_folders_are_listed_one_at_a_time(tmp_path, monkeypatch):
    for number in range(20):
        (tmp_path / f"{number:02d}").mkdir()
        for name in range(3):
            (tmp_path / f"{number:02d}" / f"{name}.png").touch()
    listed = []

    def scan(folder):
        listed.append(folder)
        return scan_folder(folder)

    scan_folder = inputs.scan
    monkeypatch.setattr(inputs, "scan", scan)
    jobs = find_jobs([tmp_path])
    assert len(listed) == 2  # up to the first image: an empty folder is an error at once
    assert [next(jobs).place for _ in range(7)][-1] == "02/0"
    assert len(listed) == 4
    assert len(list(jobs)) == 53
    assert listed == [tmp_path, *(tmp_path / f"{number:02d}" for number in range(20))]


def test_a_folder_that_cannot_be_listed_is_a_problem_of_its_own(folder, monkeypatch):
    def scan(place):
        if place.name == "left":
            raise UserError(f"{place}: cannot be listed: Permission denied")
        return scan_folder(place)

    scan_folder = inputs.scan
    monkeypatch.setattr(inputs, "scan", scan)
    jobs = list(find_jobs(["in"]))
    problems = {job.place: job.problem for job in jobs if job.problem}
    assert problems == {"left": "in/left: cannot be listed: Permission denied"}
    assert len(jobs) == 9


def written(tmp_path, *lines, ending="\n"):
    (tmp_path / "list.txt").write_bytes(ending.join(lines).encode("utf-8", "surrogateescape"))
    return tmp_path / "list.txt"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_list_keeps_the_paths_as_written(tmp_path, ending):
    lines = ("in/b.jpg", "/data/x.y.png", "", "../up/./a.png", "s3://bucket/k/a.png", "a\udcff.png")
    jobs = list(jobs_of_list(written(tmp_path, *lines, ending=ending)))
    assert [job.place for job in jobs] == ["in/b", "data/x.y", "up/a", "bucket/k/a", "a\udcff"]
    sources = [Path("in/b.jpg"), Path("/data/x.y.png"), Path("../up/a.png"), "s3://bucket/k/a.png"]
    assert [job.source for job in jobs][:-1] == sources


def test_entries_of_a_list_with_the_same_results(tmp_path):
    """In every division into shards the same entry is predicted."""
    names = [f"{number}.{kind}" for number in range(30) for kind in ("jpg", "png")]
    random.Random(0).shuffle(names)
    file = written(tmp_path, *names)
    for count in (1, 2, 5):
        jobs = [job for i in range(count) for job in jobs_of_list(file, (i, count))]
        assert len(jobs) == 60
        kept = {job.source.name for job in jobs if not job.problem}
        first = {}
        for name in names:
            first.setdefault(name.split(".")[0], name)
        assert kept == set(first.values())


def test_a_missing_list(tmp_path):
    with pytest.raises(UserError, match=r"--inputs-from .*none\.txt: cannot be read: No such file"):
        jobs_of_list(tmp_path / "none.txt")
