"""The examples of the documents, run as they are written."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from documents import ROOT, block, section, text_of
from tiny_export import make_export

import liteseg
from liteseg import cli
from liteseg.cli import main
from liteseg.config.plugins import load_components
from liteseg.datasets.streets.generate import generate
from liteseg.engine.evaluator import evaluate
from liteseg.registry import BACKBONES, DATASETS, LOSSES, MODELS, TRANSFORMS
from liteseg.utils.weights.load import read_pdparams

INSIDE = "liteseg/README.md"
PLUGINS = ("backbone.py", "head.py", "loss.py", "dataset.py", "transform.py")


def execute(code, **changes):
    """The names that a block of code leaves behind; `changes` are replacements in its text."""
    for old, new in changes.values():
        assert code.count(old) == 1
        code = code.replace(old, new)
    names: dict = {}
    exec(compile(code, "document", "exec"), names)
    return names


FEWER = {"iterations": ('"iters=20"', '"iters=2", "batch_size=1"')}


def last_line(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.fixture
def streets(tmp_path, monkeypatch):
    """A current folder with a small Streets in data/streets."""
    monkeypatch.chdir(tmp_path)
    generate("data/streets", train=6, val=2, size=(128, 64), progress=False)
    return tmp_path


# liteseg/README.md: components


def draw(folder, count, seed):
    """Photos of three bands, ground, plant and sky, as JPEG, and their labels as PNG."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    colors = np.array([(90, 60, 70), (40, 140, 60), (220, 170, 90)], np.uint8)
    for index in range(count):
        rows = np.linspace(2.9, 0, 64) + rng.normal(0, 0.1)
        label = np.broadcast_to(np.clip(rows, 0, 2).astype(np.uint8)[:, None], (64, 128)).copy()
        image = colors[label] + rng.integers(0, 30, (64, 128, 1), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{index}.jpg"), image)
        assert cv2.imwrite(str(folder / f"{index}.png"), label)


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """A current folder with the plugins and the config of liteseg/README.md, and photos."""
    load_components()
    for registry in (BACKBONES, MODELS, LOSSES, DATASETS, TRANSFORMS):  # forget them afterwards
        monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.chdir(tmp_path)
    for name in (*PLUGINS, "mine.yml"):
        (tmp_path / name).write_text(block(INSIDE, f"# {name}"), encoding="utf-8")
    for seed, split in enumerate(("train", "val")):
        draw(tmp_path / "data" / "photos" / split, 4, seed)
    return tmp_path


def train(*changes):
    changes = [part for change in changes for part in ("--set", change)]
    return main(["train", "--config", "mine.yml", "--output", "run", *changes])


def test_the_plugins_train(plugins):
    assert main(["config", "check", "mine.yml"]) == 0
    assert train("iters=2", "num_workers=1") == 0
    assert set(last_line(plugins / "run")["class_iou"]) == {"ground", "plant", "sky"}
    weights = read_pdparams(plugins / "run/checkpoints/last/model.pdparams")
    assert weights["seg_heads.0.classify.weight"].shape == (3, 32, 1, 1)
    assert weights["backbone.stages.4.0.weight"].shape == (128, 64, 3, 3)


def test_results_of_the_plugins(plugins):
    load_components(PLUGINS)
    rng = np.random.default_rng(0)
    logits = paddle.to_tensor(rng.normal(size=(2, 3, 4, 5)).astype("float32"))
    label = paddle.to_tensor(rng.integers(0, 3, (2, 4, 5)))
    probability = paddle.nn.functional.softmax(logits, axis=1).numpy()
    hit = np.take_along_axis(probability, label.numpy()[:, None], axis=1)
    loss = LOSSES["FocalLoss"](gamma=2.0)(logits, label)
    np.testing.assert_allclose(float(loss), np.mean(-np.log(hit) * (1 - hit) ** 2), rtol=1e-5)
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    gray = TRANSFORMS["RandomGray"](prob=1.0)({"img": image}, rng)["img"]
    assert (gray == gray[..., :1]).all()
    encoder = BACKBONES["PlainNet"](width=4)
    sizes = [feature.shape for feature in encoder(paddle.zeros([1, 3, 50, 33]))]
    assert [size[1] for size in sizes] == list(encoder.feat_channels)
    assert [size[2:] for size in sizes] == [[25, 17], [13, 9], [7, 5], [4, 3], [2, 2]]


@pytest.mark.parametrize(
    ("name", "line", "broken"),
    [
        ("head.py", "        return self.classify(", "        return self.absent("),  # in a layer
        ("transform.py", "        if rng.random()", "        if rng.absent()"),  # in a worker
        ("dataset.py", "        images = sorted(", "        images = self.absent("),
    ],
)
def test_an_error_in_a_plugin_has_its_line(plugins, capfd, name, line, broken):
    plugin = plugins / name
    code = plugin.read_text(encoding="utf-8")
    assert code.count(line) == 1
    plugin.write_text(code.replace(line, broken), encoding="utf-8")
    assert train("iters=1", "num_workers=1") == 2
    number = code[: code.index(line)].count("\n") + 1
    reported = capfd.readouterr().err.strip().splitlines()[-1]
    assert f"{plugin}:{number}: AttributeError: " in reported
    assert "absent" in reported


# liteseg/README.md: the rest


def test_an_image_becomes_a_loss_by_hand(streets):
    names = execute(block(INSIDE, "# by_hand.py"))
    assert names["images"].shape == [1, 3, 192, 384]
    assert [list(logits.shape) for logits in names["heads"]] == [[1, 9, 192, 384]] * 3
    assert np.isfinite(float(names["total"]))
    assert all(p.grad is not None for p in names["model"].parameters() if p.trainable)


def test_the_hook(streets):
    changes = {"target": ("target=0.5", "target=0.0"), "interval": ("interval=10", "interval=1")}
    names = execute(block(INSIDE, "# stop_at.py"), **changes, **FEWER)
    assert [iteration for iteration, _ in names["hook"].history] == [1]
    assert names["result"].iteration == 1
    assert names["result"].stop_reason == f"mIoU {names['result'].best_miou:.3f} is at least 0.0"
    log = (streets / "output/stopped/train.log").read_text()
    assert names["result"].stop_reason in log


def test_the_command(streets, capsys, monkeypatch):
    for path in ("liteseg/tasks/count.py", "liteseg/cli/count.py"):
        code = block(INSIDE, f"# {path}")
        name = path[:-3].replace("/", ".")
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, path, "exec"), module.__dict__)
        parent = importlib.import_module(name.rpartition(".")[0])
        monkeypatch.setattr(parent, "count", module, raising=False)
        assert module.__doc__
    entry = re.search(r'`"count": "(.*?)"` in `COMMANDS`', text_of(INSIDE))
    monkeypatch.setitem(cli.COMMANDS, "count", entry[1])
    assert main(["count", "--config", "quickstart"]) == 0
    count = int(capsys.readouterr().out.split()[0].replace(",", ""))
    network = liteseg.build_model(liteseg.load_config("quickstart"))
    assert count == sum(p.size for p in network.parameters() if p.trainable)
    assert main(["count", "--config", "quickstart", "--set", "model.cm_out_ch=64"]) == 0
    assert int(capsys.readouterr().out.split()[0].replace(",", "")) < count
    with pytest.raises(SystemExit):
        main(["count", "--help"])
    assert "liteseg count --config quickstart" in capsys.readouterr().out


