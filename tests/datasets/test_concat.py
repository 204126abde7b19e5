"""`Concat`: joined datasets, mapped classes, shares, and its config."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest

from liteseg.config.build import build_dataset
from liteseg.config.check import check, load_checked
from liteseg.config.load import load_config
from liteseg.datasets import Concat, Dataset
from liteseg.errors import UserError
from liteseg.transforms import Normalize


def files(root, values, count=1, size=(4, 8)):
    """A folder dataset; image `i` is filled with `i`, every label has `values`."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(root / "images" / f"{i}.png"), np.full((*size, 3), i, np.uint8))
        label = np.resize(np.asarray(values, np.uint8), size)
        cv2.imwrite(str(root / "masks" / f"{i}.png"), label)
    return root


def dataset(root, names, **options):
    folders = {"image_dir": "images", "label_dir": "masks"}
    return Dataset("train", str(root), [], len(names), class_names=names, **folders, **options)


@pytest.fixture
def two(tmp_path):
    """The same scene in the classes of two datasets."""
    first = dataset(files(tmp_path / "a", [0, 1, 2, 255], 2), ["road", "car", "sky"])
    second = dataset(files(tmp_path / "b", [2, 0, 1, 255], 3), ["vehicle", "air", "street"])
    return first, second


MAP = {"road": ["road", "street"], "car": ["car", "vehicle"], "sky": ["sky", "air"]}


def test_classes_are_mapped_to_one_list(two):
    joined = Concat(two, [Normalize()], MAP)
    assert joined.classes == ("road", "car", "sky")
    assert len(joined) == 5
    for index in range(5):
        assert joined.load(index)["label"][0, :4].tolist() == [0, 1, 2, 255]
    assert len({sample.name for sample in joined.samples}) == 5
    np.testing.assert_array_equal(joined.palette, two[0].palette)


def test_unlisted_classes_are_ignored(two):
    joined = Concat(two[:1], [Normalize()], {"sky": "sky", "road": "road"})
    assert joined.load(0)["label"][0, :4].tolist() == [1, 255, 0, 255]


def test_shares(two):
    joined = Concat(two, [], MAP, weights=[0.75, 0.25])
    counts = Counter(sample.image.parts[-3] for sample in joined.samples)
    assert counts == {"a": 9, "b": 3}
    assert len(set(joined.samples)) == 5  # nothing is left out
    twice = Counter(sample.image for sample in Concat(two, [], MAP, weights=[2, 3]).samples)
    assert set(twice.values()) == {1}


def test_pack_of_joined_datasets(two, tmp_path):
    from liteseg.datasets.pack import build_pack

    build_pack(Concat(two, [], MAP), tmp_path / "pack")
    packed = Concat(two, [], MAP, pack=str(tmp_path / "pack"))
    plain = Concat(two, [], MAP)
    for index in range(5):
        for key in ("img", "label"):
            np.testing.assert_array_equal(packed.load(index)[key], plain.load(index)[key])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "classes of 0 .3. and 1 .3. differ; give `classes`"),
        (
            {"classes": {"road": "roads"}},
            r"classes\.road: no dataset has .*'roads'; did you mean 'road'",
        ),
        ({"classes": {"road": []}}, r"classes\.road: is empty"),
        ({"classes": {"a": "road", "b": ["road", "car"]}}, "'road' is in 'a' and in 'b'"),
        ({"classes": MAP, "weights": [1]}, "expected 2 numbers above 0"),
        ({"classes": MAP, "weights": [1, 0]}, "expected 2 numbers above 0"),
    ],
)
def test_bad_arguments(two, options, message):
    with pytest.raises(UserError, match=message):
        Concat(two, [], **options)


def test_datasets_that_do_not_fit(two, tmp_path):
    own = Dataset(
        *("train", str(tmp_path / "a"), [Normalize()], 3), image_dir="images", label_dir="masks"
    )
    with pytest.raises(UserError, match=r"datasets\.0: has transforms or a pack"):
        Concat([own], [])
    with pytest.raises(UserError, match="is in datasets 0 and 1"):
        Concat([two[0], two[0]], [])
    other = dataset(tmp_path / "b", ["vehicle", "air", "street"], ignore_index=9)
    with pytest.raises(UserError, match="ignore_index is 255 and 9"):
        Concat([two[0], other], [], MAP)
    with pytest.raises(UserError, match="datasets: is empty"):
        Concat([], [])


def test_wrong_value_names_the_file_of_the_dataset(tmp_path):
    joined = Concat([dataset(files(tmp_path / "a", [7]), ["road", "car"])], [])
    with pytest.raises(UserError, match=r"a/masks/0\.png: label value 7"):
        joined.load(0)


def config(tmp_path, *overrides):
    part = f"{{type: Dataset, mode: train, dataset_root: {tmp_path / 'a'}, num_classes: 3, "
    part += "image_dir: images, label_dir: masks, class_names: [road, car, sky]}"
    (tmp_path / "c.yml").write_text(
        f"""
_base_: quickstart
train_dataset: {{_inherited_: false, type: Concat, datasets: [{part}],
  transforms: [{{type: Normalize}}]}}
val_dataset: {{_inherited_: false, type: Concat, datasets: [{part}],
  classes: {{road: road, car: car, sky: sky}}, transforms: [{{type: Normalize}}]}}
""".replace("_base_: quickstart", f"_base_: {load_config('quickstart').path}")
    )
    return load_config(tmp_path / "c.yml", overrides)


def test_config_of_joined_datasets(tmp_path):
    files(tmp_path / "a", [0, 1, 2])
    cfg = load_checked(config(tmp_path))
    assert build_dataset(cfg, "train").load(0)["label"][0, :3].tolist() == [0, 1, 2]
    (tmp_path / "again.yml").write_text(cfg.dump())
    assert load_checked(tmp_path / "again.yml").source.data == cfg.source.data


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train_dataset.datasets.0.typo=1", "train_dataset.datasets.0.typo: Dataset has no arg"),
        ("train_dataset.datasets.0.type=Datset", "did you mean 'Dataset'"),
        ("train_dataset.datasets=3", "expected a list of mappings"),
        ("val_dataset.classes.more=sky", "numbers of classes differ"),
        ("train_dataset.datasets.0.ignore_index=7", "ignore_index"),
    ],
)
def test_errors_of_the_config(tmp_path, override, message):
    problems = check(config(tmp_path, override))
    assert any(message in problem for problem in problems), problems
