"""`Segmenter` of trained weights; exported models are tested in `test_export.py`."""

from __future__ import annotations

import numpy as np
import pytest
from filled_run import draw

from liteseg.errors import UserError
from liteseg.tasks.segmenter import Segmenter


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
    with pytest.raises(UserError, match=r"no config\.yml"):
        Segmenter.from_pretrained(tmp_path / "a" / "b" / "c" / "d.pdparams")


def test_runtimes_are_for_exported_models(filled_run):
    with pytest.raises(UserError, match="are for exported models; make one with"):
        Segmenter.from_pretrained(filled_run, runtime="openvino")
