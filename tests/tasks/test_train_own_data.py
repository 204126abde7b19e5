"""`liteseg.train` on data as users have it: void labels, masks, turned photographs."""

import cv2
import numpy as np
import pytest
from cases.datasets import config, scenes
from cases.images import turned_photo

import liteseg
from liteseg.errors import UserError
from liteseg.utils.images import read_image


def train(tmp_path, text, *overrides):
    (tmp_path / "c.yml").write_text(text)
    return liteseg.train(tmp_path / "c.yml", overrides=overrides, output=tmp_path / "run")


@pytest.mark.parametrize(("values", "void"), [((0, 1, 2, 3), 4), ((1, 2, 3), 0)])
def test_another_void_label(tmp_path, values, void):
    """Crops and rotations pad with it, and no loss counts it."""
    root = scenes(tmp_path / "data", values=values, void=void)
    losses = "loss.types=[{_inherited_: false, type: CrossEntropyLoss}, {type: LovaszSoftmaxLoss}, "
    losses += "{type: OhemCrossEntropyLoss, min_kept: 100}]"
    result = train(tmp_path, config(root, ignore_index=void), losses)
    assert (result.iteration, result.stop_reason) == (2, None)
    assert 0 < result.best_miou < 1


def test_masks_of_0_and_255(tmp_path):
    root = scenes(tmp_path / "data", count=20, values=(0, 255), void=0)
    with pytest.raises(UserError, match="`0 0 0 background` and `255 255 255 foreground`"):
        train(tmp_path, config(root, classes=2))
    (root / "colors.txt").write_text("0 0 0 background\n255 255 255 foreground\n")
    assert train(tmp_path, config(root, classes=2, colours="colors.txt")).iteration == 2


def test_labels_that_are_ignored_entirely(tmp_path, capfd):
    root = scenes(tmp_path / "data", values=(255,))
    with pytest.raises(UserError, match="all pixels of all 4 labels are ignored"):
        train(tmp_path, config(root))
    weights = train(tmp_path, config(scenes(tmp_path / "good"))).output
    capfd.readouterr()
    found = liteseg.evaluate(
        tmp_path / "c.yml", weights, overrides=[f"val_dataset.dataset_root={root}"]
    )
    assert found.metrics["miou"] is None
    text = "".join(capfd.readouterr())
    assert "all pixels of all 4 labels are ignored" in text
    assert "there is no mIoU" in text


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_eval_and_predict_turn_photographs_alike(tmp_path, exif):
    root = scenes(tmp_path / "data", count=4)
    weights = train(tmp_path, config(root)).output
    for i in range(4):
        image = read_image(root / f"i{i}.png")
        turned_photo(root / f"i{i}.png", (3, 6, 5, 2)[i], image)
        if exif == "apply":
            upright = read_image(root / f"i{i}.png", exif=True)
            label = np.ones(upright.shape[:2], np.uint8)
            cv2.imwrite(str(root / f"l{i}.png"), label)
    cfg = tmp_path / "e.yml"
    cfg.write_text(config(root, exif=exif))
    evaluated = tmp_path / "evaluated"
    liteseg.evaluate(cfg, weights, predictions=evaluated)
    photos = sorted(root.glob("i*.png"))
    liteseg.predict(photos, tmp_path / "predicted", weights=weights, cfg=cfg, what="mask")
    for photo in photos:
        (saved,) = (path for path in evaluated.rglob("*.png") if photo.stem in path.name)
        predicted = cv2.imread(str(tmp_path / "predicted" / f"{photo.stem}_label.png"), -1)
        assert (cv2.imread(str(saved), -1) == predicted).all()


def test_deep_images_are_refused_before_training(tmp_path):
    root = scenes(tmp_path / "data")
    for i in range(4):
        image = cv2.imread(str(root / f"i{i}.png")).astype(np.uint16) * 4
        cv2.imwrite(str(root / f"i{i}.png"), image)
    with pytest.raises(UserError, match=r"i0\.png: 16 bits per band with a largest value of "):
        train(tmp_path, config(root))


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_image_of_another_size(tmp_path, split):
    """It would end the training in the middle of an epoch or of the first evaluation."""
    root = scenes(tmp_path / "data")
    for name, channels in (("i2", 3), ("l2", 1)):
        cv2.imwrite(str(root / f"{name}.png"), np.ones((60, 50, channels), np.uint8))
    change = {
        "train": "train_dataset.transforms=[{type: Normalize}]",
        "val": "val_dataset.transforms=[{type: Padding, target_size: [64, 48]}, {type: Normalize}]",
    }[split]
    message = {"train": "images of different sizes", "val": "but the image is 50 x 60"}[split]
    with pytest.raises(UserError, match=message):
        train(tmp_path, config(root), change)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
