"""The README's examples, run as they are written."""

from __future__ import annotations

import json
import re
import shlex

import cv2
import numpy as np
import paddle
import pytest
from conftest import ROOT

import liteseg
from liteseg.cli import main
from liteseg.config.plugins import load_components
from liteseg.datasets.streets.generate import generate
from liteseg.registry import DATASETS, LOSSES, MODELS, TRANSFORMS
from liteseg.utils.weights.load import read_pdparams

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(start: str) -> str:
    """The code block whose first line begins with `start`."""
    (found,) = re.findall(rf"```\w*\n({re.escape(start)}.*?)```", README, re.DOTALL)
    return found


def last_line(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def draw(folder, count, seed):
    """Photos of three bands, ground, plant and sky, as JPEG, and their labels as PNG."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    colours = np.array([(90, 60, 70), (40, 140, 60), (220, 170, 90)], np.uint8)
    for index in range(count):
        rows = np.linspace(2.9, 0, 64) + rng.normal(0, 0.1)
        label = np.broadcast_to(np.clip(rows, 0, 2).astype(np.uint8)[:, None], (64, 128)).copy()
        image = colours[label] + rng.integers(0, 30, (64, 128, 1), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{index}.jpg"), image)
        assert cv2.imwrite(str(folder / f"{index}.png"), label)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The README's plugin and config in the current folder, with photos."""
    load_components()
    for registry in (MODELS, LOSSES, DATASETS, TRANSFORMS):  # forget the plugin's afterwards
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(block("# mine.py"), encoding="utf-8")
    (tmp_path / "mine.yml").write_text(block("# mine.yml"), encoding="utf-8")
    for seed, split in enumerate(("train", "val")):
        draw(tmp_path / "data" / "photos" / split, 4, seed)
    return tmp_path / "mine.py"


def train(*changes):
    changes = [part for change in changes for part in ("--set", change)]
    return main(["train", "--config", "mine.yml", "--output", "run", *changes])


def test_the_plugin_trains(plugin):
    assert train("iters=2", "num_workers=1") == 0
    found = last_line(plugin.parent / "run")
    assert set(found["class_iou"]) == {"ground", "plant", "sky"}
    weights = read_pdparams(plugin.parent / "run/checkpoints/last/model.pdparams")
    assert weights["seg_heads.0.classify.weight"].shape == (3, 32, 1, 1)


def test_what_the_plugin_computes(plugin):
    load_components(["mine.py"])
    rng = np.random.default_rng(0)
    logits = paddle.to_tensor(rng.normal(size=(2, 3, 4, 5)).astype("float32"))
    label = paddle.to_tensor(rng.integers(0, 3, (2, 4, 5)))
    probability = paddle.nn.functional.softmax(logits, axis=1).numpy()
    hit = np.take_along_axis(probability, label.numpy()[:, None], axis=1)
    loss = LOSSES["FocalLoss"](gamma=2.0)(logits, label)
    np.testing.assert_allclose(float(loss), np.mean(-np.log(hit) * (1 - hit) ** 2), rtol=1e-5)
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    grey = TRANSFORMS["RandomGrey"](prob=1.0)({"img": image}, rng)["img"]
    assert (grey == grey[..., :1]).all()


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("        return self.classify(", "        return self.absent("),  # a layer, in a step
        ("        if rng.random()", "        if rng.absent()"),  # in a reader process
        ("        images = sorted(", "        images = self.absent("),  # a constructor
    ],
)
def test_an_error_in_the_plugin_has_its_line(plugin, capfd, line, broken):
    code = plugin.read_text(encoding="utf-8")
    assert code.count(line) == 1
    plugin.write_text(code.replace(line, broken), encoding="utf-8")
    assert train("iters=1", "num_workers=1") == 2
    number = code[: code.index(line)].count("\n") + 1
    told = capfd.readouterr().err.strip().splitlines()[-1]
    assert f"{plugin}:{number}: AttributeError: " in told
    assert "absent" in told


def test_the_python_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generate("data/streets", train=6, val=2, size=(128, 64), progress=False)
    section = README.partition("## In Python\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 5
    names = {}
    for code in blocks:
        exec(compile(code.replace("iters=20", "iters=2"), "README.md", "exec"), names)
    assert names["problems"] == []
    assert len(names["Watch"].losses) == names["trainer"].iteration == 2
    assert all(np.isfinite(names["Watch"].losses))
    assert names["worst"] in names["validation"].classes
    assert names["labels"].shape == (64, 128)
    assert cv2.imread("overlay.png").shape == (64, 128, 3)
    # Without mirroring the network is the same: so are the figures, by another way.
    plain = liteseg.evaluate(names["trainer"].model, names["validation"], liteseg.TestConfig())
    assert names["matrix"].compute()["miou"] == pytest.approx(plain["miou"], abs=2e-3)


def test_own_data_from_the_text_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "shapes"
    rng = np.random.default_rng(0)
    colours = np.array([(40, 40, 40), (30, 30, 200), (200, 30, 30), (255, 255, 255)], np.uint8)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "masks" / split).mkdir(parents=True)
        for index in range(4):
            mask = np.zeros((64, 128), np.uint8)
            for kind in (1, 2, 3):
                y, x = rng.integers(0, (44, 100))
                mask[y : y + 20, x : x + 28] = kind
            image = colours[mask] // 2 + rng.integers(0, 60, (64, 128, 1), dtype=np.uint8)
            assert cv2.imwrite(str(root / "images" / split / f"{index}.jpg"), image)
            assert cv2.imwrite(str(root / "masks" / split / f"{index}_mask.png"), colours[mask])
    (root / "colours.txt").write_text(block("# data/shapes/colours.txt"), encoding="utf-8")
    config = block("# shapes.yml")
    assert len(config.splitlines()) <= 13
    (tmp_path / "shapes.yml").write_text(config.replace("iters: 300", "iters: 2"), encoding="utf-8")
    for command in block("liteseg data check --config shapes.yml").splitlines():
        assert main(shlex.split(command)[1:]) == 0, command
    assert set(last_line(tmp_path / "output" / "shapes")["class_iou"]) == {"ground", "box", "ball"}
    assert len(list((tmp_path / "pictures").rglob("*.png"))) >= 4
    segmenter = liteseg.Segmenter.from_pretrained("exported")
    assert segmenter.class_names == ("ground", "box", "ball")
    np.testing.assert_array_equal(segmenter.palette[1], (200, 30, 30))


def test_every_public_name_is_there():
    for name in liteseg.__all__:
        assert getattr(liteseg, name).__doc__ or name == "__version__"