def test_the_new_command_keeps_the_import_rules(tmp_path, monkeypatch):
    import test_imports

    monkeypatch.setattr(test_imports, "PACKAGE", tmp_path / "liteseg")
    for path in ("liteseg/tasks/count.py", "liteseg/cli/count.py"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block(INSIDE, f"# {path}"), encoding="utf-8")
        assert test_imports.breaches(file) == []


def test_the_parts_from_python(streets):
    names = execute(block(INSIDE, "# parts.py"), **FEWER)
    assert names["problems"] == []
    assert names["trainer"].iteration == 2
    assert names["worst"] in names["validation"].classes
    assert names["labels"].shape == (64, 128)
    assert cv2.imread("overlay.png").shape == (64, 128, 3)
    # Without mirroring the network is the same, and so are the metrics computed in another way.
    plain = evaluate(names["trainer"].model, names["validation"], liteseg.TestConfig())
    assert names["matrix"].compute()["miou"] == pytest.approx(plain["miou"], abs=2e-3)


# README.md and liteseg/datasets/README.md


def test_python_in_the_readme(streets):
    names = execute(block("README.md", "import liteseg"), **FEWER)
    assert (streets / "output/try/checkpoints/best/model.pdparams").is_file()
    assert 0 <= names["result"].miou <= 1
    assert len(list((streets / "predictions").rglob("*.png"))) >= 2
    loop = execute(block("README.md", "# loop.py"), batch=("batch_size=4", "batch_size=2"))
    assert loop["labels"].shape == (64, 128)
    assert np.isfinite(float(loop["loss"]))
    labels = names["segmenter"].predict(np.zeros((64, 128, 3), np.uint8))
    assert labels.shape == (64, 128)
    assert labels.dtype == np.uint8
    # The run directory as the table describes it.
    rows = re.findall(r"^\| (`.*?`) \|", section("README.md", "Train"), re.MULTILINE)
    files = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)} - {
        "best"
    }
    assert {"config.yml", "train.log", "metrics.jsonl", "report.html", "vdl"} <= files
    assert [name for name in files if not (names["run"].output / name).exists()] == []


