"""`liteseg export`, and the exported models through `Segmenter`, in every format."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from deploy_run import make_run, picture

from liteseg.cli import export, main
from liteseg.errors import UserError
from liteseg.tasks.segmenter import Segmenter

PACKAGES = {
    "paddle": (),
    "onnx": ("onnx", "paddle2onnx", "onnxruntime"),
    "openvino": ("onnx", "paddle2onnx", "openvino"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def trained(run):
    return Segmenter.from_pretrained(run)


@pytest.fixture(scope="module")
def exported(run):
    """Format -> folder of the exported model, made once."""
    made = {}

    def get(model_format):
        for package in PACKAGES[model_format]:
            pytest.importorskip(package, reason=f"{package} is not installed: the extra `export`")
        if model_format not in made:
            folder = run.parent / model_format
            assert call(run, folder, "--format", model_format) == 0
            made[model_format] = folder
        return made[model_format]

    return get


def call(run, folder, *arguments):
    return main(["export", "--weights", str(run), "--output", str(folder), *map(str, arguments)])


def equal(first, second):
    assert first.shape == second.shape
    assert first.dtype == second.dtype == np.uint8
    return (first == second).mean()


@pytest.mark.parametrize("model_format", PACKAGES)
class TestFormats:
    def test_labels_of_any_size_are_those_of_the_trained_model(
        self, exported, trained, model_format
    ):
        segmenter = Segmenter.from_pretrained(exported(model_format))
        for i, size in enumerate([(70, 100), (64, 64), (97, 131)]):
            image = picture(i, size)
            assert equal(segmenter.predict(image), trained.predict(image)) > 0.999
        assert segmenter.class_names == trained.class_names
        np.testing.assert_array_equal(segmenter.palette, trained.palette)

    def test_batches_of_mixed_sizes(self, exported, trained, model_format):
        segmenter = Segmenter.from_pretrained(exported(model_format))
        images = [picture(i, size) for i, size in enumerate([(64, 96), (70, 100), (64, 96)])]
        for found, image in zip(segmenter.predict_batch(images), images):
            assert equal(found, trained.predict(image)) > 0.999

    def test_the_settings_travel(self, exported, model_format):
        about = json.loads((exported(model_format) / "liteseg.json").read_text())
        assert about["format"] == model_format
        assert about["scale"] == 0.75
        assert about["mean"] == [0.4, 0.5, 0.6]
        assert about["std"] == [0.2, 0.25, 0.3]
        assert about["class_names"] == ["road", "car", "sky"]
        assert about["input"] == {
            "name": "image", "dtype": "uint8", "layout": "NHWC", "channels": "RGB", "size": None
        }  # fmt: skip
        assert about["output"] == {"name": "labels", "kind": "label"}
        assert about["verified"]["images"] == 3
        assert about["verified"]["equal_labels"] > 0.999
        assert about["verified"]["miou_exported"] == pytest.approx(
            about["verified"]["miou_trained"], abs=1e-3
        )
        assert {"liteseg", "paddle"} <= set(about["versions"])

    def test_by_the_name_of_the_file(self, exported, trained, model_format):
        folder = exported(model_format)
        file = json.loads((folder / "liteseg.json").read_text())["file"]
        segmenter = Segmenter.from_pretrained(folder / file, threads=1)
        assert equal(segmenter.predict(picture(0)), trained.predict(picture(0))) > 0.999

    def test_one_size(self, run, trained, tmp_path, model_format, exported):
        exported(model_format)  # skips without the packages
        options = ("--format", model_format, "--input-size", 128, 96, "--output-kind", "softmax")
        assert call(run, tmp_path / "one", *options) == 0
        segmenter = Segmenter.from_pretrained(tmp_path / "one")
        image = picture(5, (96, 128))
        assert equal(segmenter.predict(image), trained.predict(image)) > 0.999
        output = segmenter.network.runtime.run(image[None], "probabilities")
        assert output.shape == (1, 3, 96, 128)
        np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-4)
        with pytest.raises(UserError, match="exported for 128x96; export it with"):
            segmenter.predict(picture(5, (97, 128)))


def test_openvino_runs_the_onnx_format_too(exported, trained):
    pytest.importorskip("openvino", reason="openvino is not installed: the extra `export`")
    segmenter = Segmenter.from_pretrained(exported("onnx"), runtime="openvino")
    assert type(segmenter.network.runtime).__name__ == "OpenVino"
    assert equal(segmenter.predict(picture(1)), trained.predict(picture(1))) > 0.999


def test_the_label_output_of_onnx_for_other_programs(exported, trained):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = ort.InferenceSession(str(exported("onnx") / "model.onnx"))
    assert [output.name for output in session.get_outputs()] == ["labels", "coarse"]
    found = session.run(["labels"], {"image": picture(2)[None]})[0]
    assert equal(found[0], trained.predict(picture(2))) > 0.999


def test_without_paddle(exported):
    """A machine that only deploys needs neither Paddle nor the training's files."""
    folder = exported("onnx")
    code = (
        "import sys; sys.modules['paddle'] = None\n"
        "import numpy as np, liteseg\n"
        f"segmenter = liteseg.Segmenter.from_pretrained({str(folder)!r})\n"
        "assert segmenter.predict(np.zeros((64, 96, 3), np.uint8)).shape == (64, 96)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_val_transforms_travel_and_are_undone(run, tmp_path):
    """Resized, padded and back: as the trained model does it."""
    steps = (
        "val_dataset.transforms=[{type: ResizeByLong, long_size: 120}, "
        "{type: Padding, target_size: [128, 96]}, {type: Normalize}]"
    )
    out = tmp_path / "out"
    plain = "test_config.aug_eval=false"
    assert call(run, out, "--format", "paddle", "--set", steps, "--set", plain) == 0
    exported = Segmenter.from_pretrained(out)
    from liteseg.config.load import load_config

    trained = Segmenter.from_pretrained(run, load_config(run / "config.yml", [steps, plain]))
    for size in ((70, 100), (50, 90)):
        assert equal(exported.predict(picture(0, size)), trained.predict(picture(0, size))) > 0.999


def test_an_export_that_disagrees_is_not_written(run, tmp_path, monkeypatch, capsys):
    from liteseg.deploy.graph import DeployGraph

    def with_another_mean(trained, kind):
        return DeployGraph(trained.network.model, [0.1] * 3, [0.5] * 3, 0.75, kind)

    monkeypatch.setattr(export, "_graph", with_another_mean)
    assert call(run, tmp_path / "out", "--format", "paddle") == 2
    said = capsys.readouterr()
    assert "does not agree with the trained one, so nothing was written" in said.err
    assert list(tmp_path.iterdir()) == []
    assert call(run, tmp_path / "out", "--format", "paddle", "--no-verify") == 0
    assert json.loads((tmp_path / "out" / "liteseg.json").read_text())["verified"] == {}


def test_an_earlier_export_is_replaced_and_other_folders_are_not(run, tmp_path, capsys):
    out = tmp_path / "out"
    for _ in range(2):
        assert call(run, out, "--format", "paddle", "--num-images", 1) == 0
    assert ".pdiparams" in {path.suffix for path in out.iterdir()}
    assert len(list(tmp_path.iterdir())) == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    assert call(run, other, "--format", "paddle") == 2
    assert "is not empty and holds no earlier export" in capsys.readouterr().err
    assert (other / "thesis.tex").exists()


def test_verified_with_given_images_or_drawn_ones(run, tmp_path, capsys):
    images = run.parent / "data"
    assert call(run, tmp_path / "a", "--format", "paddle", "--images", images / "0.png") == 0
    assert "verified on 1 images" in capsys.readouterr().out
    gone = "val_dataset.dataset_root=/nowhere"
    options = ("--set", gone, "--num-images", 1, "--input-size", 96, 64)
    assert call(run, tmp_path / "b", "--format", "paddle", *options) == 0
    said = capsys.readouterr().out
    assert "verifying with drawn streets" in said
    assert "mIoU" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "test_config.flip_horizontal=true"], "exported model makes one; choose it"),
        (["--set", "test_config.scales=[0.5, 1.0]"], "exported model makes one; choose it"),
        (["--int8"], "--int8 writes the openvino format, not paddle"),
        (["--images", "/nowhere.png"], "does not exist"),
    ],
)
def test_what_can_not_be_exported(run, tmp_path, capsys, arguments, message):
    assert call(run, tmp_path / "out", "--format", "paddle", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_are_needed(tmp_path, capsys):
    assert main(["export", "--format", "paddle", "--output", str(tmp_path / "out")]) == 2
    assert "--weights is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "openvino"}, "can't run the paddle format; expected paddle"),
        ({"runtime": "tensorrt"}, "expected paddle"),
        ({"precision": "int4"}, "expected one of fp32, bf16"),
        ({"precision": "bf16"}, "Paddle Inference computes in fp32"),
        ({"device": "tpu"}, "expected one of auto, cpu, gpu"),
        ({"config": "quickstart"}, "leave the config out"),
    ],
)
def test_what_a_runtime_does_not_do(exported, options, message):
    with pytest.raises(UserError, match=message):
        Segmenter.from_pretrained(exported("paddle"), **options)


def test_runtimes_are_for_exported_models(run):
    with pytest.raises(UserError, match="are for exported models; make one with"):
        Segmenter.from_pretrained(run, runtime="openvino")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.pop("scale"), "not the description of an exported model"),
        (lambda about: about.update(format="tflite"), "'tflite'; expected one of"),
        (lambda about: about.update(file="gone.onnx"), "gone.onnx is not beside it"),
    ],
)
def test_a_broken_description(exported, tmp_path, change, message):
    folder = tmp_path / "copy"
    shutil.copytree(exported("paddle"), folder)
    about = json.loads((folder / "liteseg.json").read_text())
    change(about)
    (folder / "liteseg.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=message):
        Segmenter.from_pretrained(folder)


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch):
    from liteseg.deploy.packages import need

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO needs the package openvino.*pip install"):
        need("openvino", "OpenVINO")


def test_help_names_the_options():
    import argparse

    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    given = parser.parse_args(["--format", "onnx", "--output", "o", "--weights", "w"])
    assert given.verify
    assert given.output_kind == "label"
