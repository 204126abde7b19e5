"""`Dataset` with list files, and the behavior of all datasets: loading, checks, seeded draws."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from cases.images import LEFT_TO_RIGHT, turned_photo

from liteseg.datasets import Dataset, check_dataset
from liteseg.datasets.list_file import find_list, read_list
from liteseg.datasets.pack import build_pack
from liteseg.errors import UserError
from liteseg.transforms import Compose, Normalize, RandomPaddingCrop
from liteseg.utils.images import read_image

H, W = 6, 8


def write_pair(root, name, value=1, size=(H, W), label_size=None):
    """An image filled with `value` and its label; returns the line of the list."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True, parents=True)
    image = np.full((*size, 3), value, np.uint8)
    label = np.full(label_size or size, value, np.uint8)
    cv2.imwrite(str(root / "images" / f"{name}.png"), image)
    cv2.imwrite(str(root / "labels" / f"{name}.png"), label)
    return f"images/{name}.png labels/{name}.png"


@pytest.fixture
def root(tmp_path):
    """Three pairs, image i filled with i, and their list `train.txt`."""
    folder = tmp_path / "data"
    lines = [write_pair(folder, f"n{i}", i) for i in range(3)]
    (folder / "train.txt").write_text("\n".join(lines))
    return folder


def make(root, list_text=None, mode="train", **options):
    if list_text is not None:
        content = list_text if isinstance(list_text, bytes) else list_text.encode()
        (root / "train.txt").write_bytes(content)
    options = {"num_classes": 3, "train_path": "train.txt", **options}
    return Dataset(mode=mode, dataset_root=str(root), transforms=[], **options)


def test_pairs_in_list_order(root):
    dataset = make(root)
    assert len(dataset) == 3
    assert [sample.name for sample in dataset.samples] == ["n0", "n1", "n2"]
    for i in range(3):
        sample = dataset[i]
        assert sample["img"].shape == (H, W, 3)
        assert sample["img"].dtype == np.uint8
        assert (sample["img"] == i).all()
        assert (sample["label"] == i).all()
        assert sample["trans_info"] == []
        assert sample["index"] == i