def test_own_data_from_the_text_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "shapes"
    rng = np.random.default_rng(0)
    colors = np.array([(40, 40, 40), (30, 30, 200), (200, 30, 30), (255, 255, 255)], np.uint8)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "masks" / split).mkdir(parents=True)
        for index in range(4):
            mask = np.zeros((64, 128), np.uint8)
            for kind in (1, 2, 3):
                y, x = rng.integers(0, (44, 100))
                mask[y : y + 20, x : x + 28] = kind
            image = colors[mask] // 2 + rng.integers(0, 60, (64, 128, 1), dtype=np.uint8)
            assert cv2.imwrite(str(root / "images" / split / f"{index}.jpg"), image)
            assert cv2.imwrite(str(root / "masks" / split / f"{index}_mask.png"), colors[mask])
    data = "liteseg/datasets/README.md"
    (root / "colors.txt").write_text(block(data, "# data/shapes/colors.txt"), encoding="utf-8")
    config = block(data, "# shapes.yml")
    assert len(config.splitlines()) <= 13
    (tmp_path / "shapes.yml").write_text(config.replace("iters: 300", "iters: 2"), encoding="utf-8")
    for command in block("README.md", "liteseg data check --config shapes.yml").splitlines():
        assert main(shlex.split(command)[1:]) == 0, command
    assert set(last_line(tmp_path / "output" / "shapes")["class_iou"]) == {"ground", "box", "ball"}
    assert len(list((tmp_path / "predictions").rglob("*.png"))) >= 4
    segmenter = liteseg.Segmenter.from_pretrained("exported/shapes")
    assert segmenter.class_names == ("ground", "box", "ball")
    np.testing.assert_array_equal(segmenter.palette[1], (200, 30, 30))


def test_the_comparison_in_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for index in range(6):
        label = rng.integers(0, 3, (32, 48), dtype=np.uint8)
        wrong = np.where(rng.random(label.shape) < 0.4, 0, label)
        for folder, values in (("labels", label), ("base", wrong), ("wide", label)):
            Path(folder).mkdir(exist_ok=True)
            assert cv2.imwrite(f"{folder}/{index}.png", values.astype(np.uint8))
    for name in ("base", "wide"):
        command = ["eval", "--predictions", name, "--labels", "labels", "--json", f"{name}.json"]
        assert main(command) == 0
    capsys.readouterr()
    execute(block("liteseg/metrics/README.md", "# compare.py"))
    value, verdict = capsys.readouterr().out.split()
    expected = [json.loads(Path(f"{name}.json").read_text())["miou"] for name in ("base", "wide")]
    assert float(value) == pytest.approx(expected[1] - expected[0], abs=1e-9)
    assert verdict == "better"


def test_every_public_name_is_there_and_documented():
    for name in liteseg.__all__:
        assert getattr(liteseg, name).__doc__ or name == "__version__"


def test_the_config_key_of_a_pack(streets):
    pack = ["data", "pack", "--config", "quickstart", "--output", "train.pack"]
    assert main(pack) == 0
    assert main([*pack, "--verify"]) == 0
    cfg = liteseg.load_config("quickstart", ["train_dataset.pack=train.pack"])
    packed = liteseg.build_dataset(cfg, "train")
    plain = liteseg.build_dataset(liteseg.load_config("quickstart"), "train")
    np.testing.assert_array_equal(packed.load(0)["img"], plain.load(0)["img"])


def test_images_of_the_documents_exist():
    assert (ROOT / ".github" / "camvid_val.jpg").is_file()
    assert (ROOT / ".github" / "visualdl.png").is_file()


# liteseg/deploy/README.md


def test_the_function_of_the_spark_job(tmp_path, monkeypatch):
    """As `predict_batch_udf` calls it: bytes in an array of objects, rows of a data frame back."""
    monkeypatch.chdir(tmp_path)
    model = make_export(tmp_path / "exported" / "my")
    photos = [np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8) for i in range(3)]
    contents = [*(cv2.imencode(".png", photo[..., ::-1])[1].tobytes() for photo in photos), b"no"]
    names = execute(block("liteseg/deploy/README.md", "# spark_labels.py"))
    rows = names["label_function"]()(np.array(contents, object))
    assert [row["error"] for row in rows[:3]] == [None] * 3
    assert rows[3]["label"] is None
    assert "not an image" in rows[3]["error"]
    for number, content in enumerate(contents[:3]):
        (tmp_path / f"{number}.png").write_bytes(content)
    liteseg.predict(sorted(tmp_path.glob("*.png")), tmp_path / "out", model=model, what="mask")
    for number, row in enumerate(rows[:3]):
        assert row["label"] == (tmp_path / "out" / f"{number}_label.png").read_bytes()
    compile(block("liteseg/deploy/README.md", "# spark_job.py"), "spark_job.py", "exec")
