"""`liteseg.export`, and the exported models through `Segmenter`, in every format."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from filled_run import EXPORT_PACKAGES, draw

import liteseg
from liteseg.config.load import load_config
from liteseg.deploy import runtimes
from liteseg.errors import UserError
from liteseg.tasks import export as export_task
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.images import read_label


@pytest.fixture(scope="module")
def trained(filled_run):
    return Segmenter.from_pretrained(filled_run)


def export(run, folder, format="paddle", changes=(), **options):
    return liteseg.export(run, format, folder, overrides=changes, **options)


def equal(first, second):
    assert first.shape == second.shape
    assert first.dtype == second.dtype == np.uint8
    return (first == second).mean()


@pytest.mark.parametrize("format", EXPORT_PACKAGES)
class TestFormats:
    def test_labels_of_any_size_are_those_of_the_trained_model(self, exported, trained, format):
        segmenter = Segmenter.from_pretrained(exported(format))
        for i, size in enumerate([(70, 100), (64, 64), (97, 131)]):
            image = draw(i, size)
            assert equal(segmenter.predict(image), trained.predict(image)) > 0.999
        assert segmenter.class_names == trained.class_names
        np.testing.assert_array_equal(segmenter.palette, trained.palette)

    def test_probabilities_are_those_of_the_trained_model(self, exported, trained, format):
        segmenter = Segmenter.from_pretrained(exported(format))
        for i, size in enumerate([(70, 100), (97, 131)]):
            found, expected = (s.probabilities(draw(i, size)) for s in (segmenter, trained))
            assert (found.shape, found.dtype) == ((3, *size), np.float32)
            np.testing.assert_allclose(found, expected, atol=1e-3)

    def test_batches_of_mixed_sizes(self, exported, trained, format):
        segmenter = Segmenter.from_pretrained(exported(format))
        images = [draw(i, size) for i, size in enumerate([(64, 96), (70, 100), (64, 96)])]
        for found, image in zip(segmenter.predict_batch(images), images):
            assert equal(found, trained.predict(image)) > 0.999

    def test_the_manifest_contains_the_settings(self, exported, format):
        about = json.loads((exported(format) / "liteseg.json").read_text())
        assert about["format"] == format
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

    def test_loaded_by_the_name_of_the_file(self, exported, trained, format):
        folder = exported(format)
        file = json.loads((folder / "liteseg.json").read_text())["file"]
        segmenter = Segmenter.from_pretrained(folder / file, threads=1)
        assert equal(segmenter.predict(draw(0)), trained.predict(draw(0))) > 0.999

    def test_one_size(self, filled_run, trained, tmp_path, format, exported):
        exported(format)  # skips without the packages
        options = {"input_size": (128, 96), "output_kind": "softmax"}
        assert export(filled_run, tmp_path / "one", format, **options).input_size == (128, 96)
        segmenter = Segmenter.from_pretrained(tmp_path / "one")
        image = draw(5, (96, 128))
        assert equal(segmenter.predict(image), trained.predict(image)) > 0.999
        output = segmenter.network.runtime.run(image[None], "probabilities")
        assert output.shape == (1, 3, 96, 128)
        np.testing.assert_allclose(output.sum(axis=1), 1, atol=1e-4)
        with pytest.raises(UserError, match="exported for 128x96; export it with"):
            segmenter.predict(draw(5, (97, 128)))
        file = filled_run.parent / "data/0.png"
        skipped = liteseg.predict(file, tmp_path / "out", model=segmenter).skipped
        assert skipped[file].startswith(f"{file}: the image is 100x70, and the model was exported")


@pytest.mark.parametrize(
    ("format", "input_size"),
    [("paddle", None), ("onnx", None), ("openvino", None), ("openvino", (100, 70))],
)
def test_padded_inputs(filled_run, tmp_path, exported, format, input_size):
    """Evaluation, prediction and exports pad alike; the manifest records it."""
    exported(format)  # skips without the packages
    changes = ["test_config.pad_multiple=32"]
    about = export(filled_run, tmp_path / "padded", format, changes, input_size=input_size)
    assert about.verification["equal_labels"] > 0.999
    assert about.verification["equal_output"] > 0.999
    assert json.loads((about.output / "liteseg.json").read_text())["pad_multiple"] == 32
    trained = Segmenter.from_pretrained(filled_run, load_config(filled_run / "config.yml", changes))
    liteseg.evaluate(None, filled_run, overrides=changes, predictions=tmp_path / "evaluated")
    plain = Segmenter.from_pretrained(filled_run)
    for place in range(3):
        image = draw(place)
        predicted = trained.predict(image)
        evaluated = read_label(tmp_path / "evaluated" / f"{place}.png")
        np.testing.assert_array_equal(predicted, evaluated)
        opened = Segmenter.from_pretrained(about.output)
        assert equal(opened.predict(image), predicted) > 0.999
        probabilities = [one.probabilities(image) for one in (opened, trained)]
        np.testing.assert_allclose(*probabilities, atol=1e-3)
        assert equal(plain.predict(image), predicted) < 0.999


def test_openvino_runs_the_onnx_format_too(exported, trained):
    pytest.importorskip("openvino", reason="openvino is not installed: the extra `export`")
    segmenter = Segmenter.from_pretrained(exported("onnx"), runtime="openvino")
    assert type(segmenter.network.runtime).__name__ == "OpenVino"
    assert equal(segmenter.predict(draw(1)), trained.predict(draw(1))) > 0.999


def test_the_label_output_of_onnx_for_other_programs(exported, trained):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = ort.InferenceSession(str(exported("onnx") / "model.onnx"))
    assert [output.name for output in session.get_outputs()] == ["labels", "coarse"]
    found = session.run(["labels"], {"image": draw(2)[None]})[0]
    assert equal(found[0], trained.predict(draw(2))) > 0.999


def test_without_paddle(exported):
    """A machine that only deploys needs neither Paddle nor the files of the training."""
    folder = exported("onnx")
    code = (
        "import sys; sys.modules['paddle'] = None\n"
        "import numpy as np, liteseg\n"
        f"segmenter = liteseg.Segmenter.from_pretrained({str(folder)!r})\n"
        "assert segmenter.predict(np.zeros((64, 96, 3), np.uint8)).shape == (64, 96)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_val_transforms_are_applied_and_undone(filled_run, tmp_path):
    """Images are resized and padded, and labels brought back, as by the trained model."""
    changes = [
        "val_dataset.transforms=[{type: ResizeByLong, long_size: 120}, "
        "{type: Padding, target_size: [128, 96]}, {type: Normalize}]",
        "test_config.aug_eval=false",
    ]
    export(filled_run, tmp_path / "out", changes=changes)
    exported = Segmenter.from_pretrained(tmp_path / "out")
    cfg = liteseg.load_config(filled_run / "config.yml", changes)
    trained = Segmenter.from_pretrained(filled_run, cfg)
    for size in ((70, 100), (50, 90)):
        assert equal(exported.predict(draw(0, size)), trained.predict(draw(0, size))) > 0.999


def test_an_export_that_disagrees_is_not_written(filled_run, tmp_path, monkeypatch):
    from liteseg.deploy.graph import DeployGraph

    def with_another_mean(trained, kind):
        return DeployGraph(trained.network.model, [0.1] * 3, [0.5] * 3, 0.75, kind)

    monkeypatch.setattr(export_task, "_graph", with_another_mean)
    with pytest.raises(UserError, match="does not agree with the trained one, so nothing was"):
        export(filled_run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert export(filled_run, tmp_path / "out", verify=False).verification is None
    assert json.loads((tmp_path / "out" / "liteseg.json").read_text())["verified"] == {}


def test_verification_runs_on_the_cpu(filled_run, tmp_path, monkeypatch):
    """On a GPU, TF32 would differ from the trained model by more than the limit."""
    devices = []

    class Recording(runtimes.PaddleInference):
        def __init__(self, path, device, *options):
            devices.append(device)
            super().__init__(path, device, *options)

    monkeypatch.setitem(runtimes.RUNTIMES, "paddle", Recording)
    export(filled_run, tmp_path / "out", num_images=1)
    assert devices == ["cpu"]


def test_an_earlier_export_is_overwritten_and_other_folders_are_not(filled_run, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        export(filled_run, out, num_images=1)
    assert ".pdiparams" in {path.suffix for path in out.iterdir()}
    assert len(list(tmp_path.iterdir())) == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and contains no earlier export"):
        export(filled_run, other)
    assert (other / "thesis.tex").exists()


def test_verified_with_given_or_synthetic_images(filled_run, tmp_path, caplog):
    images = [filled_run.parent / "data" / "0.png"]
    assert export(filled_run, tmp_path / "a", images=images).verification["images"] == 1
    missing = ["val_dataset.dataset_root=/nowhere"]
    options = {"num_images": 1, "input_size": (96, 64)}
    found = export(filled_run, tmp_path / "b", changes=missing, **options).verification
    assert "verifying with synthetic streets" in caplog.text
    assert "miou_trained" not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"changes": ["test_config.flip_horizontal=true"]}, "exported model makes one; choose it"),
        ({"changes": ["test_config.scales=[0.5, 1.0]"]}, "exported model makes one; choose it"),
        ({"int8": True}, "--int8 writes the openvino format, not paddle"),
        ({"images": ["/nowhere.png"]}, "does not exist"),
        ({"format": "tflite"}, "'tflite' is unknown; expected one of paddle, onnx, openvino"),
    ],
)
def test_arguments_that_do_not_fit(filled_run, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        export(filled_run, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


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
def test_arguments_that_a_runtime_does_not_support(exported, options, message):
    with pytest.raises(UserError, match=message):
        Segmenter.from_pretrained(exported("paddle"), **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.pop("scale"), "not the description of an exported model"),
        (lambda about: about.update(format="tflite"), "'tflite'; expected one of"),
        (lambda about: about.update(file="gone.onnx"), "gone.onnx is not next to it"),
        (lambda about: about.update(file="../copy/model.json"), "file: not as an export"),
        (lambda about: about.update(file=["x"]), "not the description"),
        (lambda about: about.update(files=["../../x"]), "file: not as an export"),
        (lambda about: about.update(input=None), "not the description"),
        (lambda about: about["input"].update(size=[1]), "input: not as an export"),
        (lambda about: about["input"].update(size=[10**9, 64]), "input: not as an export"),
        (lambda about: about.update(output={"kind": "x"}), "output: not as an export"),
        (lambda about: about.update(mean=["a", 0, 0]), "mean, std or scale: not as an"),
        (lambda about: about.update(scale=float("nan")), "mean, std or scale: not as an"),
        (lambda about: about.update(scale=10**400), "mean, std or scale: not as an"),
        (lambda about: about.update(transforms={"a": 1}), "transforms: not as an export"),
        (lambda about: about.update(class_names=["a", "b", "\x1b[2J"]), "class_names: not as an"),
        (lambda about: about.update(palette=[[0, 0, 999]] * 3), "palette: not as an export"),
        (lambda about: about.update(palette=[[0]] * 3), "palette: not as an export"),
        (lambda about: about.update(palette=5), "not the description"),
    ],
)
def test_a_broken_manifest(exported, tmp_path, change, message):
    folder = Path(shutil.copytree(exported("paddle"), tmp_path / "copy"))
    about = json.loads((folder / "liteseg.json").read_text())
    change(about)
    (folder / "liteseg.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=message):
        Segmenter.from_pretrained(folder)


def test_a_missing_package_is_reported_with_its_pip_command(monkeypatch):
    from liteseg.deploy.packages import require

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"OpenVINO needs the package openvino.*pip install"):
        require("openvino", "OpenVINO")


def test_a_manifest_that_is_no_object_and_a_link_are_refused(exported, tmp_path):
    for content in ("[]", "[" * 100_000, "1", "", "\0"):
        (tmp_path / "liteseg.json").write_text(content)
        with pytest.raises(UserError, match="not the description"):
            Segmenter.from_pretrained(tmp_path)
    folder = Path(shutil.copytree(exported("paddle"), tmp_path / "copy"))
    (folder / "model.pdiparams").rename(tmp_path / "elsewhere")
    (folder / "model.pdiparams").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link to another folder"):
        Segmenter.from_pretrained(folder)


def content_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("foreign", ["thesis.tex", "photos/a.jpg", "data.json", "liteseg.py"])
def test_an_export_keeps_the_files_of_others(filled_run, exported, tmp_path, foreign):
    """`liteseg.json` alone does not make a folder one that may be replaced."""
    folder = tmp_path / "mine"
    shutil.copytree(exported("paddle"), folder)
    (folder / foreign).parent.mkdir(exist_ok=True)
    (folder / foreign).write_text("years of work")
    before = content_of(folder)
    with pytest.raises(UserError, match="which no export has written"):
        export(filled_run, folder)
    assert content_of(folder) == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "liteseg.json").write_text("{}")
    with pytest.raises(UserError, match="not the description"):
        export(filled_run, tmp_path / "empty")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("failing", ["first", "second"])
def test_the_old_export_is_restored(exported, tmp_path, monkeypatch, failing, error):
    """Ctrl-C between the two renames lost the old and the new export."""
    from liteseg.deploy.export import replacing

    folder = tmp_path / "mine"
    shutil.copytree(exported("paddle"), folder)
    before, rename = content_of(folder), Path.rename

    def interrupted(self, target):
        if Path(self).name == {"first": "mine", "second": "new"}[failing]:
            raise error
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(error), replacing(folder) as fresh:
            (fresh / "liteseg.json").write_text("{}")
    assert content_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
