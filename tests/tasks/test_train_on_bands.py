"""Five bands of 12 bits from training to prediction and exports, and a gray network."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

import liteseg
from liteseg.config.check import check
from liteseg.config.load import load_config
from liteseg.errors import UserError
from liteseg.models import STDC1

BANDS, WHITE = 5, 4095
CHANNELS = [5, 1, 3, 2]


def write(root, count=4):
    """Arrays whose fifth band alone tells the two classes apart; others are noise."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for index in range(count):
        label = np.zeros((64, 96), np.uint8)
        label[10 + index : 50, 20:70] = 1
        image = rng.integers(0, WHITE, (64, 96, BANDS)).astype(np.uint16)
        image[..., 4] = np.where(label == 1, 3500, 500)
        np.save(root / f"i{index}.npy", image)
        cv2.imwrite(str(root / f"l{index}.png"), label)
    (root / "list.txt").write_text("".join(f"i{i}.npy l{i}.png\n" for i in range(count)))
    return root


def config(tmp_path, root, in_channels=4, transforms="", normalize="max_value: 4095"):
    data = f"type: Dataset, dataset_root: {root}, num_classes: 2, channels: {CHANNELS}"
    end = f"{{type: Normalize, {normalize}}}"
    path = tmp_path / "c.yml"
    path.write_text(f"""
batch_size: 2
iters: 40
num_workers: 0
eval_interval: 40
num_pictures: 1
model: {{type: PPLiteSeg, backbone: {{type: STDC1, init: kaiming, in_channels: {in_channels}}}}}
train_dataset: {{{data}, mode: train, train_path: list.txt, transforms: [
  {transforms} {{type: RandomPaddingCrop, crop_size: [96, 80]}}, {end}]}}
val_dataset: {{{data}, mode: val, val_path: list.txt, transforms: [{end}]}}
test_config: {{pad_multiple: 32}}
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.005}}
loss: {{types: [{{type: CrossEntropyLoss}}]}}
""")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("bands")
    root = write(tmp_path / "data")
    jitter = "{type: RandomDistort, saturation_prob: 0, hue_prob: 0},"
    path = config(tmp_path, root, transforms=jitter)
    return liteseg.train(path, output=tmp_path / "run"), root, path


def test_it_learns_from_the_band(trained):
    result, *_ = trained
    assert result.best_miou > 0.8


def test_evaluation_equals_prediction(trained, tmp_path):
    result, root, path = trained
    miou = liteseg.evaluate(path, result.output).metrics["miou"]
    (tmp_path / "arrays").mkdir()
    for i in range(4):
        (tmp_path / "arrays" / f"i{i}.npy").symlink_to(root / f"i{i}.npy")
    liteseg.predict(tmp_path / "arrays", tmp_path / "out", weights=result.output)
    matrix = liteseg.ConfusionMatrix(2)
    for index in range(4):
        predicted = np.asarray(Image.open(tmp_path / "out" / f"i{index}_label.png"))
        matrix.update(predicted, cv2.imread(str(root / f"l{index}.png"), 0))
        overlay = np.asarray(Image.open(tmp_path / "out" / f"i{index}_overlay.png"))
        assert overlay.shape[2] == 3
    assert matrix.compute()["miou"] == pytest.approx(miou, abs=1e-12)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_exports_have_the_same_labels(trained, tmp_path, format):
    pytest.importorskip("paddle2onnx")
    result, root, _ = trained
    export = liteseg.export(result.output, format, tmp_path / "model")
    trained_one = liteseg.Segmenter.from_pretrained(result.output)
    exported = liteseg.Segmenter.from_pretrained(export.output)
    assert exported.bands == CHANNELS
    for index in range(4):
        path = root / f"i{index}.npy"
        expected = trained_one.predict(path)
        assert np.mean(exported.predict(path) == expected) > 0.998
        pixels = np.load(path)[..., [4, 0, 2, 1]]
        np.testing.assert_array_equal(exported.predict(pixels), exported.predict(path))
    with pytest.raises(ValueError, match=r"expected an array \(H, W, 4\) or a path"):
        exported.predict(np.zeros((64, 96, 5), np.float32))


