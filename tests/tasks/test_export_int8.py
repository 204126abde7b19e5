"""`liteseg.export(int8=True)`: the network that NNCF writes, and how OpenVINO computes it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from filled_run import draw, write

import liteseg
from liteseg.errors import UserError
from liteseg.tasks.segmenter import Segmenter

for package in ("nncf", "openvino", "onnx", "paddle2onnx"):
    pytest.importorskip(package, reason=f"{package} is not installed: the extra `export`")


@pytest.fixture(scope="module")
def quantized(filled_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "quantized"
    liteseg.export(filled_run, "openvino", folder, int8=True, calibration=3)
    return folder


def test_labels_are_nearly_those_of_the_trained_model(filled_run, quantized):
    trained, exported = map(Segmenter.from_pretrained, (filled_run, quantized))
    for seed, size in ((0, (70, 100)), (7, (97, 131))):
        image = draw(seed, size)
        assert (exported.predict(image) == trained.predict(image)).mean() > 0.9


def test_files(filled_run, quantized):
    about = json.loads((quantized / "liteseg.json").read_text())
    assert about["precision"] == "int8"
    assert about["verified"]["equal_labels"] > 0.9
    weights = (filled_run / "checkpoints" / "best" / "model.pdparams").stat().st_size
    assert (quantized / "model.bin").stat().st_size < weights / 3.9


def test_no_convolution_computes_in_float(quantized):
    """If one consumer of a tensor needs float, OpenVINO computes its whole source in float."""
    import openvino

    core = openvino.Core()
    model = core.read_model(quantized / "model.xml")
    model = openvino.Model([model.output("coarse")], model.get_parameters())
    compiled = core.compile_model(model, "CPU")
    kinds = [
        operation.get_rt_info()["primitiveType"].astype(str)
        for operation in compiled.get_runtime_model().get_ops()
        if operation.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    assert len(kinds) > 40
    assert [kind for kind in kinds if not kind.endswith("_I8")] == []


def test_calibrated_on_the_images_of_a_folder(filled_run, tmp_path, caplog):
    images = tmp_path / "images"
    for seed in range(2):
        write(images / f"{seed}.png", draw(seed))
    options = {"int8": True, "calibration": images}
    result = liteseg.export(filled_run, "openvino", tmp_path / "out", **options)
    assert result.calibration_images == 2
    assert "int8 is calibrated on 2 images; give 10 or more" in caplog.text
    found = Segmenter.from_pretrained(tmp_path / "out").predict(draw(0))
    assert found.dtype == np.uint8


def test_no_images_to_calibrate_with(filled_run, tmp_path):
    (tmp_path / "empty").mkdir()
    options = {"int8": True, "calibration": tmp_path / "empty"}
    with pytest.raises(UserError, match=str(tmp_path / "empty")):
        liteseg.export(filled_run, "openvino", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