def test_attributes(root):
    dataset = make(root, ignore_index=200)
    assert dataset.num_classes == 3
    assert dataset.ignore_index == 200
    assert dataset.classes == ("class_0", "class_1", "class_2")
    assert dataset.palette.shape == (3, 3)
    assert dataset.palette.dtype == np.uint8
    assert isinstance(dataset.transforms, Compose)
    own = make(root, class_names=["a", "b", "c"], palette=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert own.classes == ("a", "b", "c")
    assert own.palette.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    "prefix", [b"", b"\xef\xbb\xbf", b"\r\n\r\n"], ids=["plain", "byte order mark", "blank lines"]
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_ends_byte_order_mark_and_blank_lines(root, prefix, end):
    lines = [b"images/n0.png labels/n0.png", b"   ", b"images/n2.png   labels/n2.png  "]
    dataset = make(root, prefix + end.join(lines))
    assert [sample.name for sample in dataset.samples] == ["n0", "n2"]


@pytest.mark.parametrize("separator", ["\t", ",", ";", " | "])
def test_other_separators(root, separator):
    dataset = make(root, f"images/n1.png{separator}labels/n1.png\n", separator=separator)
    assert (dataset[0]["label"] == 1).all()


def test_names_with_spaces_and_umlauts(root):
    write_pair(root, "Straße 7", 2)
    dataset = make(root, "images/Straße 7.png\tlabels/Straße 7.png", separator="\t")
    assert (dataset[0]["label"] == 2).all()


def test_absolute_paths(root):
    dataset = make(root, f"{root}/images/n1.png {root}/labels/n1.png")
    assert (dataset[0]["img"] == 1).all()


def test_list_relative_to_working_directory(root, monkeypatch):
    """PaddleSeg's YAMLs give the list from the working directory."""
    monkeypatch.chdir(root.parent)
    dataset = Dataset("train", "data", [], 3, train_path="data/train.txt")
    assert len(dataset) == 3
    assert find_list("train.txt", root, "train_path") == root / "train.txt"


def test_trainval_and_test_modes(root):
    (root / "val.txt").write_text("images/n1.png labels/n1.png")
    (root / "test.txt").write_text("images/n2.png\nimages/n0.png labels/n0.png")
    paths = {"val_path": "val.txt", "test_path": "test.txt"}
    assert len(make(root, mode="trainval", **paths)) == 4
    test = make(root, mode="test", **paths)
    assert test.samples[0].label is None
    assert "label" not in test[0]
    assert "label" in test[1]


def test_equal_stems_get_distinct_names(root):
    for folder in ("a", "b"):
        write_pair(root / folder, "x")
    dataset = make(root, "a/images/x.png a/labels/x.png\nb/images/x.png b/labels/x.png")
    assert [sample.name for sample in dataset.samples] == ["a_images_x.png", "b_images_x.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"train\.txt: the list is empty"),
        ("\n \n", r"train\.txt: the list is empty"),
        ("images/n0.png labels/n0.png\nimages/n1.png\n", r"train\.txt:2: one column"),
        ("images/n0.png,labels/n0.png", r"train\.txt:1: one column .*separator ','"),
        ("images/n0.png\tlabels/n0.png", r"train\.txt:1: one column .*separator '\\t'"),
        ("images/a b.png labels/a b.png", r"train\.txt:1: 4 columns .*another separator"),
        (b"images/n0.png labels/n0.png\nimages/\xe9.png l.png", r"train\.txt:2: .*not UTF-8"),
        ("images/n0.png labels/n0.png".encode("utf-16"), r"train\.txt:1: .*not UTF-8"),
    ],
)
def test_malformed_lists(root, text, message):
    with pytest.raises(UserError, match=message):
        make(root, text)


def test_second_column_empty(root):
    with pytest.raises(UserError, match=r"train\.txt:1: 2 columns"):
        make(root, "images/n0.png,", separator=",")


def test_missing_files_are_reported_together(root):
    lines = [f"images/no{i}.png labels/no{i}.png" for i in range(4)]
    with pytest.raises(UserError, match="8 listed files do not exist") as error:
        make(root, "\n".join([*lines, "images/n0.png labels/n0.png"]))
    assert "train.txt:1" in str(error.value)
    assert "... and 5 more" in str(error.value)
    assert str(error.value).count("no1.png") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "training"}, "mode: 'training' is not one of train, val"),
        ({"edge": True}, "edge"),
        ({"img_channels": 0}, "img_channels: 0"),
        ({"num_classes": 0}, "num_classes: 0"),
        ({"num_classes": 256}, "num_classes: 256"),
        ({"ignore_index": -100}, "ignore_index: -100"),
        ({"train_path": None}, "train_path: not set"),
        ({"train_path": "lists/none.txt"}, r"train_path: no list file lists/none\.txt; looked for"),
        ({"separator": ""}, "separator"),
        ({"class_names": ["a"]}, r"class_names: 1 names \(a\) for num_classes: 3"),
        ({"palette": [[0, 0, 0]]}, "palette: expected 3 times"),
        ({"palette": [[0, 0, 256]] * 3}, "palette: expected 3 times"),
        ({"palette": ["red", "green", "blue"]}, "palette: expected 3 times"),
    ],
)
def test_bad_arguments(root, options, message):
    with pytest.raises(UserError, match=message):
        make(root, **options)


def test_bad_root(root):
    with pytest.raises(UserError, match=r"dataset_root: .*nowhere does not exist"):
        make(root / "nowhere")
    with pytest.raises(UserError, match=r"dataset_root: .*train\.txt is a file"):
        make(root / "train.txt")
    with pytest.raises(UserError, match="dataset_root: not set"):
        Dataset("train", "", [], 3, train_path="train.txt")


