"""`Segmenter` of trained weights; exported models are tested in `test_export.py`."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from filled_run import draw

import liteseg
from liteseg.config.build import build_model
from liteseg.config.check import load_checked
from liteseg.datasets import Streets
from liteseg.errors import UserError
from liteseg.tasks.segmenter import Segmenter
from liteseg.tasks.val_transforms import val_transform_specs


def test_images_of_several_sizes(filled_run):
    segmenter = Segmenter.from_pretrained(filled_run / "checkpoints" / "best" / "model.pdparams")
    images = [draw(i) for i in range(3)]
    images[1] = images[1][:50, :70]
    found = segmenter.predict_batch(images)
    for image, label in zip(images, found):
        assert label.shape == image.shape[:2]
        assert label.dtype == np.uint8
        assert (label == segmenter.predict(image)).mean() > 0.999
    with pytest.raises(ValueError, match="uint8 RGB"):
        segmenter.predict(images[0].astype("float32"))


def test_no_config_next_to_the_weights(tmp_path):
    file = tmp_path / "d.pdparams"
    with pytest.raises(UserError, match=r"d\.pdparams does not exist"):
        Segmenter.from_pretrained(file)
    file.touch()
    with pytest.raises(UserError, match=r"no config\.yml"):
        Segmenter.from_pretrained(file)


def test_runtimes_are_for_exported_models(filled_run):
    with pytest.raises(UserError, match="are for exported models; make one with"):
        Segmenter.from_pretrained(filled_run, runtime="openvino")


def test_a_run_without_a_validation_set(streets_config, tmp_path):
    """Prediction takes the training set's classes, `Normalize` and fixed first transforms."""
    first = "train_dataset.transforms.0"
    plain = load_checked(streets_config, ["val_dataset=null"])
    assert [spec["type"] for spec in val_transform_specs(plain)] == ["Normalize"]
    resize = f"{first}={{_inherited_: false, type: Resize, target_size: [64, 32]}}"
    resized = load_checked(streets_config, ["val_dataset=null", resize])
    assert [spec["type"] for spec in val_transform_specs(resized)] == ["Resize", "Normalize"]
    run = liteseg.train(plain, overrides=["iters=1"], output=tmp_path / "run").output
    segmenter = liteseg.Segmenter.from_pretrained(run)
    image = np.zeros((33, 65, 3), np.uint8)
    assert segmenter.predict(image).shape == (33, 65)
    assert segmenter.class_names == Streets.CLASSES
    exported = tmp_path / "exported"
    liteseg.export(run, "paddle", exported, num_images=1)
    assert (liteseg.Segmenter.from_pretrained(exported).predict(image) < 9).all()


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_the_orientation_is_handled_as_in_the_dataset(streets_config, exif):
    cfg = load_checked(streets_config, [f"val_dataset.exif={exif}"])
    assert liteseg.Segmenter.from_model(build_model(cfg), cfg).exif == exif


def test_pretrained_weights_are_not_fetched_for_trained_ones(filled_run, tmp_path):
    """Evaluation, prediction, export and fine-tuning of a run need no network."""
    absent = "http://127.0.0.1:9/absent.pdparams"
    changes = [f"model.pretrained={absent}", f"model.backbone.pretrained={absent}"]
    cfg = liteseg.load_config(filled_run / "config.yml", changes)
    assert Segmenter.from_pretrained(filled_run, cfg).predict(draw(0)).shape == (70, 100)
    assert liteseg.evaluate(cfg, filled_run).metrics["images"] == 3
    liteseg.export(filled_run, "paddle", tmp_path / "exported", cfg=cfg, verify=False)
    options = {"output": tmp_path / "run", "overrides": ["iters=1", "num_workers=0"]}
    liteseg.train(cfg, weights=filled_run, **options)
    with pytest.raises(UserError, match=absent):
        liteseg.train(cfg, **{**options, "output": tmp_path / "other"})


def test_paths_pil_images_and_probabilities(filled_run, tmp_path):
    segmenter = Segmenter.from_pretrained(filled_run)
    image = draw(7)
    path = tmp_path / "image.png"
    PIL.Image.fromarray(image).save(path)
    expected = segmenter.predict(image)
    for other in (path, str(path), PIL.Image.fromarray(image)):
        np.testing.assert_array_equal(segmenter(other), expected)
    found = segmenter.probabilities(path)
    assert (found.shape, found.dtype) == ((3, *image.shape[:2]), np.float32)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert (found.argmax(axis=0) == expected).mean() > 0.999


def test_turned_pil_images_are_read_as_their_files(filled_run, tmp_path):
    segmenter = Segmenter.from_pretrained(filled_run)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "image.png"
    PIL.Image.fromarray(draw(7)).save(path, exif=exif)
    with PIL.Image.open(path) as image:
        np.testing.assert_array_equal(segmenter(image), segmenter(path))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "image is a NoneType; expected an array"),
        ([1, 2], "image is a list; expected an array"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8; expected \(H, W, 3\)"),
        (np.zeros((4, 4, 3), np.float32), r"float32; expected \(H, W, 3\) uint8 RGB"),
    ],
)
def test_what_is_no_image_is_refused_in_words(filled_run, image, message):
    with pytest.raises(ValueError, match=message):
        Segmenter.from_pretrained(filled_run)(image)
