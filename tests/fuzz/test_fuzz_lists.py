"""List files and dataset folders, sound and damaged: the right samples, or one clear error."""

from __future__ import annotations

import os
import shutil

import cv2
import numpy as np
import pytest
from fuzzing import damaged, examples, result_or_error
from hypothesis import given
from hypothesis import strategies as st

from liteseg.datasets import CamVid, Cityscapes, Dataset
from liteseg.datasets.check import check_dataset

NAMES = ("a", "b c", "ü", "图", "d.e", "-f", "g'h", "#i", "$(j)")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder `data` with an image and a label for each of NAMES, and a file outside it."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "data" / "folder").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        image = np.full((4, 4, 3), number, np.uint8)
        for path, array in ((f"{name}.png", image), (f"{name}_l.png", image[..., 0] % 2)):
            encoded = cv2.imencode(".png", array)[1].tobytes()
            (folder / "data" / path).write_bytes(encoded)
    shutil.copy(folder / "data" / "a.png", folder / "outside.png")
    return folder


def read(place, content, separator, mode="train"):
    (place / "data" / "list.txt").write_bytes(content)
    paths = {"train_path": "list.txt", "test_path": "list.txt"}
    return Dataset(mode, str(place / "data"), [], 2, separator=separator, **paths)


def lines(names, separator):
    return [f"{name}.png{separator}{name}_l.png" for name in names]


@examples(40)
@given(
    names=st.permutations(NAMES),
    separator=st.sampled_from(["\t", "|", ";", ",", " : "]),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n \t\n", "  \n"]),
    ends_at_last_line=st.booleans(),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_lists_as_editors_write_them(place, names, separator, end, ends_at_last_line, bom):
    text = end.join(lines(names, separator)) + end * ends_at_last_line
    dataset = read(place, bom + text.encode(), separator)
    assert [sample.image.name for sample in dataset.samples] == [f"{name}.png" for name in names]
    first_pixels = [dataset.load(i)["img"][0, 0, 0] for i in range(len(NAMES))]
    assert first_pixels == [NAMES.index(name) for name in names]


EXISTING_FILES = [
    b"../outside.png|a_l.png", b"../../../../../../../../etc/passwd|a_l.png",
    b"/etc/passwd|/etc/passwd", b"list.txt|list.txt", b"a_l.png|a.png",
]  # fmt: skip
NO_FILES = [
    b"a.png", b"a.png|a_l.png|3", b"|a_l.png", b"a.png|", b"|||", b"folder|folder",
    b"z.png|z_l.png", b"/dev/zero|/dev/zero", b"~/a.png|~/a_l.png", b"a\0.png|a_l.png",
    "ü.png|ü_l.png".encode("latin-1"), "a.png|a_l.png".encode("utf-16"),
    b"\xed\xa0\x80.png|a_l.png", b"a" * 1000 + b".png|a_l.png", b'"a.png"|"a_l.png"',
    b"folder\\a.png|a_l.png", b"\x1b[2Ja.png|a_l.png", b"https://example.org/a.png|a_l.png",
    b"# image|label", b"image|label", b"", b" \t ",
]  # fmt: skip


@pytest.mark.parametrize("odd", [*EXISTING_FILES, *NO_FILES])
def test_odd_line(odd, place):
    """One odd line in any place among good ones, in a training set and in a test set; and alone."""
    for position in range(4):
        content = [line.encode() for line in lines(("a", "ü", "d.e"), "|")]
        content.insert(position, odd)
        for mode in ("train", "test"):
            text = b"\n".join(content)
            dataset = result_or_error(read, place, text, "|", mode, expected="list.txt")
            if dataset is not None:
                assert 3 <= len(dataset) <= 4
                assert len(check_dataset(dataset, workers=1, progress=False)["errors"]) <= 1
    if odd in NO_FILES:
        assert result_or_error(read, place, odd, "|", expected="list.txt") is None


def load_all(dataset, expected=""):
    for index in range(0 if dataset is None else len(dataset)):
        result_or_error(dataset.load, index, expected=expected)


@examples(180)
@given(st.data(), st.sampled_from(["\t", "|", " ", "png"]))
def test_damaged_list(place, data, separator):
    content = data.draw(damaged("\n".join(lines(NAMES, separator)).encode()))
    load_all(result_or_error(read, place, content, separator, expected="list.txt"))


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


@examples(150)
@given(st.sets(st.sampled_from(list(ARGUMENTS)), min_size=1, max_size=3), st.data())
def test_dataset_arguments(place, monkeypatch, keys, data):
    """Values of the right type that make no sense, up to three at once."""
    monkeypatch.chdir(place / "data")
    (place / "data" / "list.txt").write_text("a.png a_l.png\n")
    arguments = {"mode": "train", "dataset_root": str(place / "data"), "num_classes": 2}
    arguments["train_path"] = "list.txt"
    arguments.update({key: data.draw(st.sampled_from(ARGUMENTS[key]), key) for key in keys})
    dataset = result_or_error(lambda: Dataset(transforms=[], **arguments))
    if dataset is not None:
        assert len(dataset) == 1
        assert len(dataset.classes) == len(dataset.palette) == dataset.num_classes


CITYSCAPES = [
    f"{folder}/train/{city}/{city}_{number:06}_000019_{ending}.png"
    for folder, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds"))
    for city in ("ulm", "köln")
    for number in range(2)
]
CAMVID = [f"{folder}/{number}.png" for folder in ("train", "trainannot") for number in range(3)]
DAMAGE = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "broken_link": lambda path: path.symlink_to(path.with_name("nowhere.png")),
    "circular_link": lambda path: path.symlink_to(path),
    "renamed": lambda path: path.with_name(path.name.upper()).write_bytes(LABEL),
    "pipe": os.mkfifo,
}
LABEL = cv2.imencode(".png", np.full((2, 2), 7, np.uint8))[1].tobytes()


@pytest.mark.parametrize(("dataset_class", "files"), [(Cityscapes, CITYSCAPES), (CamVid, CAMVID)])
@examples(60)
@given(st.data())
def test_damaged_folders(dataset_class, files, tmp_path, data):
    """Files that are missing or renamed, and folders, links or pipes in their place."""
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(LABEL)
    if files is CAMVID:
        (root / "train.txt").write_text("".join(f"{a} {b}\n" for a, b in zip(files, files[3:])))
    changes = st.dictionaries(st.sampled_from(files), st.sampled_from(list(DAMAGE)), min_size=1)
    for file, damage in data.draw(changes).items():
        (root / file).unlink()
        DAMAGE[damage](root / file)
    load_all(result_or_error(dataset_class, [], str(root), "train", expected=root), root)