def test_sizes_must_agree(root):
    line = write_pair(root, "odd", label_size=(H, W - 1))
    with pytest.raises(UserError, match=r"labels/odd\.png: the label is 7x6.*odd\.png is 8x6"):
        make(root, line).load(0)


@pytest.mark.parametrize(
    ("values", "num_classes", "ignore", "message"),
    [
        ([0, 2, 200], 3, 255, r"label value 200 \(6 pixels\): expected 0\.\.2, or 255"),
        ([1, 2, 3], 3, 255, "counted from 1"),
        ([0, 1, 3], 3, 255, "'void'.*ignore_index: 3.*num_classes: 4"),
        ([7, 11, 33, 0], 19, 255, "labelIds"),
        ([0, 255], 2, 254, "0/255 mask"),
        ([0, 5, 7], 3, 255, "num_classes must be at least 8"),
        ([0, 76, 150], 3, 255, "color label"),
    ],
)
def test_invalid_values(root, values, num_classes, ignore, message):
    label = np.zeros((H, W), np.uint8)
    label.ravel()[: 6 * len(values)] = np.repeat(values, 6)
    label.ravel()[6 * len(values) :] = values[0]
    cv2.imwrite(str(root / "labels" / "n0.png"), label)
    dataset = make(root, num_classes=num_classes, ignore_index=ignore)
    with pytest.raises(UserError, match=rf"n0\.png.*{message}"):
        dataset.load(0)


def test_blurred_label_is_recognized(root):
    label = (np.arange(H * W) * 5 % 256).astype(np.uint8).reshape(H, W)
    big = cv2.resize(label, (64, 64), interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(root / "images" / "n0.png"), np.zeros((64, 64, 3), np.uint8))
    cv2.imwrite(str(root / "labels" / "n0.png"), big)
    with pytest.raises(UserError, match=r"more values.*JPEG, a resized label"):
        make(root).load(0)


def test_any_value_may_be_ignored(root):
    cv2.imwrite(str(root / "labels" / "n0.png"), np.full((H, W), 77, np.uint8))
    assert (make(root, ignore_index=77).load(0)["label"] == 77).all()


class Noise:
    """A transform that returns the random numbers it draws."""

    def __call__(self, sample, rng=None):
        return {**sample, "drawn": int(rng.integers(2**40))}


def test_augmentation_only_depends_on_seed_and_draw(root):
    dataset = Dataset("train", str(root), [Noise()], 3, train_path="train.txt")
    assert dataset[(0, 7)]["drawn"] == dataset[(2, 7)]["drawn"]
    assert dataset[(0, 7)]["drawn"] != dataset[(0, 8)]["drawn"]
    assert dataset[1]["drawn"] == dataset[(1, 1)]["drawn"]
    assert dataset[(np.int64(2), np.int64(7))]["index"] == 2
    before = dataset[(0, 7)]["drawn"]
    dataset.seed = 1
    assert dataset[(0, 7)]["drawn"] != before


def test_loading_is_repeatable(root):
    """Changes to a loaded sample must not affect the next load."""
    dataset = make(root)
    dataset.load(0)["img"][:] = 99
    assert (dataset.load(0)["img"] == 0).all()


def test_read_list_keeps_places(tmp_path):
    path = tmp_path / "l.txt"
    path.write_text("\na b\n\nc d\n")
    lines = read_list(path)
    assert [line.columns for line in lines] == [["a", "b"], ["c", "d"]]
    assert [line.place for line in lines] == [f"{path}:2", f"{path}:4"]


def test_windows_separators_in_a_list(root):
    dataset = make(root, "images\\n0.png labels\\n0.png\r\nimages\\n1.png labels\\n1.png\r\n")
    assert [sample.image.name for sample in dataset.samples] == ["n0.png", "n1.png"]


