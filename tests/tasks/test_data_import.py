"""Import of annotations: masks, classes, splits, continuation, and nothing half-written."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets" / "annotations"))
import sources

from liteseg.cli import main
from liteseg.config.build import build_dataset
from liteseg.config.load import load_config
from liteseg.errors import UserError
from liteseg.tasks import data_import
from liteseg.tasks.data import check_data
from liteseg.tasks.data_import import import_data


def masks(root):
    return sorted((root / "masks").rglob("*.png"))


def test_the_written_config_loads_the_masks(tmp_path, capsys):
    root = sources.labelme(tmp_path / "source")
    assert main(["data", "import", str(root), "--output", str(tmp_path / "mine")]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 images" in printed
    assert "3 classes: background, car, road" in printed
    assert [p.name for p in (tmp_path / "mine").glob("*.yml")] == ["mine.yml"]
    assert (tmp_path / "mine" / "classes.txt").read_text().split() == ["background", "car", "road"]
    for split, count in (("train", 4), ("val", 1)):
        dataset = build_dataset(data_import_config(tmp_path), split)
        assert dataset.classes == ("background", "car", "road")
        assert len(dataset) == count
        for index in range(count):
            np.testing.assert_array_equal(dataset.load(index)["label"], sources.expected())
    assert check_data(tmp_path / "mine" / "mine.yml").ok


def data_import_config(tmp_path):
    from liteseg.config.check import load_checked

    return load_checked(tmp_path / "mine" / "mine.yml")


def test_one_class_is_refused(tmp_path):
    root = sources.labelme(tmp_path / "source")
    (tmp_path / "map.yml").write_text("road: surface\ncar: ignore\n")
    with pytest.raises(UserError, match=r"1 classes \(surface\), expected 2"):
        import_data(root, tmp_path / "a", classes=tmp_path / "map.yml", unlabeled="ignore")


@pytest.mark.parametrize(
    ("lines", "classes", "label"),
    [
        ("road: car\ncar: road\n", ("background", "car", "road"), sources.expected(0, 2, 1)),
        ("car: drop\n", ("background", "road"), None),
        ("car: ignore\n", ("background", "road"), sources.expected(0, 255, 1)),
        ("car: road\n", ("background", "road"), sources.expected(0, 1, 1)),
    ],
)
def test_class_maps(tmp_path, lines, classes, label):
    root = sources.labelme(tmp_path / "source")
    (tmp_path / "map.yml").write_text(lines)
    result = import_data(root, tmp_path / "mine", classes=tmp_path / "map.yml")
    assert result.classes == classes
    if label is None:
        label = np.zeros((8, 12), np.uint8)
        label[sources.ROAD] = 1
    for path in masks(tmp_path / "mine"):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), label)


def test_groups_stay_in_one_split(tmp_path):
    names = [f"drive{d}/{i}" for d in range(5) for i in range(4)]
    root = sources.yolo(tmp_path / "source", [])
    for name in names:
        sources.image(root / "images" / f"{name}.png")
        label = root / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0 0 1 0 1 1\n")
    result = import_data(root, tmp_path / "mine", group_by=r"drive\d", split="60,40")
    assert result.images == {"train": 12, "val": 8}
    assert result.groups == {"train": 3, "val": 2}
    drives = [
        {p.name[:6] for p in (tmp_path / "mine/masks" / s).iterdir()} for s in ("train", "val")
    ]
    assert not drives[0] & drives[1]


@pytest.mark.parametrize("link", [False, True])
def test_images_are_copied_or_linked(tmp_path, link):
    root = sources.labelme(tmp_path / "source")
    import_data(root, tmp_path / "mine", link=link)
    images = sorted((tmp_path / "mine" / "images").rglob("*.png"))
    assert [path.is_symlink() for path in images] == [link] * 5
    for path in images:
        assert path.read_bytes() == (root / path.name).read_bytes()


def test_an_interrupted_import_continues(tmp_path, monkeypatch):
    root = sources.labelme(tmp_path / "source")
    original, written = data_import.save_palette_png, []

    def interrupted(path, *args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        original(path, *args)

    monkeypatch.setattr(data_import, "save_palette_png", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_data(root, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    assert len(written) == 2
    again = []
    monkeypatch.setattr(
        data_import, "save_palette_png", lambda p, *a: (again.append(p), original(p, *a))
    )
    import_data(root, tmp_path / "mine")
    assert len(again) == 3  # the others were there
    assert len(masks(tmp_path / "mine")) == 5
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_other_options_do_not_continue(tmp_path, monkeypatch):
    root = sources.labelme(tmp_path / "source")
    original = data_import.save_palette_png
    monkeypatch.setattr(data_import, "save_palette_png", raise_full_disk)
    with pytest.raises(UserError, match="no space"):
        import_data(root, tmp_path / "mine", unlabeled="ignore")
    monkeypatch.setattr(data_import, "save_palette_png", original)
    import_data(root, tmp_path / "mine")
    for path in masks(tmp_path / "mine"):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), sources.expected())


def raise_full_disk(*_):
    raise UserError("no space left")


def turned(root):
    """The image of `a` as a photograph whose pixels are stored on their side."""
    pixels = Image.new("RGB", (sources.HEIGHT, sources.WIDTH))
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.save(root / "a.png", exif=exif)


def test_photographs_with_an_orientation(tmp_path):
    root = sources.labelme(tmp_path / "source")
    turned(root)
    import_data(root, tmp_path / "mine")
    dataset = build_dataset(data_import_config(tmp_path), "train")
    for index in range(len(dataset)):
        assert dataset.load(index)["img"].shape == (8, 12, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "none"}, "no such file or folder"),
        ({"output": "full"}, "already there"),
        ({"classes": "no.yml"}, "no annotation has the label 'lorry'; found car, road"),
        ({"classes": "list.yml"}, r"list\.yml: expected lines `label: class`"),
        ({"classes": "gone.yml"}, r"gone\.yml: can't be read"),
        ({"split": "x"}, "--split x: expected"),
        ({"group_by": "^zz"}, "does not match"),
    ],
)
def test_bad_arguments_write_nothing(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources.labelme(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "no.yml").write_text("lorry: truck\n")
    (tmp_path / "list.yml").write_text("[1]")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        import_data(**{"source": "source", "output": "out", **options})
    assert sorted(tmp_path.rglob("*")) == before


def test_images_of_another_size_are_named(tmp_path):
    root = sources.labelme(tmp_path / "source")
    cv2.imwrite(str(root / "b.png"), np.zeros((9, 12, 3), np.uint8))
    (root / "c.png").write_bytes(b"no image")
    message = r"2 of 5 images do not fit(.|\n)*b\.png is 12x9, its annotation is for 12x8"
    with pytest.raises(UserError, match=message):
        import_data(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_of_images_is_an_error(tmp_path):
    root = sources.labelme(tmp_path / "source")
    with pytest.raises(UserError, match=r"--images: .* does not exist"):
        import_data(root, tmp_path / "mine", images=tmp_path / "none")
    assert not (tmp_path / "mine").exists()


def test_published_weights_fit_the_written_config(tmp_path):
    import_data(sources.labelme(tmp_path / "source"), tmp_path / "mine")
    written = load_config(tmp_path / "mine" / "mine.yml").data["model"]
    published = load_config("pp_liteseg/pp_liteseg_stdc1_cityscapes_1024x512_scale0.5_160k")
    published = published.data["model"]
    for key in ("arm_out_chs", "seg_head_inter_chs"):
        assert written[key] == published[key]
