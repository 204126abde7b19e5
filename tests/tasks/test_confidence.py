"""Confidence, temperature and thresholds: exports and predictions against the network's softmax."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import paddle
import pytest
from filled_run import EXPORT_PACKAGES, draw

import liteseg
from liteseg.cli import main
from liteseg.engine.inference import predict_scores
from liteseg.errors import UserError
from liteseg.tasks.confidence import parse_thresholds, temperature_of, thresholds_of
from liteseg.tasks.segmenter import Segmenter
from liteseg.utils.images import read_label

TEMPERATURE = 0.25
THRESHOLDS = {"road": 0.42, "": 0.48}


@pytest.fixture(scope="module")
def trained(filled_run):
    return Segmenter.from_pretrained(filled_run)


@pytest.fixture(scope="module")
def calibrated(filled_run):
    """Returns the folder of an export with temperature and thresholds; exports a format once."""
    folders = {}

    def export(format):
        for package in EXPORT_PACKAGES[format]:
            pytest.importorskip(package, reason=f"{package} is not installed: the extra `export`")
        if format not in folders:
            options = {"temperature": TEMPERATURE, "thresholds": THRESHOLDS}
            target = filled_run.parent / f"calibrated_{format}"
            kind = {"output_kind": "confidence"}
            folders[format] = liteseg.export(filled_run, format, target, **kind, **options).output
        return folders[format]

    return export


def softmax_of(trained, image, temperature=1.0):
    """(C, H, W) probabilities by numpy from the logits of the Paddle network."""
    network = trained.trained_network
    batch = network.normalize.batch(paddle.to_tensor(image[None]))
    logits = predict_scores(network.model, batch, network.test)[0].numpy() / temperature
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


@pytest.mark.parametrize("format", EXPORT_PACKAGES)
class TestExports:
    def test_the_graph_gives_labels_and_calibrated_confidence(self, calibrated, trained, format):
        folder = calibrated(format)
        about = json.loads((folder / "liteseg.json").read_text())
        assert about["output"] == {"name": "labels_confidence", "kind": "confidence"}
        assert about["temperature"] == TEMPERATURE
        assert about["thresholds"] == [0.42, 0.48, 0.48]
        assert about["verified"]["confidence_difference"] < 0.003
        runtime = Segmenter.from_pretrained(folder).network.runtime
        for place, size in enumerate([(70, 100), (97, 131)]):
            image = draw(place, size)
            found = runtime.run(image[None], "labels_confidence")
            assert (found.shape, found.dtype) == ((1, 2, *size), np.uint8)
            assert (found[0, 0] == trained.predict(image)).mean() > 0.999
            expected = 255 * softmax_of(trained, image, TEMPERATURE).max(axis=0)
            np.testing.assert_allclose(found[0, 1], expected, atol=0.6)

    def test_the_segmenter_gives_calibrated_probabilities(self, calibrated, trained, format):
        segmenter = Segmenter.from_pretrained(calibrated(format))
        image = draw(1, (97, 131))
        expected = softmax_of(trained, image, TEMPERATURE)
        np.testing.assert_allclose(segmenter.probabilities(image), expected, atol=1e-3)
        labels, confidence = segmenter.predict_with_confidence(image)
        np.testing.assert_allclose(confidence, expected.max(axis=0), atol=1e-3)
        assert confidence.dtype == np.float32
        lowest = np.array([0.42, 0.48, 0.48])
        known = expected.max(axis=0) >= lowest[expected.argmax(axis=0)]
        assert 0.05 < known.mean() < 0.95
        wanted = np.where(known, trained.predict(image), 255)
        assert (labels == wanted).mean() > 0.99
        np.testing.assert_array_equal(segmenter.predict(image), labels)
        segmenter.thresholds = None
        assert (segmenter.predict(image) == trained.predict(image)).mean() > 0.999


@pytest.mark.parametrize("kind", ["logits", "softmax"])
def test_other_outputs_of_the_graph_include_the_temperature(filled_run, trained, tmp_path, kind):
    options = {"temperature": TEMPERATURE, "output_kind": kind, "num_images": 1}
    folder = liteseg.export(filled_run, "paddle", tmp_path / "out", **options).output
    name = {"logits": "logits", "softmax": "probabilities"}[kind]
    found = Segmenter.from_pretrained(folder).network.runtime.run(draw(0)[None], name)[0]
    if kind == "logits":
        found = np.exp(found) / np.exp(found).sum(axis=0)
    np.testing.assert_allclose(found, softmax_of(trained, draw(0), TEMPERATURE), atol=1e-3)


def test_a_graph_with_another_temperature_is_not_written(filled_run, tmp_path, monkeypatch):
    from liteseg.tasks import export as task

    def without(trained, kind):
        graph = original(trained, kind)
        graph.temperature = 1.0
        return graph

    original = task._graph
    monkeypatch.setattr(task, "_graph", without)
    monkeypatch.setattr(task, "_describe", lambda *a, f=task._describe: f(*a))
    options = {"temperature": TEMPERATURE, "output_kind": "confidence", "num_images": 1}
    with pytest.raises(UserError, match="probabilities differ by 0"):
        liteseg.export(filled_run, "paddle", tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_several_views_and_sizes(filled_run, streets_config):
    """The confidence is that of the mean probability of all views, at the original size."""
    changes = ["test_config.scales=[0.5, 1.0]", "test_config.flip_horizontal=true"]
    cfg = liteseg.load_config(filled_run / "config.yml", changes)
    segmenter = Segmenter.from_pretrained(filled_run, cfg)
    image = draw(2)
    probabilities = segmenter.probabilities(image)
    labels, confidence = segmenter.predict_with_confidence(image)
    np.testing.assert_allclose(confidence, probabilities.max(axis=0), atol=1e-5)
    np.testing.assert_array_equal(labels, segmenter.predict(image))
    assert (labels == probabilities.argmax(axis=0)).mean() > 0.999


def test_predict_writes_confidence_and_unknown_pixels(filled_run, trained, calibrated, tmp_path):
    file = filled_run.parent / "data" / "0.png"
    out = tmp_path / "out"
    command = ["predict", str(file), "--weights", str(filled_run), "--output", str(out)]
    assert main([*command, "--what", "confidence"]) == 0
    assert [path.name for path in out.iterdir()] == ["0_confidence.png"]
    found = cv2.imread(str(out / "0_confidence.png"), cv2.IMREAD_UNCHANGED)
    probabilities = softmax_of(trained, draw(0))
    np.testing.assert_allclose(found, 255 * probabilities.max(axis=0), atol=0.6)

    limit = float(np.median(probabilities.max(axis=0)))
    assert main([*command, "--what", "mask", "--unknown-below", str(limit)]) == 0
    labels = read_label(out / "0_label.png")
    expected = np.where(probabilities.max(axis=0) < limit, 255, probabilities.argmax(axis=0))
    assert (labels == expected).mean() > 0.99
    # An export's own thresholds, and a limit that replaces them.
    model = ["predict", str(file), "--model", str(calibrated("paddle")), "--output", str(out)]
    assert main([*model, "--what", "mask"]) == 0
    own = read_label(out / "0_label.png")
    np.testing.assert_array_equal(own, Segmenter.from_pretrained(model[3]).predict(file))
    assert 255 in own
    assert main([*model, "--what", "mask", "--unknown-below", "0"]) == 0
    assert 255 not in read_label(out / "0_label.png")
    assert main([*model, "--what", "overlay"]) == 0  # unknown pixels keep those of the image


def test_confidence_of_frames(filled_run, trained, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for place in range(2):
        cv2.imwrite(str(frames / f"{place:02d}.png"), draw(place)[..., ::-1])
    out = tmp_path / "out"
    liteseg.predict(frames / "%02d.png", out, model=trained, what="confidence")
    found = sorted(out.rglob("*.png"))
    assert [path.parent.name for path in found] == ["frames_confidence"] * 2
    expected = 255 * softmax_of(trained, draw(1)).max(axis=0)
    np.testing.assert_allclose(cv2.imread(str(found[1]), -1), expected, atol=0.6)


def test_exports_of_earlier_versions(exported, trained, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(exported("paddle"), folder)
    about = json.loads((folder / "liteseg.json").read_text())
    assert about.pop("temperature") == 1
    assert about.pop("thresholds") == []
    (folder / "liteseg.json").write_text(json.dumps(about))
    segmenter = Segmenter.from_pretrained(folder)
    expected = softmax_of(trained, draw(0))
    np.testing.assert_allclose(segmenter.probabilities(draw(0)), expected, atol=1e-3)
    assert segmenter.thresholds is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "temperature: not as an export"),
        ({"temperature": "1"}, "temperature: not as an export"),
        ({"thresholds": [0.5]}, "thresholds: not as an export"),
        ({"thresholds": [0.5, 0.5, 2]}, "thresholds: not as an export"),
    ],
)
def test_a_broken_manifest(exported, tmp_path, change, message):
    folder = tmp_path / "copy"
    shutil.copytree(exported("paddle"), folder)
    about = json.loads((folder / "liteseg.json").read_text())
    (folder / "liteseg.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(UserError, match=message):
        Segmenter.from_pretrained(folder)


def test_temperatures_and_thresholds_as_given(tmp_path):
    file = tmp_path / "eval.json"
    file.write_text(json.dumps({"miou": 0.5, "calibration": {"temperature": 1.25}}))
    assert temperature_of("1.5") == 1.5
    assert temperature_of(file) == 1.25
    names = ["road", "car=a", "sky"]
    assert thresholds_of(parse_thresholds(["car=a=0.5", "0.2"]), names) == [0.2, 0.5, 0.2]
    assert thresholds_of(parse_thresholds([]), names) == []
    assert thresholds_of(0.3, names) == [0.3] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "0"], "--temperature: 0.0; expected a number from 0.05 to 20"),
        (["--temperature", "nan"], "--temperature: nan; expected a number from"),
        (["--temperature", "{tmp}/gone.json"], "no number, and no file with calibration.temper"),
        (["--temperature", "{tmp}/plain.json"], "(KeyError: 'calibration'); give a number, or a"),
        (["--temperature", "{tmp}/text.json"], "temperature': 'x'"),
        (["--threshold", "Car=0.5"], "no class is named 'Car'; the classes are road, car, sky"),
        (["--threshold", "car=1.5"], "--threshold: 1.5 is not a probability"),
        (["--threshold", "car"], "give CLASS=P or P, such as Car=0.6"),
        (["--threshold", "nan"], "--threshold: nan is not a probability"),
    ],
)
def test_bad_values_of_an_export(filled_run, tmp_path, capsys, arguments, message):
    (tmp_path / "plain.json").write_text('{"miou": 1}')
    (tmp_path / "text.json").write_text('{"calibration": {"temperature": "x"}}')
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    out = tmp_path / "out"
    base = ["export", "--weights", str(filled_run), "--format", "paddle", "--output", str(out)]
    assert main([*base, *given]) == 2
    error = capsys.readouterr().err
    assert message.replace("temperature': ", "text.json: ") in error
    assert "Traceback" not in error
    assert not out.exists()


def test_a_bad_limit_of_a_prediction(filled_run, tmp_path, capsys):
    file = str(filled_run.parent / "data" / "0.png")
    out = tmp_path / "out"
    command = ["predict", file, "--weights", str(filled_run), "--output", str(out)]
    assert main([*command, "--unknown-below", "40"]) == 2
    assert (
        "--unknown-below: 40.0 is not a probability; expected a number" in capsys.readouterr().err
    )
    assert not out.exists()