def test_windows_drive_in_a_list(root):
    with pytest.raises(UserError, match="paths of a Windows drive: write them relative to data"):
        make(root, "C:\\data\\images\\n0.png C:\\data\\labels\\n0.png")


@pytest.mark.parametrize("key", ["train_path", "image_dir"])
def test_windows_separators_in_the_config(root, key):
    options = {
        "train_path": {"train_path": "data\\train.txt"},
        "image_dir": {"train_path": None, "image_dir": "data\\images", "label_dir": "labels"},
    }[key]
    with pytest.raises(UserError, match=f"{key}: .*; write / between folders, and no drive"):
        make(root, **options)


@pytest.mark.parametrize("num_classes", [1, 0, 256])
def test_number_of_classes(root, num_classes):
    with pytest.raises(UserError, match=r"num_classes: \d+ is not within 2\.\.255"):
        make(root, num_classes=num_classes)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_images(tmp_path, orientation, caplog):
    """The label of an upright photograph fits with `exif: apply`, one of stored pixels without."""
    photo = turned_photo(tmp_path / "p.png", orientation)
    upright = read_image(photo, exif=True)
    results = {}
    for exif, size in (("apply", upright.shape[:2]), ("ignore", LEFT_TO_RIGHT.shape[:2])):
        cv2.imwrite(str(tmp_path / "l.png"), np.ones(size, np.uint8))
        dataset = make(tmp_path, "p.png l.png", exif=exif)
        results[exif] = dataset.load(0)["img"]
        warnings = check_dataset(dataset, progress=False)["warnings"]
        named = [
            warning for warning in warnings if f"({orientation}: 1, such as {photo})" in warning
        ]
        assert len(named) == (orientation > 1)
        other = {"apply": "ignore", "ignore": "apply"}[exif]
        assert all(f"set `exif: {other}`" in warning for warning in named)
        if orientation >= 5:
            with pytest.raises(UserError, match=f"EXIF orientation {orientation}, exif: {other}"):
                make(tmp_path, exif=other).load(0)
    assert (results["apply"] == upright).all()
    assert (results["ignore"] == LEFT_TO_RIGHT).all()


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_a_pack_of_turned_images(tmp_path, exif):
    turned_photo(tmp_path / "p.png", 6)
    image = read_image(tmp_path / "p.png", exif=exif == "apply")
    cv2.imwrite(str(tmp_path / "l.png"), np.ones(image.shape[:2], np.uint8))
    build_pack(make(tmp_path, "p.png l.png", exif=exif), tmp_path / "pack", progress=False)
    packed = make(tmp_path, exif=exif, pack=str(tmp_path / "pack"))
    assert (packed.load(0)["img"] == image).all()
    other = {"apply": "ignore", "ignore": "apply"}[exif]
    with pytest.raises(UserError, match=f"made with exif {exif}, the config has {other}"):
        make(tmp_path, exif=other, pack=str(tmp_path / "pack"))


@pytest.mark.parametrize("void", [0, 2])
def test_padding_has_the_void_label_of_the_dataset(root, void):
    crop = RandomPaddingCrop((2 * W, 2 * H))
    dataset = Dataset(
        "train", str(root), [crop, Normalize()], 3, train_path="train.txt", ignore_index=void
    )
    label = dataset[1]["label"]
    assert (label[H:] == void).all()
    assert (label[:, W:] == void).all()
    for wrong, message in (
        ({"label_padding_value": 255}, "label_padding_value is 255, expected the ignore_index"),
        ({"ignore_index": 255}, "RandomPaddingCrop: ignore_index is 255"),
    ):
        transforms = [RandomPaddingCrop(**wrong), Normalize()]
        options = {"train_path": "train.txt", "ignore_index": void}
        with pytest.raises(UserError, match=message):
            Dataset("train", str(root), transforms, 3, **options)
