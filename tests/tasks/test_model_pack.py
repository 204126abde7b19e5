"""Packs: their files, use by path and by name, archives of strangers, and files they keep."""

from __future__ import annotations

import getpass
import io
import json
import os
import shutil
import socket
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from streets_run import lines
from weights_server import serving

import liteseg
from liteseg.cli import main
from liteseg.errors import UserError
from liteseg.tasks.pack import pack_model
from liteseg.tasks.runs import class_names_of, config_of
from liteseg.utils.files import sha256_of
from liteseg.utils.weights import index
from liteseg.utils.weights.load import read_pdparams

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LITESEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("LITESEG_ZOO", raising=False)
    monkeypatch.setattr(index, "_FRESH_S", 0.0)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def zoo(streets_run, tmp_path_factory) -> Path:
    """The pack of a run as a folder and as the only archive of an index; must not change."""
    folder = tmp_path_factory.mktemp("zoo")
    pack_model(streets_run, folder / "streets")
    pack_model(streets_run, folder / "ours.tar", name="ours", index=True)
    return folder


@pytest.fixture(scope="module")
def expected(streets_run) -> np.ndarray:
    return liteseg.Segmenter.from_pretrained(streets_run).predict(IMAGE)


def test_the_files_of_a_pack(zoo, streets_run):
    folder = zoo / "streets"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.yml", "model.pdparams", "pack.json"]
    packed = read_pdparams(folder / "model.pdparams")
    for key, array in read_pdparams(streets_run / "checkpoints/best/model.pdparams").items():
        np.testing.assert_array_equal(packed[key], array)
    content = json.loads((folder / "pack.json").read_text())
    assert content["class_names"] == list(class_names_of(streets_run))
    assert len(content["palette"]) == 9
    best = max(lines(streets_run, "eval"), key=lambda line: line["miou"])
    for key in ("miou", "acc", "kappa", "mdice", "class_iou", "images"):
        assert content["metrics"][key] == best[key]
    assert content["iteration"] == best["step"]
    assert content["files"] == {n: sha256_of(folder / n) for n in names if n != "pack.json"}


def test_the_card(zoo, streets_run):
    card = (zoo / "streets" / "README.md").read_text()
    best = max(lines(streets_run, "eval"), key=lambda line: line["miou"])
    assert f"On Streets val, 2 images: mIoU {100 * best['miou']:.1f} %" in card
    for number, (name, iou) in enumerate(best["class_iou"].items()):
        (row,) = (line for line in card.splitlines() if line.startswith(f"| {number} | {name} | "))
        assert row.endswith("| - |" if iou is None else f"| {100 * iou:.1f} % |")
    for words in ("STDC1", "AdamW", "PolynomialDecay", "CrossEntropyLoss", "batches of 2"):
        assert words in card
    assert "| initial weights | random |" in card
    assert "{" not in card.replace("{{", "")
    assert card.endswith("\n")


def texts_of(path: Path) -> str:
    """All text in a pack, names of members and their owners included."""
    if path.is_dir():
        files = [(p.name, p.read_bytes()) for p in path.rglob("*") if p.suffix != ".pdparams"]
        return "".join(name + content.decode() for name, content in files)
    with tarfile.open(path) as tar:
        members = [m for m in tar if not m.name.endswith(".pdparams")]
        owners = "".join(m.name + m.uname + m.gname for m in members)
        return owners + "".join(tar.extractfile(m).read().decode() for m in members)


def test_nothing_in_a_pack_is_of_this_machine(tmp_path, streets, streets_run, monkeypatch):
    run = tmp_path / "home-of-jane" / "run"
    shutil.copytree(streets_run, run)
    config = run / "config.yml"
    text = config.read_text()
    assert str(streets) in text
    text = text.replace("pretrained: null", f"pretrained: {tmp_path}/encoder.pdparams", 1)
    text = text.replace("exif: apply", f"exif: apply\n  pack: {tmp_path}/packed", 1)
    config.write_text(text.replace("\n  pack: null", "", 1))
    for output in ("folder", "pack.tar.gz"):
        written = texts_of(pack_model(run, tmp_path / output, name="clean").path)
        for word in (str(tmp_path), "jane", "/tmp", str(Path.home()), socket.gethostname()):
            assert word not in written, word
        assert f"{getpass.getuser()}/" not in written
    cfg = liteseg.load_config(tmp_path / "folder" / "config.yml")
    assert cfg["train_dataset"]["dataset_root"] == f"data/{streets.name}"
    assert cfg["model"]["backbone"]["pretrained"] is None
    assert liteseg.check(cfg) == []


