"""Packs: the same arrays as the files, resumable, refused if stale, damaged or unfinished."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from liteseg.datasets import Dataset, Streets
from liteseg.datasets.pack import INDEX, PARTIAL, PIXELS, PROGRESS, Pack, build_pack
from liteseg.datasets.streets.generate import generate
from liteseg.errors import UserError
from liteseg.transforms import RandomHorizontalFlip, RandomPaddingCrop, ResizeStepScaling

SIZES = [(20, 30), (17, 9), (40, 24), (8, 8), (33, 31)]
TRANSFORMS = (ResizeStepScaling(0.5, 2.0), RandomPaddingCrop((16, 12)), RandomHorizontalFlip())


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        cv2.imwrite(str(root / f"i{number}.png"), rng.integers(0, 256, (*size, 3), np.uint8))
        cv2.imwrite(str(root / f"l{number}.png"), rng.integers(0, 4, size, np.uint8))
    lines = [f"i{number}.png l{number}.png\n" for number in range(len(SIZES))]
    (root / "train.txt").write_text("".join(lines))
    (root / "test.txt").write_text("i0.png\ni1.png l1.png\n")
    return root


def dataset(root: Path, mode: str = "train", classes: int = 4, **options) -> Dataset:
    lists = {"train_path": "train.txt", "test_path": "test.txt"}
    return Dataset(mode, str(root), TRANSFORMS, classes, **lists, **options)


@pytest.fixture
def folder(root, tmp_path) -> Path:
    build_pack(dataset(root), tmp_path / "pack", progress=False)
    return tmp_path / "pack"


def assert_same_samples(found, wanted):
    assert found.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_array_equal(found[key], wanted[key])


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("mode", ["train", "test"])
def test_equals_the_files(root, tmp_path, mode):
    """Also with different sizes, and with missing labels in a test set."""
    files = dataset(root, mode)
    build_pack(files, tmp_path / mode, progress=False).verify(progress=False)
    packed = dataset(root, mode, pack=str(tmp_path / mode))
    for index in range(len(files)):
        assert_same_samples(packed.load(index), files.load(index))
        for draw in range(5):
            assert_same_samples(packed[index, draw], files[index, draw])
    if mode == "train":
        np.testing.assert_array_equal(packed.load_label(2), files.load_label(2))


def test_arrays_are_read_only(root, folder):
    sample = dataset(root, pack=str(folder)).load(0)
    with pytest.raises(ValueError, match="read-only"):
        sample["img"][0, 0] = 0


def test_arrays_are_views_of_the_map(folder):
    """A crop only reads the rows it covers."""
    pack = Pack(folder)
    image, label = pack.load(pack.entries[1])
    assert np.shares_memory(image, pack.pixels)
    assert np.shares_memory(label, pack.pixels)


def test_is_pickled_without_the_pixels(root, folder):
    packed = dataset(root, pack=str(folder))
    packed.load(0)
    data = pickle.dumps(packed.pack)
    assert len(data) < 3000 < (folder / PIXELS).stat().st_size
    np.testing.assert_array_equal(
        pickle.loads(data).load(packed.pack.entries[0])[0], packed.load(0)["img"]
    )


def test_bytes_do_not_depend_on_the_workers(root, folder, tmp_path):
    build_pack(dataset(root), tmp_path / "other", workers=1, progress=False)
    for name in (PIXELS, INDEX):
        assert (tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes()


def test_resumes_an_interrupted_build(root, tmp_path, folder, monkeypatch):
    """An unreadable file ends the build; samples already packed are kept if they are intact."""
    good = (root / "i4.png").read_bytes()
    stamp = (root / "i4.png").stat()
    header_only = good[:60] + b"\0" * (len(good) - 60)
    (root / "i4.png").write_bytes(header_only)
    other = tmp_path / "resumed"
    with pytest.raises(UserError, match=r"i4\.png"):
        build_pack(dataset(root), other, workers=1, progress=False)
    assert visible(other) == [PARTIAL, PROGRESS]
    with pytest.raises(UserError, match="not finished"):
        Pack(other)

    (root / "i4.png").write_bytes(good)
    os.utime(root / "i4.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with open(other / PARTIAL, "r+b") as file:  # a power failure lost the bytes of the first sample
        file.write(b"\0" * 100)
    assert len((other / PROGRESS).read_text().strip().splitlines()) == 4
    with open(other / PROGRESS, "a") as file:  # and cut off a line
        file.write('["i4", [12')
    read = []
    load = Dataset.load_files
    monkeypatch.setattr(
        Dataset, "load_files", lambda self, index: (read.append(index), load(self, index))[1]
    )
    build_pack(dataset(root), other, workers=1, progress=False)
    assert sorted(read) == [0, 4]
    assert (other / PIXELS).read_bytes() == (folder / PIXELS).read_bytes()
    assert (other / INDEX).read_bytes() == (folder / INDEX).read_bytes()
    assert visible(other) == [INDEX, PIXELS]


def test_up_to_date_pack_is_kept_and_stale_one_replaced(root, folder):
    before = (folder / INDEX).stat().st_mtime_ns
    build_pack(dataset(root), folder, progress=False)
    assert (folder / INDEX).stat().st_mtime_ns == before
    cv2.imwrite(str(root / "i0.png"), np.zeros((20, 30, 3), np.uint8))
    (folder / f".{INDEX}.0123abcd.tmp").touch()  # left by a killed build
    build_pack(dataset(root), folder, progress=False)
    assert [path.name for path in folder.glob("*.tmp")] == []
    assert not dataset(root, pack=str(folder)).load(0)["img"].any()


@pytest.mark.parametrize("name", ["i3.png", "l2.png"])
def test_changed_file_is_refused_by_name(root, folder, name):
    os.utime(root / name, ns=(1, 1))
    with pytest.raises(
        UserError, match=rf"stale: 1 samples .*i{name[1]}\.png, has changed.*data pack"
    ):
        dataset(root, pack=str(folder))


def test_new_sample_is_refused_by_name(root, folder):
    for kind in "il":
        shutil.copy(root / f"{kind}0.png", root / f"{kind}9.png")
    with open(root / "train.txt", "a") as file:
        file.write("i9.png l9.png\n")
    with pytest.raises(UserError, match=r"stale: 1 samples .*i9\.png, is not in it"):
        dataset(root, pack=str(folder))


@pytest.mark.parametrize(
    ("options", "key"),
    [({"classes": 5}, "classes"), ({"ignore_index": 0}, "ignore_index")],
)
def test_other_classes_are_refused(root, folder, options, key):
    with pytest.raises(UserError, match=f"made with {key}.*the config has"):
        dataset(root, pack=str(folder), **options)


def test_names_may_repeat(tmp_path):
    """Streets repeats its names in train and val: another file of that name is another sample."""
    root = generate(tmp_path / "streets", train=2, val=2, size=(128, 64), progress=False)
    files = Streets((), str(root), "trainval")
    assert len({sample.name for sample in files.samples}) == 2
    build_pack(files, tmp_path / "pack", progress=False)
    packed = Streets((), str(root), "trainval", pack=str(tmp_path / "pack"))
    for index in range(4):
        assert_same_samples(packed.load(index), files.load(index))
    packed.samples = packed.samples[2:]
    assert_same_samples(packed.load(0), files.load(2))


def test_part_of_a_pack_is_enough(root, folder):
    """A pack of train and val serves train."""
    (root / "train.txt").write_text("i2.png l2.png\n")
    assert dataset(root, pack=str(folder)).load(0)["img"].shape == (40, 24, 3)


def test_checksums_detect_damage(folder):
    with open(folder / PIXELS, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\xff\x00\xff")
    with pytest.raises(UserError, match=r"1 of 5 samples .* damaged, the first i4"):
        Pack(folder).verify(progress=False)


def test_cut_off_or_no_pack(folder, tmp_path):
    with open(folder / PIXELS, "r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError, match=r"has 100 bytes, expected \d+ \(index\.json\)"):
        Pack(folder)
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**index, "format": "liteseg pack 0"}))
    with pytest.raises(UserError, match="has format 'liteseg pack 0', expected"):
        Pack(folder)
    (folder / INDEX).write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        Pack(folder)
    with pytest.raises(UserError, match="is no pack"):
        Pack(tmp_path / "nowhere")


def test_full_disk_is_reported_before_the_work(root, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 3000))
    monkeypatch.setattr(Dataset, "load_files", lambda *_: pytest.fail("decoded before the check"))
    with pytest.raises(UserError, match=r"needs 1\d\.\d kB in .*where 3 kB are free"):
        build_pack(dataset(root), tmp_path / "pack", progress=False)


def test_other_folders_are_not_touched(root):
    with pytest.raises(UserError, match=r"is no pack; give a new or empty folder"):
        build_pack(dataset(root), root, progress=False)
    assert (root / "train.txt").is_file()
