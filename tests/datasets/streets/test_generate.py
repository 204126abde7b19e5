from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from liteseg.datasets.streets.generate import generate
from liteseg.datasets.streets.scene import render
from liteseg.errors import UserError

CLASS_IDS = (7, 8, 11, 17, 20, 21, 23, 24, 26)
IGNORED_IDS = (1, 19)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [render(512, 256, np.random.default_rng((0, 1, index))) for index in range(20)]


def pixels(root) -> dict[str, np.ndarray]:
    paths = sorted(root.rglob("*.png"))
    return {str(p.relative_to(root)): cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in paths}


def make(root, **parameters):
    small = {"train": 3, "val": 2, "size": (128, 64), "progress": False}
    return generate(root, **{**small, **parameters})


def test_layout_is_that_of_cityscapes(tmp_path):
    root = make(tmp_path / "new" / "streets")
    found = pixels(root)
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            name = f"{split}/streets/streets_{index:06d}_000019"
            assert found.pop(f"leftImg8bit/{name}_leftImg8bit.png").shape == (64, 128, 3)
            label = found.pop(f"gtFine/{name}_gtFine_labelIds.png")
            assert label.shape == (64, 128)
            assert label.dtype == np.uint8
    assert not found
    assert json.loads((root / "streets.json").read_text())["size"] == [128, 64]
    assert [path.name for path in root.parent.iterdir()] == ["streets"]


def test_files_contain_the_rendered_pixels(tmp_path):
    found = pixels(make(tmp_path / "s", seed=4))
    image, label = render(128, 64, np.random.default_rng((4, 1, 1)))
    name = "val/streets/streets_000001_000019"
    bgr = found[f"leftImg8bit/{name}_leftImg8bit.png"]
    np.testing.assert_array_equal(bgr[..., ::-1], image)
    np.testing.assert_array_equal(found[f"gtFine/{name}_gtFine_labelIds.png"], label)


def test_pixels_do_not_depend_on_the_number_of_workers(tmp_path):
    one, two = (pixels(make(tmp_path / str(n), workers=n, seed=3)) for n in (1, 2))
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_seeds_splits_and_indices_differ(tmp_path):
    both = [pixels(make(tmp_path / str(seed), seed=seed)) for seed in (0, 1)]
    images = [array.tobytes() for found in both for array in found.values()]
    assert len(set(images)) == len(images)


def test_labels_are_known_ids(scenes):
    known = (*CLASS_IDS, *IGNORED_IDS)
    for _, label in scenes:
        assert np.isin(label, known).all()
        assert np.isin(label, CLASS_IDS).mean() > 0.85


def test_every_class_is_in_most_scenes(scenes):
    for class_id in CLASS_IDS:
        share = [(label == class_id).mean() for _, label in scenes]
        assert np.mean(np.array(share) > 1e-3) >= 0.8, class_id
        assert 0.004 < np.mean(share) < 0.5, class_id


def test_poles_are_wide_enough_for_stride_8_features(scenes):
    widest = []
    for _, label in scenes:
        distance = cv2.distanceTransform((label == 17).astype(np.uint8), cv2.DIST_L2, 5)
        widest.append(2 * distance.max())
    assert np.median(widest) >= 5


def test_color_alone_does_not_separate_the_classes(scenes):
    images = np.stack([image for image, _ in scenes]).reshape(-1, 3).astype(np.float32)
    labels = np.stack([label for _, label in scenes]).reshape(-1)
    means = np.stack([images[labels == class_id].mean(axis=0) for class_id in CLASS_IDS])
    squared = ((means**2).sum(axis=1) - 2 * images @ means.T).argmin(axis=1)
    guess = np.array(CLASS_IDS)[squared]
    valid = np.isin(labels, CLASS_IDS)
    iou = [
        ((guess == c) & (labels == c)).sum() / (((guess == c) | (labels == c)) & valid).sum()
        for c in CLASS_IDS
    ]
    assert np.mean(iou) < 0.5


@pytest.mark.parametrize("size", [(128, 64), (300, 333), (1024, 512)])
def test_scenes_scale_with_the_size(size):
    image, label = render(*size, np.random.default_rng(5))
    assert image.shape == (size[1], size[0], 3)
    reference = render(512, 256, np.random.default_rng(5))[1]
    assert label[-size[1] // 8, size[0] // 2] in (1, 7, 26)
    if size[0] == 2 * size[1]:
        resized = cv2.resize(label, (512, 256), interpolation=cv2.INTER_NEAREST)
        assert (resized == reference).mean() > 0.8


def test_same_parameters_reuse_the_dataset(tmp_path):
    root = make(tmp_path / "s")
    marker = next(root.rglob("*.png"))
    marker.write_bytes(b"kept")
    assert make(root) == root
    assert marker.read_bytes() == b"kept"


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 4}, {"size": (256, 128)}])
def test_other_parameters_are_refused(tmp_path, change):
    root = make(tmp_path / "s")
    with pytest.raises(UserError, match=r"found .*expected .*delete") as caught:
        make(root, **change)
    assert str(root) in str(caught.value)


def test_other_folders_are_refused_and_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("text")
    with pytest.raises(UserError, match=r"no readable streets\.json"):
        make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_used(tmp_path):
    root = tmp_path / "empty"
    root.mkdir()
    assert len(pixels(make(root))) == 10


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("liteseg.datasets.streets.generate.render", fail)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "s")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [{"train": 0}, {"size": (64, 64)}, {"seed": -1}])
def test_parameters_out_of_range(tmp_path, bad):
    with pytest.raises(UserError, match="at least"):
        make(tmp_path / "s", **bad)


def test_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        make(tmp_path / "file" / "s")
