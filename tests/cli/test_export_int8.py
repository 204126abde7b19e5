"""`liteseg export --int8`: what NNCF makes of the network, and what OpenVINO computes of it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from deploy_run import make_run, picture

from liteseg.cli import main
from liteseg.tasks.segmenter import Segmenter

for package in ("nncf", "openvino", "onnx", "paddle2onnx"):
    pytest.importorskip(package, reason=f"{package} is not installed: the extra `export`")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def quantized(run):
    folder = run.parent / "quantized"
    assert call(run, folder, "--int8", "--calib", 3) == 0
    return folder


def call(run, folder, *arguments):
    command = ["export", "--format", "openvino", "--weights", run, "--output", folder, *arguments]
    return main([str(word) for word in command])


def test_labels_are_nearly_those_of_the_trained_model(run, quantized):
    trained, exported = Segmenter.from_pretrained(run), Segmenter.from_pretrained(quantized)
    for seed, size in ((0, (70, 100)), (7, (97, 131))):
        image = picture(seed, size)
        assert (exported.predict(image) == trained.predict(image)).mean() > 0.9


def test_what_is_written(run, quantized):
    about = json.loads((quantized / "liteseg.json").read_text())
    assert about["precision"] == "int8"
    assert about["verified"]["equal_labels"] > 0.9
    weights = (run / "checkpoints" / "best" / "model.pdparams").stat().st_size
    assert (quantized / "model.bin").stat().st_size < weights / 3.9


def test_no_convolution_computes_in_float(quantized):
    """What one consumer can't take in 8 bits, OpenVINO computes in float back to its source."""
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


def test_calibrated_on_the_images_of_a_folder(run, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(2):
        cv2.imwrite(str(images / f"{seed}.png"), picture(seed)[..., ::-1])
    assert call(run, tmp_path / "out", "--int8", "--calib", images) == 0
    assert "int8: calibrated on 2 images" in capsys.readouterr().out
    found = Segmenter.from_pretrained(tmp_path / "out").predict(picture(0))
    assert found.dtype == np.uint8


def test_no_images_to_calibrate_with(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert call(run, tmp_path / "out", "--int8", "--calib", tmp_path / "empty") == 2
    assert str(tmp_path / "empty") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
