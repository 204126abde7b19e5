"""Cityscapes and Streets: the official table, pairing by name, labels mapped when loaded."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from liteseg.datasets import Cityscapes, Streets, train_id_to_id
from liteseg.datasets.cityscapes import LABEL_IDS, id_to_train_id
from liteseg.errors import UserError

# typed by hand from the paper and the server of the benchmark: ids in train id order
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NAMES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky "
    "person rider car truck bus train motorcycle bicycle"
)


def write(root, split, city, frame, ids=None, train_ids=None, image=True):
    """Files of one frame; the image is filled with the frame number."""
    stem = f"{city}_{frame:06d}_000019"
    images = root / "leftImg8bit" / split / city
    labels = root / "gtFine" / split / city
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    if image:
        pixels = np.full((4, 8, 3), frame, np.uint8)
        cv2.imwrite(str(images / f"{stem}_leftImg8bit.png"), pixels)
    if ids is not None:
        label = np.resize(np.asarray(ids, np.uint8), (4, 8))
        cv2.imwrite(str(labels / f"{stem}_gtFine_labelIds.png"), label)
    if train_ids is not None:
        label = np.resize(np.asarray(train_ids, np.uint8), (4, 8))
        cv2.imwrite(str(labels / f"{stem}_gtFine_labelTrainIds.png"), label)
    return stem


def label_path(root, split, stem):
    return root / "gtFine" / split / stem.split("_")[0] / f"{stem}_gtFine_labelIds.png"


def test_table_of_ids():
    table = id_to_train_id()
    expected = np.full(256, 255)
    for train_id, label_id in enumerate(IDS):
        expected[label_id] = train_id
    np.testing.assert_array_equal(table, expected)
    back = train_id_to_id()
    np.testing.assert_array_equal(back[:19], IDS)
    assert not back[19:].any()


def test_official_table():
    assert [label.id for label in LABEL_IDS] == [*range(34), -1]
    assert [label.train_id for label in LABEL_IDS if label.train_id != 255] == list(range(19))
    assert [label.id for label in LABEL_IDS if label.train_id != 255] == list(IDS)
    assert len({label.name for label in LABEL_IDS}) == 35


def test_classes_and_palette(tmp_path):
    write(tmp_path, "train", "ulm", 1, ids=[7])
    dataset = Cityscapes([], str(tmp_path))
    assert dataset.classes == tuple(name.replace("_", " ") for name in NAMES.split())
    assert dataset.num_classes == 19
    assert dataset.ignore_index == 255
    assert dataset.palette.dtype == np.uint8
    assert dataset.palette[[0, 10, 13, 18]].tolist() == [
        [128, 64, 128],
        [70, 130, 180],
        [0, 0, 142],
        [119, 11, 32],
    ]


def test_label_ids_are_mapped(tmp_path):
    write(tmp_path, "train", "ulm", 1, ids=[0, 7, 33, 255, 5, 26, 18, 31])
    sample = Cityscapes([], str(tmp_path)).load(0)
    assert sample["label"].dtype == np.uint8
    assert sample["label"][0].tolist() == [255, 0, 18, 255, 255, 13, 255, 16]


def test_train_ids_are_preferred_and_not_mapped(tmp_path):
    write(tmp_path, "train", "ulm", 1, ids=[7], train_ids=[8, 255])
    write(tmp_path, "train", "ulm", 2, ids=[7])
    dataset = Cityscapes([], str(tmp_path))
    assert dataset.load(0)["label"][0, :2].tolist() == [8, 255]
    assert (dataset.load(1)["label"] == 0).all()


def test_label_ids_in_a_train_ids_file(tmp_path):
    write(tmp_path, "train", "ulm", 1, train_ids=[7, 26, 33])
    dataset = Cityscapes([], str(tmp_path))
    with pytest.raises(UserError, match=r"labelTrainIds\.png: label value 26.*labelIds"):
        dataset.load(0)


def test_pairs_by_name_in_every_mode(tmp_path):
    for split, city, frame in [("train", "ulm", 3), ("train", "bonn", 5), ("val", "ulm", 9)]:
        write(tmp_path, split, city, frame, ids=[7 + frame])
    write(tmp_path, "test", "bonn", 4)
    lengths = {m: len(Cityscapes([], str(tmp_path), m)) for m in ("train", "val", "trainval")}
    assert lengths == {"train": 2, "val": 1, "trainval": 3}
    names = [sample.name for sample in Cityscapes([], str(tmp_path), "trainval").samples]
    assert names == ["bonn_000005_000019", "ulm_000003_000019", "ulm_000009_000019"]
    test = Cityscapes([], str(tmp_path), "test")
    assert test.samples[0].label is None
    assert "label" not in test[0]


@pytest.mark.parametrize("gone", range(4))
def test_one_missing_file_shifts_no_pair(tmp_path, gone):
    """Zipping two sorted lists would give every image after the gap the next label."""
    stems = [write(tmp_path, "train", "ulm", i, ids=[IDS[i]]) for i in range(4)]
    label_path(tmp_path, "train", stems[gone]).unlink()
    with pytest.raises(UserError, match=rf"1 of 4 images(.|\n)*{stems[gone]}"):
        Cityscapes([], str(tmp_path))
    write(tmp_path, "train", "ulm", gone, ids=[IDS[gone]])
    (tmp_path / f"leftImg8bit/train/ulm/{stems[gone]}_leftImg8bit.png").unlink()
    dataset = Cityscapes([], str(tmp_path))
    assert len(dataset) == 3
    for sample in map(dataset.load, range(3)):
        frame = sample["img"][0, 0, 0]
        assert (sample["label"] == frame).all()


def test_label_without_image_is_noted(tmp_path, caplog):
    for i in range(6):
        write(tmp_path, "train", "ulm", i, ids=[IDS[i]], image=i == 3)
    with caplog.at_level(logging.WARNING, "liteseg"):
        dataset = Cityscapes([], str(tmp_path))
    assert len(dataset) == 1
    assert (dataset.load(0)["label"] == 3).all()
    assert "5 labels" in dataset.notes[0]
    assert "... and 2 more" in dataset.notes[0]
    assert "5 labels" in caplog.text


def test_all_missing_labels_are_counted(tmp_path):
    for i in range(5):
        write(tmp_path, "val", "ulm", i)
    write(tmp_path, "val", "bonn", 9, ids=[7], image=False)
    with pytest.raises(UserError, match="5 of 5 images") as error:
        Cityscapes([], str(tmp_path), "val")
    assert "... and 2 more" in str(error.value)
    assert "1 labels" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "training"}, "mode: 'training' is not one of train, val, test, trainval"),
        ({"mode": "val"}, r"no images .*leftImg8bit/val.*leftImg8bit_trainvaltest\.zip"),
        ({"edge": True}, "edge"),
        ({"dataset_root": "/nowhere"}, "dataset_root: /nowhere does not exist"),
        ({"dataset_root": None}, "dataset_root: not set"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    write(tmp_path, "train", "ulm", 1, ids=[7])
    with pytest.raises(UserError, match=message):
        Cityscapes(**{"transforms": [], "dataset_root": str(tmp_path), **options})


def test_streets_has_its_own_train_ids(tmp_path):
    write(tmp_path, "val", "town", 1, ids=[7, 8, 11, 17, 20, 21, 23, 24], train_ids=[0])
    write(tmp_path, "val", "town", 2, ids=[26, 0, 12, 255])
    dataset = Streets([], str(tmp_path), "val")
    assert dataset.classes == (
        "road",
        "sidewalk",
        "building",
        "pole",
        "traffic sign",
        "vegetation",
        "sky",
        "person",
        "car",
    )
    assert dataset.load(0)["label"][0].tolist() == list(range(8))
    assert dataset.load(1)["label"][0, :4].tolist() == [8, 255, 255, 255]
    assert dataset.palette[8].tolist() == [0, 0, 142]


def test_real_images(shared_data):
    """Every pixel equals that of another decoder, mapped by the hand-typed table."""
    from PIL import Image

    train = Cityscapes([], str(shared_data / "cityscapes"), "train")
    val = Cityscapes([], str(shared_data / "cityscapes"), "val")
    assert (len(train), len(val)) == (5, 1)
    for dataset in (train, val):
        files = dataset.samples[0]
        assert files.image.name.startswith(files.name)
        assert files.label.name.startswith(files.name)
        sample = dataset.load(0)
        assert sample["img"].shape == (1024, 2048, 3)
        np.testing.assert_array_equal(sample["img"], np.asarray(Image.open(files.image)))
        raw = np.asarray(Image.open(files.label))
        for train_id, label_id in enumerate(IDS):
            np.testing.assert_array_equal(sample["label"] == train_id, raw == label_id)
        np.testing.assert_array_equal(sample["label"] == 255, ~np.isin(raw, IDS))