def test_packs_have_the_same_values(trained, tmp_path):
    from liteseg.tasks.data import pack_data

    _, _, path = trained
    pack_data(path, tmp_path / "pack", verify=True)
    cfg = load_config(path, [f"train_dataset.pack={tmp_path / 'pack'}"])
    packed, plain = (liteseg.build_dataset(one, "train") for one in (cfg, load_config(path)))
    for index in range(4):
        for key in ("img", "label"):
            np.testing.assert_array_equal(packed.load(index)[key], plain.load(index)[key])
    assert packed.load(0)["img"].dtype == np.float32
    with pytest.raises(UserError, match=r"made with bands \[5, 1, 3, 2\], the config has \[1, 2"):
        liteseg.build_dataset(cfg.changed(["train_dataset.channels=[1, 2, 3, 4]"]), "train")


def test_data_check_prints_the_normalization(trained):
    from liteseg.tasks.data import check_data

    _, root, path = trained
    report = check_data(path, split="train")
    assert report.ok
    images = np.stack([np.load(root / f"i{i}.npy")[..., [4, 0, 2, 1]] for i in range(4)]) / WHITE
    found = report.splits["train"]["normalize"]
    np.testing.assert_allclose(found["mean"], images.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(found["std"], images.std(axis=(0, 1, 2)), atol=1e-4)
    assert found["max_value"] == WHITE
    without = ["train_dataset.transforms.2.max_value=255"]
    unset = check_data(path, overrides=without, split="train")
    warnings = unset.splits["train"]["warnings"]
    assert any("above max_value 255 of Normalize" in warning for warning in warnings)


def test_numbers_of_channels_that_differ(trained, tmp_path):
    _, root, _ = trained
    problems = check(load_config(config(tmp_path, root, in_channels=3)))
    message = "train_dataset: has images of 4 channels, expected 3 as model.backbone.in_channels"
    assert any(message in problem for problem in problems)
    path = config(tmp_path, root, normalize="mean: [0.5, 0.4], std: [0.5, 0.5]")
    with pytest.raises(UserError, match="mean has 2 values for images with 4 channels"):
        liteseg.train(path, output=tmp_path / "run")
    path = config(tmp_path, root, transforms="{type: RandomDistort},")
    with pytest.raises(UserError, match="saturation and hue need 8-bit RGB"):
        liteseg.train(path, output=tmp_path / "run2")


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_pretrained_weights_of_three_channels(channels, tmp_path):
    """Equal channels give the features of the published encoder, in scale."""
    import paddle

    published = STDC1(init="kaiming")
    paddle.save(published.state_dict(), str(tmp_path / "w.pdparams"))
    adapted = STDC1(pretrained=str(tmp_path / "w.pdparams"), in_channels=channels)
    old, new = (net.features[0].conv.weight.numpy() for net in (published, adapted))
    assert new.shape == (32, channels, 3, 3)
    if channels == 1:
        np.testing.assert_allclose(new[:, 0], old.sum(axis=1), rtol=1e-5, atol=1e-6)
    for index in range(channels if channels > 1 else 0):
        expected = old[:, index] if index < 3 else old.mean(axis=1)
        np.testing.assert_allclose(new[:, index], expected, rtol=1e-5, atol=1e-6)


def test_weights_of_another_number_of_channels_are_not_evaluated(trained, tmp_path):
    result, root, _ = trained
    path = config(tmp_path, root)
    text = path.read_text().replace(f"in_channels: {len(CHANNELS)}", "in_channels: 2")
    path.write_text(text.replace(f"channels: {CHANNELS}", "channels: [5, 1]"))
    with pytest.raises(UserError, match="does not fit PPLiteSeg"):
        liteseg.evaluate(path, result.output)
