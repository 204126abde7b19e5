"""Street datasets: trees in the official layouts, pairing, splits, and label tables."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from liteseg.datasets import ACDC, BDD100K, GTA5, IDD, KITTI, MapillaryVistas
from liteseg.datasets.cityscapes import CITYSCAPES_CLASSES
from liteseg.datasets.layout import OfficialLayout
from liteseg.errors import UserError
from liteseg.registry import DATASETS


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def pair(root, image, label, values, number=1):
    """An image filled with `number`, and a label with `values`."""
    write(root / image, np.full((4, 8, 3), number, np.uint8))
    if label is not None:
        write(root / label, np.resize(np.asarray(values, np.uint8), (4, 8)))


# Per dataset: (image, label) of a train and a val frame as published, label values and train ids
# by hand; 255 is ignored.
BDD_IMAGE, BDD_LABEL = "images/10k/{0}/{1}.jpg", "labels/sem_seg/masks/{0}/{1}.png"
ACDC_FRAME = "{0}/{1}/GOPR0475/GOPR0475_frame_{2}"
IDS, TRAIN_IDS = [0, 7, 26, 33, 9, 255], [255, 0, 13, 18, 255, 255]
TREES = {
    BDD100K: (
        [
            (BDD_IMAGE.format("train", "0a0a-1"), BDD_LABEL.format("train", "0a0a-1")),
            (BDD_IMAGE.format("val", "0b0b-2"), BDD_LABEL.format("val", "0b0b-2")),
        ],
        ([0, 18, 255], [0, 18, 255]),
    ),
    ACDC: (
        [
            (
                f"rgb_anon/{ACDC_FRAME.format(where, split, n)}_rgb_anon.png",
                f"gt/{ACDC_FRAME.format(where, split, n)}_gt_labelIds.png",
            )
            for where, split, n in (("fog", "train", "000041"), ("snow", "val", "000042"))
        ],
        (IDS, TRAIN_IDS),
    ),
    IDD: (
        [
            (
                f"leftImg8bit/{split}/{drive}/frame0029_leftImg8bit.{kind}",
                f"gtFine/{split}/{drive}/frame0029_gtFine_labellevel3Ids.png",
            )
            for split, drive, kind in (("train", "201", "png"), ("val", "7", "jpg"))
        ],
        ([0, 25, 8, 255], [0, 25, 8, 255]),
    ),
}


@pytest.mark.parametrize("dataset", TREES, ids=lambda x: x.__name__)
def test_official_tree(dataset, tmp_path):
    (files, (values, expected)) = TREES[dataset]
    for number, (image, label) in enumerate(files):
        pair(tmp_path, image, label, values, number)
    for number, mode in enumerate(("train", "val")):
        (sample,) = (built := dataset([], str(tmp_path), mode)).samples
        assert sample.image == tmp_path / files[number][0]
        loaded = built.load(0)
        assert (loaded["img"] == number).all()
        assert loaded["label"].ravel()[: len(expected)].tolist() == expected
    assert len(dataset([], str(tmp_path), "trainval")) == 2
    with pytest.raises(UserError, match=r"no images .*unpack"):
        dataset([], str(tmp_path), "test")
    (tmp_path / files[0][1]).unlink()
    with pytest.raises(UserError, match=r"1 of 1 images in .* have no label"):
        dataset([], str(tmp_path))


def test_every_layout_has_as_many_colors_as_classes():
    layouts = [
        c for c in DATASETS.values() if isinstance(c, type) and issubclass(c, OfficialLayout)
    ]
    assert len(layouts) >= 8
    for layout in layouts:
        assert len(layout.CLASSES) == len(layout.PALETTE) == len(set(layout.CLASSES))
    assert len(IDD.CLASSES) == 26
    assert len({tuple(color) for color in IDD.PALETTE.tolist()}) == 26


def test_acdc_prefers_train_ids_and_reads_every_condition(tmp_path):
    for where in ("fog", "night", "rain", "snow"):
        frame = ACDC_FRAME.format(where, "train", where)
        pair(tmp_path, f"rgb_anon/{frame}_rgb_anon.png", f"gt/{frame}_gt_labelIds.png", IDS)
        write(tmp_path / f"gt/{frame}_gt_labelTrainIds.png", np.full((4, 8), 5, np.uint8))
    dataset = ACDC([], str(tmp_path))
    assert len(dataset) == 4
    assert (dataset.load(3)["label"] == 5).all()


def test_equal_names_in_several_drives(tmp_path):
    for drive in ("1", "2"):
        stem = f"train/{drive}/frame0001"
        label = f"gtFine/{stem}_gtFine_labellevel3Ids.png"
        pair(tmp_path, f"leftImg8bit/{stem}_leftImg8bit.png", label, [int(drive)])
    assert [s.name for s in IDD([], str(tmp_path)).samples] == ["1_frame0001", "2_frame0001"]


def test_kitti_splits(tmp_path):
    for n in range(10):
        pair(
            tmp_path,
            f"training/image_2/{n:06d}_10.png",
            f"training/semantic/{n:06d}_10.png",
            IDS,
            n,
        )
    pair(tmp_path, "testing/image_2/000003_10.png", None, [])
    train, val = (KITTI([], str(tmp_path), mode) for mode in ("train", "val"))
    assert [s.name[:6] for s in val.samples] == ["000004", "000009"]
    assert len(train) == 8
    assert not {s.image for s in train.samples} & {s.image for s in val.samples}
    assert len(KITTI([], str(tmp_path), "trainval")) == 10
    assert val.load(0)["label"].ravel()[:6].tolist() == TRAIN_IDS
    assert KITTI([], str(tmp_path), "test").samples[0].label is None


@pytest.fixture
def gta5(tmp_path):
    for n in range(1, 5):
        pair(tmp_path, f"images/{n:05d}.png", f"labels/{n:05d}.png", IDS, n)
    return tmp_path


def test_gta5_lists(gta5):
    (gta5 / "train.txt").write_text("00001.png\n00003.png\n")
    assert [s.name for s in GTA5([], str(gta5)).samples] == ["00001", "00003"]
    assert GTA5([], str(gta5)).load(1)["label"].ravel()[:6].tolist() == TRAIN_IDS
    with pytest.raises(UserError, match=r"neither val\.txt nor split\.mat"):
        GTA5([], str(gta5), "val")
    (gta5 / "val.txt").write_text("00004.png\n00099.png\n")
    with pytest.raises(UserError, match=r"1 of 2 images of val are not in .* 00099\.png"):
        GTA5([], str(gta5), "val")


def test_gta5_matlab_file(gta5):
    io = pytest.importorskip("scipy.io")
    io.savemat(gta5 / "split.mat", {"trainIds": [[1], [2]], "valIds": [[4]], "testIds": [[3]]})
    found = {mode: [s.name for s in GTA5([], str(gta5), mode).samples] for mode in ("train", "val")}
    assert found == {"train": ["00001", "00002"], "val": ["00004"]}
    (gta5 / "split.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=r"split\.mat: can't read trainIds"):
        GTA5([], str(gta5))


def vistas_config(root, version, labels=(("Bird", 1), ("Curb", 1), ("Ego Vehicle", 0), ("Sky", 1))):
    entries = [
        {"readable": name, "name": f"x--{name}", "color": [i, 2 * i, 9], "evaluate": bool(used)}
        for i, (name, used) in enumerate(labels)
    ]
    (root / f"config_{version}.json").write_text(json.dumps({"labels": entries}))


@pytest.mark.parametrize(
    ("version", "labels"),
    [("v1.2", "labels"), ("v1.2", "v1.2/labels"), ("v2.0", "v2.0/labels")],
)
def test_mapillary_vistas(tmp_path, version, labels):
    vistas_config(tmp_path, version)
    pair(tmp_path, "training/images/aB-1_x.jpg", f"training/{labels}/aB-1_x.png", [0, 1, 2, 3])
    dataset = MapillaryVistas([], str(tmp_path), "train", version)
    assert dataset.classes == ("Bird", "Curb", "Sky")
    assert dataset.palette.tolist() == [[0, 0, 9], [1, 2, 9], [3, 6, 9]]
    assert dataset.load(0)["label"][0, :4].tolist() == [0, 1, 255, 2]


@pytest.mark.parametrize("text", ["", "{}", '{"labels": 3}', '{"labels": [{"readable": "a"}]}'])
def test_mapillary_config_of_another_kind(tmp_path, text):
    (tmp_path / "config_v1.2.json").write_text(text)
    with pytest.raises(UserError, match=r"config_v1\.2\.json: expected `labels`"):
        MapillaryVistas([], str(tmp_path))
    with pytest.raises(UserError, match=r"can't read .*config_v2\.0\.json"):
        MapillaryVistas([], str(tmp_path), version="v2.0")


def test_wrong_label_values_name_the_file(tmp_path):
    (image, label), _ = TREES[BDD100K][0]
    pair(tmp_path, image, label, [0, 33])
    with pytest.raises(UserError, match=r"0a0a-1\.png: label value 33"):
        BDD100K([], str(tmp_path)).load(0)
    assert BDD100K.CLASSES == CITYSCAPES_CLASSES