def test_a_pack_is_weights_everywhere(zoo, expected, tmp_path, streets, monkeypatch):
    monkeypatch.setenv("LITESEG_ZOO", str(zoo))
    for source in (zoo / "streets", zoo / "ours.tar", "ours"):
        labels = liteseg.Segmenter.from_pretrained(source).predict(IMAGE)
        np.testing.assert_array_equal(labels, expected)
    monkeypatch.chdir(tmp_path)
    assert cv2.imwrite("photo.png", IMAGE)
    assert main(["predict", "photo.png", "--weights", "ours", "--what", "mask"]) == 0
    mask = cv2.imread("predictions/photo_label.png", cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, liteseg.Segmenter.from_pretrained("ours")(IMAGE[..., ::-1]))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / streets.name).symlink_to(streets)
    json_file = tmp_path / "eval.json"
    assert main(["eval", "--weights", "ours", "--json", str(json_file)]) == 0
    packed = json.loads((zoo / "streets" / "pack.json").read_text())["metrics"]
    assert json.loads(json_file.read_text())["miou"] == pytest.approx(packed["miou"])
    assert liteseg.load_config("ours")["iters"] == 4
    model = liteseg.build_model(liteseg.load_config("ours", ["model.pretrained=ours"]))
    liteseg.load_weights(model, "ours")
    # Metrics of an evaluation of one's own replace those of the run.
    again = pack_model("ours", tmp_path / "again", metrics=json_file)
    assert "optimistic" not in (again.path / "README.md").read_text()


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_equal_packs_are_equal_archives(tmp_path, filled_run, suffix):
    first = pack_model(filled_run, tmp_path / f"a{suffix}", name="a").path
    second = pack_model(filled_run, tmp_path / f"b{suffix}", name="a").path
    assert first.read_bytes() == second.read_bytes()
    assert class_names_of(first) == ("road", "car", "sky")
    if suffix == ".zip":
        names = zipfile.ZipFile(first).namelist()
        assert names == ["a/README.md", "a/config.yml", "a/model.pdparams", "a/pack.json"]


def test_a_pack_from_a_server(zoo, expected, monkeypatch, home):
    with serving() as server:
        server.files["/index.json"] = (zoo / "index.json").read_bytes()
        server.files["/ours.tar"] = (zoo / "ours.tar").read_bytes()
        monkeypatch.setenv("LITESEG_ZOO", server.url)
        labels = liteseg.Segmenter.from_pretrained("ours").predict(IMAGE)
        np.testing.assert_array_equal(labels, expected)
        server.files.clear()
        server.status = 500
        with pytest.raises(UserError, match="answered 404"):  # a server that answers is asked
            config_of("ours")
    labels = liteseg.Segmenter.from_pretrained("ours").predict(IMAGE)  # offline
    np.testing.assert_array_equal(labels, expected)


def tampered(zoo: Path, path: Path, **files: str) -> Path:
    """A copy of the archive with other or more text files in it; None removes one."""
    with tarfile.open(zoo / "ours.tar") as tar, tarfile.open(path, "w") as copy:
        for member in tar:
            if member.name not in files:
                copy.addfile(member, tar.extractfile(member))
        for name, text in files.items():
            if text is not None:
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                copy.addfile(info, io.BytesIO(text.encode()))
    return path


PLUGIN = "import pathlib\npathlib.Path('ran').touch()\n"


