"""`liteseg data`: arguments, printed reports and exit codes; `tests/tasks` has the work."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from liteseg.cli import main
from liteseg.tasks.data import DataReport, PackResult

ROOT = Path(__file__).resolve().parents[2]
SOUND = {
    "images": 3,
    "checked": 2,
    "errors": [],
    "warnings": ["label 7 is rare"],
    "sizes": {"8x6": 2},
    "classes": {"road": {"pixels": 96, "images": 2, "frequency": 1.0, "weight": 1.0}},
    "ignored": 4,
    "histogram": {"0": 96, "255": 4},
    "outside": {"77": {"pixels": 5, "images": 2, "files": ["a.png"]}},
}


@pytest.fixture
def task(monkeypatch):
    """Replaces a task of `liteseg.tasks.data`; returns the list of its calls."""

    def replace(name, result):
        recorded = []

        def fake(*args, **options):
            recorded.append((args, options))
            return result

        monkeypatch.setattr(f"liteseg.tasks.data.{name}", fake)
        return recorded

    return replace


def check(*options):
    return main(["data", "check", "--config", "c.yml", *map(str, options)])


def test_report_of_sound_data(task, tmp_path, capsys):
    recorded = task("check_data", DataReport({"train": SOUND}, [], []))
    options = (
        "--split",
        "train",
        "--sample",
        2,
        "--workers",
        1,
        "--set",
        "iters=1",
        "--page",
        "p.html",
    )
    assert check(*options, "--json", tmp_path / "r.json") == 0
    expected = {"overrides": ["iters=1"], "split": "train", "sample": 2, "workers": 1}
    expected["page"] = "p.html"
    assert recorded == [(("c.yml",), expected)]
    text = capsys.readouterr().out
    assert "train: 2 of 3 images checked: 8x6 (2)" in text
    assert "value 77 is no class: 5 pixels in 2 images: a.png, ..." in text
    assert "warning: label 7 is rare" in text
    assert "0 errors, 1 warnings" in text
    content = json.loads((tmp_path / "r.json").read_text())
    assert content == {"splits": {"train": SOUND}, "errors": [], "duplicates": [], "similar": []}


def test_stats_and_page_of_real_files(tmp_path, capsys):
    """A class in two splits, a copy in val that was encoded again, and a plain image."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (tmp_path / folder / split).mkdir(parents=True)
    for index in range(4):
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (80, 60), interpolation=cv2.INTER_CUBIC)
        label = np.zeros((60, 80), np.uint8)
        label[10:40, 20 : 30 + index] = 1
        split = "val" if index == 3 else "train"
        if index == 2:
            image[:] = 7
        cv2.imwrite(str(tmp_path / "images" / split / f"{index}.png"), image)
        cv2.imwrite(str(tmp_path / "masks" / split / f"{index}.png"), label)
    copy = cv2.imread(str(tmp_path / "images/val/3.png"))
    cv2.imwrite(str(tmp_path / "images/train/0.png"), cv2.convertScaleAbs(copy, alpha=1.03))
    (tmp_path / "c.yml").write_text(
        f"""
_base_: {ROOT}/configs/quickstart.yml
train_dataset: &data
  {{_inherited_: false, type: Dataset, mode: train, dataset_root: {tmp_path}, num_classes: 2,
   image_dir: images/train, label_dir: masks/train, class_names: [ground, "<b>box"],
   transforms: [{{type: Normalize}}]}}
val_dataset: {{<<: *data, mode: val, image_dir: images/val, label_dir: masks/val}}
"""
    )
    arguments = ["--config", str(tmp_path / "c.yml"), "--page", str(tmp_path / "p.html")]
    assert main(["data", "check", *arguments]) == 0
    text = capsys.readouterr().out
    assert "1 images have one color" in text
    assert "1 pairs of images of two splits look the same" in text
    assert "images/train/0.png" in text
    page = (tmp_path / "p.html").read_text()
    assert page.count("<img") == 3 * 2 + 1 * 2  # by class: three of train, one of val
    assert "<b>box" not in page  # escaped
    assert "&lt;b&gt;box" in page
    assert main(["data", "stats", *arguments]) == 0
    text = capsys.readouterr().out
    assert "colors: {type: Normalize, mean: [" in text
    assert "warning" not in text
    assert main(["data", "stats", "--config", str(tmp_path / "c.yml"), "--page", arguments[1]]) == 2
    assert "_base_" in (tmp_path / "c.yml").read_text()  # not replaced


def test_errors_are_exit_2(task, capsys):
    kinds = "abcdefghijkl"
    errors = [{"file": f"{i}.png", "problem": f"{i}.png: is broken {i}"} for i in kinds]
    errors += [{"file": "x.png", "problem": "x.png: is broken a"}]
    broken = {**SOUND, "errors": errors, "sizes": {f"{i}x{i}": 1 for i in range(7)}}
    opened = {"file": "val", "problem": "the list is empty"}
    task("check_data", DataReport({"train": broken}, [opened], []))
    assert check() == 2
    text = capsys.readouterr().out
    assert "val: error: the list is empty" in text
    assert "a.png: is broken a (and 1 more files like it)" in text
    assert "j.png: is broken j" in text
    assert "k.png: is broken" not in text
    assert "and 2 more kinds (--json lists all)" in text
    assert "and 2 more sizes" in text


def test_duplicates_are_warnings(task, capsys):
    across, within = ["train: a.png", "val: b.png"], ["val: c.png", "val: d.png"]
    task("check_data", DataReport({}, [], [across, within]))
    assert check() == 0
    text = capsys.readouterr().out
    assert "1 images (by content) are in more than one split, the first:\n    train: a.png" in text
    assert "1 images (by content) are twice in a split, the first:\n    val: c.png" in text


def test_an_unwritable_report_is_reported_before_the_work(task, tmp_path, capsys):
    recorded = task("check_data", None)
    (tmp_path / "file").write_text("")
    assert check("--json", tmp_path / "file" / "r.json") == 2
    assert "cannot write" in capsys.readouterr().err
    assert recorded == []


def test_numbers_are_checked_by_the_parser(capsys):
    with pytest.raises(SystemExit):
        check("--sample", 0)
    assert "is not a whole number above 0" in capsys.readouterr().err


def test_pack(task, tmp_path, capsys):
    recorded = task("pack_data", PackResult(tmp_path, 3))
    command = ["data", "pack", "--config", "c.yml", "--output", "p", "--split", "val", "--verify"]
    assert main(command) == 0
    options = {"overrides": [], "split": "val", "workers": None, "verify": True}
    assert recorded == [(("c.yml", "p"), options)]
    text = capsys.readouterr().out
    assert f"3 samples in {tmp_path} have the checksums of their index" in text
    assert text.rpartition("--set ")[2].strip() == f"val_dataset.pack={tmp_path}"


def test_streets(task, tmp_path, capsys):
    recorded = task("make_streets", tmp_path)
    sizes = ["--train", "2", "--val", "1", "--size", "128", "64"]
    assert main(["data", "streets", "--output", "s", *sizes]) == 0
    assert recorded == [(("s",), {"train": 2, "val": 1, "size": (128, 64), "seed": 0})]
    assert f"2 train and 1 val images in {tmp_path}" in capsys.readouterr().out
