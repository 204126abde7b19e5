"""`liteseg models`, and the commands that take names, newest runs and the default model."""

from __future__ import annotations

import json
import os
import shutil

import cv2
import golden_rule
import numpy as np
import pytest
from weights_server import serving

import liteseg
from liteseg.cli import main
from liteseg.config.build import build_model
from liteseg.utils.weights.download import cache_path
from liteseg.utils.weights.load import save_pdparams
from liteseg.utils.weights.zoo import DEFAULT, PUBLISHED, find

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty current folder with a photo, and a machine without a network."""
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LITESEG_ZOO", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    assert cv2.imwrite("photo.png", IMAGE)
    return tmp_path / "place"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two files with the keys of published ones: of the default model and of its encoder."""
    folder = tmp_path_factory.mktemp("published")
    model = golden_rule.fill(build_model(liteseg.load_config(DEFAULT.name), pretrained=False))
    save_pdparams(model.state_dict(), folder / "model.pdparams")
    save_pdparams(model.backbone.state_dict(), folder / "encoder.pdparams")
    return folder


@pytest.fixture
def mirror(published, monkeypatch):
    """A server in LITESEG_ZOO that has these two under their published names."""
    entries = {
        DEFAULT.name: {"file": "model.pdparams", "config": DEFAULT.config, "classes": 19},
        "PP_STDCNet1": {"file": "encoder.pdparams"},
    }
    with serving() as server:
        index = {"format": "liteseg-zoo-1", "models": entries}
        server.files["/index.json"] = json.dumps(index).encode()
        for path in published.iterdir():
            server.files[f"/{path.name}"] = path.read_bytes()
        monkeypatch.setenv("LITESEG_ZOO", server.url)
        yield server


def predicted(*arguments) -> np.ndarray:
    assert main(["predict", "photo.png", "--what", "mask", *arguments]) == 0
    return cv2.imread("predictions/photo_label.png", cv2.IMREAD_UNCHANGED)


