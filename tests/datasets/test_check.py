"""The dataset check: each kind of problem is found, counted and named."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from cases.images import few_bits

from liteseg.cli.data.check import format_report
from liteseg.datasets import CamVid, Dataset, check_dataset, find_duplicates
from liteseg.transforms import Compose, RandomPaddingCrop, ResizeStepScaling
from liteseg.utils.class_weights import class_weights

COUNT = 6


@pytest.fixture
def root(tmp_path):
    """Six pairs; image i has its own noise, label i holds class 0 and one pixel of class 1."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        label = np.zeros((7, 9), np.uint8)
        label[0, 0] = 1
        cv2.imwrite(str(tmp_path / f"i{i}.png"), rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        cv2.imwrite(str(tmp_path / f"l{i}.png"), label)
    return tmp_path


def make(root, numbers=range(COUNT), num_classes=2):
    (root / "list.txt").write_text("\n".join(f"i{i}.png l{i}.png" for i in numbers))
    return Dataset("train", str(root), [], num_classes, train_path="list.txt")


def check(dataset, **options):
    report = check_dataset(dataset, progress=False, **options)
    assert json.loads(json.dumps(report)) == report
    return report


def label(root, number, array):
    cv2.imwrite(str(root / f"l{number}.png"), np.asarray(array, np.uint8))


def test_sound_dataset(root):
    dataset = make(root)
    report = check(dataset)
    assert report["errors"] == report["warnings"] == []
    assert report["images"] == report["checked"] == COUNT
    assert report["sizes"] == {"9x7": COUNT}
    assert report["outside"] == {}
    assert report["ignored"] == 0
    assert report["histogram"] == {"0": 62 * 6, "1": 6}
    row = report["classes"]["class_1"]
    assert (row["pixels"], row["images"]) == (6, 6)
    assert row["frequency"] == pytest.approx(1 / 63)
    weights = class_weights(np.array([62 * 6, 6]))
    assert row["weight"] == pytest.approx(weights[1], abs=1e-4)
    assert "0 errors, 0 warnings" in format_report(report)


def test_every_error_is_collected(root):
    label(root, 0, np.full((7, 9), 4))
    label(root, 1, np.zeros((7, 8)))
    (root / "i2.png").write_bytes((root / "i2.png").read_bytes()[:-20])
    cv2.imwrite(str(root / "l3.png"), np.zeros((7, 9, 3), np.uint8))
    report = check(make(root))
    problems = {error["file"][-6:]: error["problem"] for error in report["errors"]}
    assert sorted(problems) == ["i2.png", "l0.png", "l1.png", "l3.png"]
    assert "label value 4 (63 pixels)" in problems["l0.png"]
    assert "8x7" in problems["l1.png"]
    assert "truncated" in problems["i2.png"]
    assert "one channel" in problems["l3.png"]
    assert report["outside"] == {"4": {"pixels": 63, "images": 1, "files": [f"{root}/l0.png"]}}
    text = format_report(report, "train")
    assert text.startswith("train: 6 of 6 images checked: 9x7 (2)")
    assert f"value 4 is no class: 63 pixels in 1 images: {root}/l0.png" in text
    assert "4 errors" in text


def test_text_shows_each_kind_of_error_once(root):
    dataset = make(root, [0] * 15)
    label(root, 0, np.full((7, 9), 9))
    text = format_report(check(dataset))
    assert text.count("  error: ") == 1
    assert "(and 14 more files like it)" in text
    assert "15 errors" in text


def test_absent_classes(root):
    report = check(make(root, num_classes=4))
    assert report["warnings"] == ["no pixel of 2 classes: class_2, class_3"]
    assert report["classes"]["class_3"]["weight"] > 0
    assert check(make(root, num_classes=4), sample=3)["warnings"] == []


def test_masks_of_0_and_255(root):
    for i in range(COUNT):
        label(root, i, np.where(np.eye(7, 9) > 0, 255, 0))
    (warning,) = check(make(root))["warnings"]
    assert "0 and 255" in warning


def test_ignored_labels(root):
    for i in range(4):
        label(root, i, np.full((7, 9), 255))
    warnings = check(make(root))["warnings"]
    assert warnings[0].startswith("4 labels are ignored entirely")
    assert warnings[1].startswith("67% of all label pixels")


def test_repeated_images(root):
    (warning,) = check(make(root, [0, 1, 0, 2]))["warnings"]
    assert "1 images are listed more than once" in warning
    assert "i0.png" in warning
    assert find_duplicates({"train": make(root, [0, 1, 0, 2])}) == []


def test_only_a_few_files_are_named(root):
    for i in range(COUNT):
        label(root, i, np.full((7, 9), 4))
    report = check(make(root))
    assert report["outside"]["4"]["files"] == [f"{root}/l{i}.png" for i in range(3)]
    assert "in 6 images: " in format_report(report)
    assert "l2.png, ..." in format_report(report)


def test_missing_labels_are_errors_if_needed(root):
    (root / "test.txt").write_text("i0.png l0.png\ni1.png")
    dataset = Dataset("test", str(root), [], 2, test_path="test.txt")
    assert check(dataset)["errors"] == []
    problem = f"{root}/i1.png: has no label"
    found = check(dataset, needs_labels=True)["errors"]
    assert found == [{"file": f"{root}/i1.png", "problem": problem}]


@pytest.mark.parametrize(
    ("transforms", "problem"),
    [
        ([], "(9x7, 9x8)"),
        ([ResizeStepScaling(0.5, 2.0, 0.5)], "different sizes"),
        ([RandomPaddingCrop((6, 6))], None),
        ([ResizeStepScaling(0.5, 2.0, 0.5), RandomPaddingCrop((6, 6))], None),
    ],
)
def test_different_sizes_are_errors_if_needed(root, transforms, problem):
    cv2.imwrite(str(root / "i4.png"), np.zeros((8, 9, 3), np.uint8))
    label(root, 4, np.zeros((8, 9)))
    dataset = make(root)
    dataset.transforms = Compose(transforms)
    assert check(dataset)["errors"] == []
    problems = [error["problem"] for error in check(dataset, needs_one_size=True)["errors"]]
    assert len(problems) == (problem is not None)
    assert all(problem in found and "RandomPaddingCrop" in found for found in problems)


def test_sample_is_evenly_spread(root):
    dataset = make(root)
    label(root, 5, np.full((7, 9), 9))
    assert check(dataset, sample=2)["checked"] == 2
    assert len(check(dataset, sample=2)["errors"]) == 1
    assert check(dataset, sample=1)["errors"] == []
    assert check(dataset, sample=100)["checked"] == COUNT


def test_no_labels(root):
    (root / "test.txt").write_text("i0.png\ni1.png")
    dataset = Dataset("test", str(root), [], 2, test_path="test.txt")
    report = check(dataset)
    assert report["warnings"] == ["no labels to check"]
    assert report["errors"] == []
    format_report(report)


def test_duplicates_across_splits(root):
    (root / "copy.png").write_bytes((root / "i1.png").read_bytes())
    train = make(root, range(3))
    (root / "list.txt").write_text("copy.png l1.png\ni4.png l4.png")
    val = Dataset("val", str(root), [], 2, val_path="list.txt")
    assert find_duplicates({"train": train, "val": val}) == [
        [f"train: {root}/i1.png", f"val: {root}/copy.png"]
    ]
    assert find_duplicates({"train": train}) == []
    (root / "i2.png").unlink()  # reported by the check
    assert len(find_duplicates({"train": train, "val": val})) == 1


def test_real_camvid_is_sound(shared_data):
    datasets = {mode: CamVid([], str(shared_data / "camvid"), mode) for mode in ("train", "val")}
    report = check(datasets["val"], sample=20)
    assert report["errors"] == report["warnings"] == []
    assert report["sizes"] == {"480x360": 20}
    assert find_duplicates(datasets) == []


def test_dark_16_bit_images_are_named(tmp_path):
    """13 bits: they can be read, but as 8-bit images they have 0 to 31."""
    few_bits(tmp_path / "i.png", 13)
    cv2.imwrite(str(tmp_path / "l.png"), np.ones((16, 24), np.uint8))
    (tmp_path / "list.txt").write_text("i.png l.png")
    dataset = Dataset("train", str(tmp_path), [], 2, train_path="list.txt")
    warnings = check_dataset(dataset, progress=False)["warnings"]
    assert any(f"{tmp_path / 'i.png'}: 8191 of 65535" in warning for warning in warnings)
