"""CamVid in each of its layouts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from liteseg.datasets import CamVid
from liteseg.datasets.camvid import COLOR_MAP
from liteseg.errors import UserError

NAMES = ("0001TP_006690", "0001TP_006720", "0016E5_07959")
# some colors of the published label_colors.txt, typed by hand, with their class of 11 (255: void)
COLORS = {
    (0, 0, 0): 255,
    (128, 128, 128): 0,
    (128, 0, 0): 1,
    (64, 192, 0): 1,
    (192, 192, 128): 2,
    (128, 0, 192): 3,
    (0, 0, 192): 4,
    (192, 192, 0): 5,
    (0, 64, 64): 6,
    (64, 64, 128): 7,
    (192, 128, 192): 8,
    (64, 64, 0): 9,
    (192, 0, 192): 10,
}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def image(number):
    return np.full((4, 13, 3), number, np.uint8)


def color_label():
    return np.tile(np.array(list(COLORS), np.uint8), (4, 1, 1))


def gray_label(number, void):
    label = np.full((4, 13), number, np.uint8)
    label[0, 0] = void
    return label


def segnet(root, line="{split}/{name}.png {split}annot/{name}.png", split="train"):
    for number, name in enumerate(NAMES):
        write(root / split / f"{name}.png", image(number))
        write(root / f"{split}annot" / f"{name}.png", gray_label(number, void=11))
    lines = [line.format(split=split, name=name) for name in NAMES]
    (root / f"{split}.txt").write_text("\n".join(lines) + "\n")


def assert_gray(dataset):
    assert [sample.name for sample in dataset.samples] == list(NAMES)
    for number in range(len(NAMES)):
        sample = dataset.load(number)
        expected = gray_label(number, void=255)
        np.testing.assert_array_equal(sample["label"], expected)
        assert (sample["img"] == number).all()


def test_classes(tmp_path):
    segnet(tmp_path)
    dataset = CamVid([], str(tmp_path))
    names = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
    assert dataset.classes == tuple(names.split())
    assert dataset.palette.shape == (11, 3)
    assert dataset.palette[3].tolist() == [128, 64, 128]
    assert dataset.ignore_index == 255


@pytest.mark.parametrize(
    "line",
    [
        "{split}/{name}.png {split}annot/{name}.png",
        "/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png",
    ],
    ids=["relative", "absolute paths of SegNet's lists"],
)
def test_segnet_layout(tmp_path, line):
    segnet(tmp_path, line)
    assert_gray(CamVid([], str(tmp_path), "train"))


def test_segnet_folders_without_list(tmp_path):
    segnet(tmp_path)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "train" / ".DS_Store").write_bytes(b"no image")
    (tmp_path / "train" / f"{NAMES[0]}.png").rename(tmp_path / "train" / f"{NAMES[0]}.PNG")
    assert_gray(CamVid([], str(tmp_path), "train"))


@pytest.mark.parametrize("labels", ["annot", "labels"])
def test_paddleseg_layout(tmp_path, labels):
    for number, name in enumerate(NAMES):
        write(tmp_path / "images" / f"{name}.png", image(number))
        write(tmp_path / labels / f"{name}.png", gray_label(number, void=255))
    pairs = [f"images/{name}.png {labels}/{name}.png" for name in NAMES]
    (tmp_path / "val.txt").write_text("\r\n".join(pairs))
    assert_gray(CamVid([], str(tmp_path), "val"))
    (tmp_path / "test.txt").write_text("\n".join(f"{name}.png" for name in NAMES))
    assert_gray(CamVid([], str(tmp_path), "test"))


@pytest.mark.parametrize(
    ("folders", "line"),
    [
        (("701_StillsRaw_full", "LabeledApproved_full"), "{0}"),
        (("701_StillsRaw_full", "LabeledApproved_full"), "{0}.png"),
        (("images", "labels"), "{0}"),
        (("images", "labels"), "images/{0}.png labels/{0}_L.png"),
        (("train", "train_labels"), None),
    ],
)
def test_original_colors(tmp_path, folders, line):
    for number, name in enumerate(NAMES):
        write(tmp_path / folders[0] / f"{name}.png", image(number))
        write(tmp_path / folders[1] / f"{name}_L.png", color_label())
    if line:
        (tmp_path / "train.txt").write_text("\n".join(line.format(name) for name in NAMES))
    dataset = CamVid([], str(tmp_path), "train")
    assert [sample.name for sample in dataset.samples] == list(NAMES)
    for number in range(3):
        sample = dataset.load(number)
        assert (sample["img"] == number).all()
        np.testing.assert_array_equal(sample["label"], np.tile(list(COLORS.values()), (4, 1)))


def test_all_32_colors_have_a_class():
    values = COLOR_MAP.values
    assert len(values) == 32
    assert sorted(set(values.values())) == [*range(11), 255]
    channels = {code >> shift & 255 for code in values for shift in (0, 8, 16)}
    assert channels == {0, 64, 128, 192}


def test_colors_of_no_class(tmp_path):
    """A few pixels of other colors are void; an image full of them is an error."""
    big = np.zeros((40, 50, 3), np.uint8)
    big[:] = (128, 64, 128)
    big[0, :5] = (128, 65, 128)
    big[1, :5] = (192, 192, 192)  # right values, wrong triple
    write(tmp_path / "images" / "a.png", big)
    write(tmp_path / "labels" / "a_L.png", big)
    (tmp_path / "train.txt").write_text("a")
    label = CamVid([], str(tmp_path)).load(0)["label"]
    expected = np.full((40, 50), 3)
    expected[:2, :5] = 255
    np.testing.assert_array_equal(label, expected)
    big[2:4] = (1, 2, 3)
    write(tmp_path / "labels" / "a_L.png", big)
    with pytest.raises(UserError, match=r"a_L\.png: 110 of 2000 .* 1 2 3 \(100 pixels\)"):
        CamVid([], str(tmp_path)).load(0)


def test_bad_value(tmp_path):
    segnet(tmp_path)
    write(tmp_path / "trainannot" / f"{NAMES[1]}.png", gray_label(12, void=11))
    with pytest.raises(UserError, match=rf"{NAMES[1]}\.png: label value 12 \(51 pixels\)"):
        CamVid([], str(tmp_path)).load(1)


def test_trainval_joins_both_splits(tmp_path):
    segnet(tmp_path, split="train")
    segnet(tmp_path, split="val")
    dataset = CamVid([], str(tmp_path), "trainval")
    assert len(dataset) == 6
    assert len({sample.name for sample in dataset.samples}) == 6


def test_missing_label_is_an_error(tmp_path):
    segnet(tmp_path)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "trainannot" / f"{NAMES[0]}.png").unlink()
    with pytest.raises(UserError, match=rf"1 listed files do not exist(.|\n)*{NAMES[0]}"):
        CamVid([], str(tmp_path))


def test_test_split_may_lack_labels(tmp_path):
    for number, name in enumerate(NAMES):
        write(tmp_path / "images" / f"{name}.png", image(number))
    (tmp_path / "labels").mkdir()
    write(tmp_path / "labels" / f"{NAMES[1]}_L.png", color_label())
    (tmp_path / "test.txt").write_text("\n".join(NAMES))
    dataset = CamVid([], str(tmp_path), "test")
    assert [sample.label is not None for sample in dataset.samples] == [False, True, False]


def test_no_layout(tmp_path):
    with pytest.raises(UserError, match=r"neither .*train\.txt nor images(.|\n)*\(a\)(.|\n)*\(c\)"):
        CamVid([], str(tmp_path))
    (tmp_path / "train.txt").write_text("a.png")
    with pytest.raises(UserError, match=r"train\.txt:1: 'a.png' has no label(.|\n)*\(a\)"):
        CamVid([], str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "all"}, "mode: 'all'"), ({"edge": True}, "edge"), ({"dataset_root": "/no"}, "/no")],
)
def test_bad_arguments(tmp_path, options, message):
    segnet(tmp_path)
    with pytest.raises(UserError, match=message):
        CamVid(**{"transforms": [], "dataset_root": str(tmp_path), **options})


def test_real_images(shared_data):
    train = CamVid([], str(shared_data / "camvid"), "train")
    val = CamVid([], str(shared_data / "camvid"), "val")
    assert (len(train), len(val)) == (367, 101)
    assert len(CamVid([], str(shared_data / "camvid"), "trainval")) == 468
    for index in (0, 50, 100):
        files, sample = val.samples[index], val.load(index)
        raw = cv2.imread(str(files.label), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(sample["label"], np.where(raw == 11, 255, raw))
        assert sample["img"].shape == (360, 480, 3)
        assert files.image.stem == files.label.stem == files.name