def test_the_list(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    heads, *rows = listed.splitlines()
    assert heads.split()[0] == "name"
    assert [row.split()[0] for row in rows] == [model.name for model in PUBLISHED]
    assert rows[0].split()[1:4] == ["pp_liteseg_t1_cityscapes", "19", "0.5"]
    assert "73.10" in rows[0]
    assert all(row.endswith("no") for row in rows)
    path = cache_path(PUBLISHED[1].url)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert main(["models", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[-1] for row in rows[:3]] == ["no", "yes", "no"]


def test_one_model(capsys):
    assert main(["models", "show", "pp_liteseg_t1_cityscapes"]) == 0
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert shown["name"] == DEFAULT.name
    assert shown["classes"].startswith("19: road, sidewalk, ")
    assert shown["address"] == DEFAULT.url
    assert shown["mIoU"] == "73.10 %, Cityscapes val"
    assert shown["file"].startswith(f"{cache_path(DEFAULT.url)} (not downloaded")
    assert main(["models", "show", "stdc1_imagenet"]) == 0
    assert "none: an encoder" in capsys.readouterr().out


def test_downloads(mirror, capsys):
    names = ["pp_liteseg_t1_cityscapes", "stdc1_imagenet"]
    assert main(["models", "download", *names, "--quiet"]) == 0
    paths = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert list(paths) == names
    assert all(os.path.isfile(path) for path in paths.values())
    requests = len(mirror.requests)
    assert main(["models", "download", *names]) == 0
    assert mirror.requests[requests:] == []


@pytest.mark.parametrize("command", ["show", "download"])
def test_an_unknown_name(mirror, capsys, command):
    mirror.requests.clear()
    names = ["pp_liteseg_b1_cityscape"] + [DEFAULT.name] * (command == "download")
    assert main(["models", command, *names]) == 2
    error = capsys.readouterr().err
    assert "pp_liteseg_b1_cityscape does not exist" in error
    assert "did you mean pp_liteseg_b1_cityscapes" in error
    assert {name for name, _ in mirror.requests} == {"/index.json"}  # nothing was downloaded
    for arguments in (["eval", "--weights"], ["predict", "photo.png", "--weights"]):
        assert main([*arguments, "pp_liteseg_b1_cityscape"]) == 2
        assert "did you mean pp_liteseg_b1_cityscapes" in capsys.readouterr().err


def test_a_photo_and_a_name(mirror, published):
    labels = predicted("--weights", "pp_liteseg_t1_cityscapes")
    segmenter = liteseg.Segmenter.from_pretrained(published / "model.pdparams", DEFAULT.config)
    rgb = np.ascontiguousarray(IMAGE[..., ::-1])
    np.testing.assert_array_equal(labels, segmenter.predict(rgb))
    assert len(np.unique(labels)) > 1
    by_name = liteseg.Segmenter.from_pretrained("pp_liteseg_t1_cityscapes")
    np.testing.assert_array_equal(by_name.predict(rgb), labels)
    assert by_name.class_names == segmenter.class_names


def test_a_photo_alone(mirror, filled_run, capsys):
    labels = predicted("--weights", DEFAULT.name)
    capsys.readouterr()
    np.testing.assert_array_equal(predicted(), labels)
    assert f"no run in output: using {DEFAULT.name} (" in capsys.readouterr().out
    for number, run in enumerate(("output/new/deeper", "output/old")):
        shutil.copytree(filled_run, run)
        os.utime(f"{run}/checkpoints/best/model.pdparams", (10**9, 2 * 10**9 - number))
    shutil.copytree("output/old/checkpoints", "output/without_config/checkpoints")
    own = predicted("--weights", "output/new/deeper")
    capsys.readouterr()
    np.testing.assert_array_equal(predicted(), own)
    assert "using the newest run in output, output/new/deeper" in capsys.readouterr().out
    assert own.max() <= 2 < labels.max()


def test_a_photo_alone_without_a_network(capsys):
    assert main(["predict", "photo.png"]) == 2
    captured = capsys.readouterr()
    assert f"using {DEFAULT.name}" in captured.out
    assert "can't be reached" in captured.err
    assert f"put it at {cache_path(DEFAULT.url)}" in captured.err


def test_plugins_of_the_newest_run_run_only_with_trust(filled_run, capsys):
    shutil.copytree(filled_run, "output/run")
    config = "output/run/config.yml"
    with open(config, encoding="utf-8") as file:
        text = file.read()
    text = text.replace("type: Normalize\n      mean", "type: OwnNormalize\n      mean")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"plugins: [own.py]\n{text}")
    with open("output/run/own.py", "w", encoding="utf-8") as file:
        file.write(
            "from liteseg.registry import TRANSFORMS\nfrom liteseg.transforms import Normalize\n"
            "TRANSFORMS.register(type('OwnNormalize', (Normalize,), {'__doc__': 'Mine.'}))\n"
        )
    assert main(["predict", "photo.png"]) == 2
    assert "--trust-plugins" in capsys.readouterr().err
    from liteseg.registry import TRANSFORMS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRANSFORMS, "_components", dict(TRANSFORMS._components))
        predicted("--trust-plugins")


def test_weights_of_another_network(mirror, capsys):
    config = ["--config", "pp_liteseg_b1_cityscapes"]
    assert main(["predict", "photo.png", *config, "--weights", "pp_liteseg_t1_cityscapes"]) == 2
    assert "use a config with the model" in capsys.readouterr().err
    other = ["--config", "pp_liteseg_t_camvid", "--weights", "pp_liteseg_t1_cityscapes"]
    assert main(["predict", "photo.png", *other]) == 2
    assert "Only the number of classes differs" in capsys.readouterr().err


def test_an_encoder_by_name(mirror, published, capsys):
    from liteseg.utils.logging import setup_logging

    setup_logging()
    for source in ("stdc1_imagenet", find("stdc1_imagenet").url):
        key = f"model.backbone.pretrained={source}"
        model = build_model(liteseg.load_config("pp_liteseg_t_camvid", [key]))
        key = "features.0.conv.weight"
        loaded = model.backbone.state_dict()[key].numpy()
        np.testing.assert_array_equal(loaded, golden_rule.value(f"backbone.{key}", loaded.shape))
        logged = capsys.readouterr().out
        assert f"backbone from {source}; initialized: ppseg_head, seg_heads" in logged