def test_plugins_of_a_pack_run_only_with_trust(zoo, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    config = (zoo / "streets" / "config.yml").read_text()
    config = config.replace("plugins: []", "plugins: [plugins/own.py]")
    config = config.replace("type: STDC1", "type: OwnEncoder")
    code = PLUGIN + (
        "from liteseg.models import STDC1\nfrom liteseg.registry import BACKBONES\n"
        "BACKBONES.register(type('OwnEncoder', (STDC1,), {'__doc__': 'An encoder.'}))\n"
    )
    files = {"ours/config.yml": config, "ours/plugins/own.py": code}
    archive = tampered(zoo, tmp_path / "theirs.tar", **files)
    (tmp_path / "index.json").write_text(
        json.dumps({"format": "liteseg-zoo-1", "models": {"theirs": {"file": archive.name}}})
    )
    monkeypatch.setenv("LITESEG_ZOO", ".")
    assert cv2.imwrite("photo.png", IMAGE)
    predict = ["predict", "photo.png", "--what", "mask", "--weights"]
    for arguments in ([*predict, "theirs"], [*predict, "theirs.tar"], ["config", "show", "theirs"]):
        assert main(arguments) == 2
        assert "would run" in capfd.readouterr().err
    assert main(["train", "--config", "theirs", "--output", "run"]) == 2
    assert not (tmp_path / "ran").exists()
    from liteseg.registry import BACKBONES

    monkeypatch.setattr(BACKBONES, "_components", dict(BACKBONES._components))
    assert main([*predict, "theirs", "--trust-plugins"]) == 0
    assert (tmp_path / "ran").exists()
    # A pack of that pack has the plugin again.
    assert main(["models", "pack", "theirs", "--output", "copy", "--trust-plugins"]) == 0
    assert [path.read_text() for path in Path("copy/plugins").iterdir()] == [code]


def test_a_pack_without_a_config(zoo, tmp_path, monkeypatch):
    archive = tampered(zoo, tmp_path / "bare.tar", **{"ours/config.yml": None})
    with pytest.raises(UserError, match=r"bare.tar: no config.yml there.*--config"):
        liteseg.Segmenter.from_pretrained(archive)
    config = zoo / "streets" / "config.yml"
    assert liteseg.Segmenter.from_pretrained(archive, config).predict(IMAGE).shape == (48, 64)
    entry = {"format": "liteseg-zoo-1", "models": {"bare": {"file": archive.name}}}
    (tmp_path / "index.json").write_text(json.dumps(entry))
    monkeypatch.setenv("LITESEG_ZOO", str(tmp_path))
    with pytest.raises(UserError, match="bare: these weights come without a config"):
        liteseg.load_config("bare")


def test_unpacking_writes_no_other_file(zoo, tmp_path, home):
    files = dict.fromkeys(("ours/evil.sh", "ours/plugins/.hidden.py", "b"), "x")
    archive = tampered(zoo, tmp_path / "more.tar", **files)
    config_of(archive)
    (folder,) = (home / "unpacked").iterdir()
    assert sorted(path.name for path in folder.rglob("*")) == [
        "README.md",
        "config.yml",
        "model.pdparams",
        "pack.json",
    ]


def test_a_damaged_pack(zoo, tmp_path):
    shutil.copytree(zoo / "streets", tmp_path / "pack")
    with open(tmp_path / "pack" / "model.pdparams", "r+b") as file:
        file.seek(-100_000, os.SEEK_END)
        file.write(b"\0\0\0\0")
    with pytest.raises(UserError, match=r"model.pdparams: SHA-256 is .*the pack is damaged"):
        liteseg.Segmenter.from_pretrained(tmp_path / "pack")


def test_only_packs_are_replaced(filled_run, tmp_path):
    pack = pack_model(filled_run, tmp_path / "pack").path
    assert "Not measured" in (pack / "README.md").read_text()
    pack_model(filled_run, pack)
    (pack / "notes.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in pack.iterdir()}
    with pytest.raises(UserError, match="not only an earlier pack"):
        pack_model(filled_run, pack)
    assert {path: path.stat().st_mtime_ns for path in pack.iterdir()} == before
    foreign = tmp_path / "data.zip"
    with zipfile.ZipFile(foreign, "w") as packed:
        packed.writestr("thesis.txt", "mine")
    for target in (foreign, filled_run):
        with pytest.raises(UserError, match="nothing was replaced"):
            pack_model(filled_run, target, name="a")
    assert zipfile.ZipFile(foreign).namelist() == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".liteseg")] == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--output", "out", "--index"], "--index lists archives: give --output out.tar.gz"),
        (["--output", "a b.tar"], "'a b' is no name of a model"),
        (["--output", "out", "--metrics", "none.json"], "not the metrics of `liteseg eval"),
        (["--output", "out", "--config", "pp_liteseg_t1_cityscapes"], "does not fit"),
        (["--output", "out", "--config", "quickstart"], "classes"),
    ],
)
def test_bad_arguments(filled_run, tmp_path, monkeypatch, capfd, arguments, problem):
    monkeypatch.chdir(tmp_path)
    assert main(["models", "pack", str(filled_run), *arguments]) == 2
    assert problem in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []
