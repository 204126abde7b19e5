"""List files and dataset folders, sound and spoiled: the right samples, or one clear error."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from fuzzing import MUTATIONS, ROUNDS, ends_well, numbered, rng_of

from liteseg.datasets import CamVid, Cityscapes, Dataset
from liteseg.datasets.check import check_dataset

NAMES = ("a", "b c", "ü", "图", "d.e", "-f", "g'h", "#i", "$(j)")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder `data` with a pair for each of NAMES, and files around it that are none."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "data" / "folder").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        image = np.full((4, 4, 3), number, np.uint8)
        for path, array in ((f"{name}.png", image), (f"{name}_l.png", image[..., 0] % 2)):
            encoded = cv2.imencode(".png", array)[1].tobytes()
            (folder / "data" / path).write_bytes(encoded)
    (folder / "outside.png").write_bytes((folder / "data" / "a.png").read_bytes())
    return folder


def read(place, content, separator, mode="train"):
    (place / "data" / "list.txt").write_bytes(content)
    paths = {"train_path": "list.txt", "test_path": "list.txt"}
    return Dataset(mode, str(place / "data"), [], 2, separator=separator, **paths)


def lines(names, separator):
    return [f"{name}.png{separator}{name}_l.png" for name in names]


ENDS = {"unix": "\n", "windows": "\r\n", "mac": "\r", "blank": "\n\n \t\n", "spaces": "  \n"}


@pytest.mark.parametrize("name", numbered([f"{e}-{b}" for e in ENDS for b in ("bom", "bare")], 4))
def test_lists_as_editors_write_them(name, place):
    rng = rng_of(name)
    ends, mark, _ = name.split("-")
    separator = str(rng.choice(["\t", "|", ";", ",", " : "]))
    chosen = [str(one) for one in rng.permutation(NAMES)]
    text = ENDS[ends].join(lines(chosen, separator)) + ENDS[ends] * int(rng.integers(0, 2))
    dataset = read(place, (b"\xef\xbb\xbf" if mark == "bom" else b"") + text.encode(), separator)
    assert [sample.image.name for sample in dataset.samples] == [f"{one}.png" for one in chosen]
    assert [dataset.load(i)["img"][0, 0, 0] for i in range(len(NAMES))] == [
        NAMES.index(one) for one in chosen
    ]


ODD_LINES = {
    "one_column": b"a.png",
    "three_columns": b"a.png|a_l.png|3",
    "no_image": b"|a_l.png",
    "no_label": b"a.png|",
    "separators": b"|||",
    "folder": b"folder|folder",
    "itself": b"list.txt|list.txt",
    "missing": b"z.png|z_l.png",
    "outside": b"../outside.png|a_l.png",
    "far_outside": b"../../../../../../../../etc/passwd|a_l.png",
    "absolute": b"/etc/passwd|/etc/passwd",
    "device": b"/dev/zero|/dev/zero",
    "home": b"~/a.png|~/a_l.png",
    "nul": b"a\0.png|a_l.png",
    "latin_1": "ü.png|ü_l.png".encode("latin-1"),
    "utf_16": "a.png|a_l.png".encode("utf-16"),
    "surrogate": b"\xed\xa0\x80.png|a_l.png",
    "endless": b"a" * 1000 + b".png|a_l.png",
    "quoted": b'"a.png"|"a_l.png"',
    "backslashes": b"folder\\a.png|a_l.png",
    "escape": b"\x1b[2Ja.png|a_l.png",
    "swapped": b"a_l.png|a.png",
    "url": b"https://example.org/a.png|a_l.png",
    "comment": b"# image|label",
    "header": b"image|label",
    "empty": b"",
    "blank": b" \t ",
}


@pytest.mark.parametrize("name", numbered(ODD_LINES, 4))
def test_odd_line(name, place):
    """One odd line somewhere among good ones, in training and in a test set."""
    rng = rng_of(name)
    good = [line.encode() for line in lines(("a", "ü", "d.e"), "|")]
    odd = ODD_LINES[name.rpartition("-")[0]]
    good.insert(int(rng.integers(0, 4)), odd)
    for mode in ("train", "test"):
        dataset = ends_well(lambda mode=mode: read(place, b"\n".join(good), "|", mode), "list.txt")
        if dataset is not None:
            assert 3 <= len(dataset) <= 4
            report = check_dataset(dataset, workers=1, progress=False)
            assert len(report["errors"]) <= 1


def test_an_odd_line_alone_is_no_dataset(place):
    for name, odd in ODD_LINES.items():
        if name not in ("outside", "far_outside", "absolute", "itself", "swapped"):  # files
            assert ends_well(lambda odd=odd: read(place, odd, "|"), "list.txt") is None, name


SPOILED = numbered(MUTATIONS, 30)


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_list(name, place):
    rng = rng_of(name)
    separator = str(rng.choice(["\t", "|", " ", "|", "png"]))
    good = "\n".join(lines(NAMES, separator)).encode()
    content = MUTATIONS[name.partition("-")[0]](good, rng)
    dataset = ends_well(lambda: read(place, content, separator), "list.txt")
    if dataset is not None:
        for index in range(len(dataset)):
            ends_well(lambda index=index: dataset.load(index))


ARGUMENTS = {
    "mode": ["train", "val", "", "Train", "trainval"],
    "dataset_root": ["", ".", "/no/such", "data\0", "~", "~nobody/x", "x" * 1000, "list.txt"],
    "train_path": ["", "list.txt", "none.txt", "folder", ".", "\0", "/dev/null", "x" * 1000],
    "num_classes": [0, 1, 2, 255, 256, -1, 10**30],
    "separator": ["", " ", "|", "\0", "\n", "pn"],
    "ignore_index": [-1, 0, 1, 255, 256, 10**30],
    "img_channels": [1, 3, 4],
    "class_names": [[], ["a"], ["a", "b"], ["a", "a"], ["", ""]],
    "palette": [[], [[0, 0, 0]], [[0, 0, 0], [1, 1, 1]], [[0, 0], [1]], [["a", "b", "c"]] * 2,
                [[-1, 0, 0]] * 2, [[10**30, 0, 0]] * 2, [{}, {}], [[[0]]] * 2],
}  # fmt: skip


@pytest.mark.parametrize("name", numbered(["arguments"], 150))
def test_dataset_arguments(name, place, monkeypatch):
    """Values of the right type that make no sense, several at once."""
    rng = rng_of(name)
    monkeypatch.chdir(place / "data")
    (place / "data" / "list.txt").write_text("a.png a_l.png\n")
    arguments = {"mode": "train", "dataset_root": str(place / "data"), "num_classes": 2}
    arguments["train_path"] = "list.txt"
    for key in rng.choice(list(ARGUMENTS), rng.integers(1, 4), replace=False):
        arguments[str(key)] = ARGUMENTS[key][rng.integers(0, len(ARGUMENTS[key]))]
    dataset = ends_well(lambda: Dataset(transforms=[], **arguments))
    if dataset is not None:
        assert len(dataset) == 1
        assert len(dataset.classes) == len(dataset.palette) == dataset.num_classes


def tree_of_cityscapes(root):
    for kind, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
        for city in ("ulm", "köln"):
            for number in range(2):
                yield root / kind / "train" / city / f"{city}_{number:06}_000019_{ending}.png"


def tree_of_camvid(root):
    for folder in ("train", "trainannot"):
        for number in range(3):
            yield root / folder / f"{number}.png"


@pytest.mark.parametrize("name", numbered(["cityscapes", "camvid"], 60))
def test_folders_that_lost_files(name, tmp_path):
    """Files removed, renamed, doubled, or folders and broken links in their place."""
    rng = rng_of(name)
    city = name.startswith("city")
    paths = list((tree_of_cityscapes if city else tree_of_camvid)(tmp_path))
    label = cv2.imencode(".png", np.full((2, 2), 7, np.uint8))[1].tobytes()
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(label)
    if not city:
        (tmp_path / "train.txt").write_text(
            "".join(f"train/{number}.png trainannot/{number}.png\n" for number in range(3))
        )
    for path in rng.choice(np.array(paths, object), rng.integers(1, 4), replace=False):
        spoil_path(Path(path), rng)
    make = Cityscapes if city else CamVid
    dataset = ends_well(lambda: make([], str(tmp_path), "train"), str(tmp_path))
    if dataset is not None:
        for index in range(len(dataset)):
            ends_well(lambda index=index: dataset.load(index), str(tmp_path))


def spoil_path(path, rng):
    content = path.read_bytes()
    path.unlink()
    what = rng.integers(0, 6)
    if what == 1:
        path.mkdir()
    elif what == 2:
        path.symlink_to(path.with_name("nowhere.png"))
    elif what == 3:
        path.symlink_to(path)  # a circle
    elif what == 4:
        path.with_name(path.name.upper()).write_bytes(content)
    elif what == 5:
        os.mkfifo(path)


def test_how_many_there_are():
    assert len(SPOILED) // ROUNDS == 180
