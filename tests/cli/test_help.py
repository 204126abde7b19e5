"""The help of every command: an example that works, --quiet and --verbose, defaults."""

from __future__ import annotations

import re
import shlex
import shutil

import cv2
import numpy as np
import pytest

from liteseg import cli
from liteseg.config.load import find_config


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def commands(capsys):
    """(name,) or (name, action) of every command, with its help."""
    for name in cli.COMMANDS:
        text = help_of(capsys, name)
        listed = text.partition("positional arguments")[2]
        actions = re.findall(r"^    (\w+) ", listed, re.MULTILINE)
        if "show|check" in text or "ACTION" in text:
            assert actions
            yield from (((name, action), help_of(capsys, name, action)) for action in actions)
        else:
            yield (name,), text


def examples(text):
    return re.findall(r"^  (liteseg .+)$", text.partition("examples:")[2], re.MULTILINE)


SMALL = ["--set", "num_workers=0", "--set", "eval_batch_size=1", "--set", "num_pictures=0"]
ONE_IMAGE = [
    *SMALL,
    "--set",
    "batch_size=1",
    "--set",
    "train_dataset.transforms.1.crop_size=[64, 64]",
]
# In the order of a user's work, with options that make each command quick.
SEQUENCE = {
    ("data", "streets"): ["--train", "4", "--val", "1", "--size", "128", "64"],
    ("data", "check"): [],
    ("data", "stats"): [],
    ("data", "pack"): [],
    ("config", "show"): [],
    ("config", "check"): [],
    ("bench", "model"): [],
    ("bench", "data"): ["--samples", "2", *ONE_IMAGE],
    ("bench", "train"): ["--steps", "1", "--warm-up", "1", *ONE_IMAGE],
    ("train",): [*ONE_IMAGE, "--set", "iters=1"],
    ("export",): ["--num-images", "1"],
    ("bench", "eval"): ["--images", "1"],
    ("bench", "infer"): ["--calls", "1", "--warm-up", "1"],
    ("predict",): [],
    ("eval",): SMALL,
    ("models", "list"): [],
    ("models", "show"): [],
    ("models", "pack"): [],
    ("models", "download"): None,
    ("models", "import"): None,
    ("compare",): None,
    ("data", "import"): None,  # these have tests of their own
    ("data", "suspects"): None,
    ("dash",): None,
    ("doctor",): None,
}


def test_every_command_has_an_example_and_verbosity(capsys):
    found = dict(commands(capsys))
    assert set(found) == set(SEQUENCE)
    for words, text in found.items():
        assert examples(text), words
        assert all(shlex.split(line)[1:][: len(words)] == [*words] for line in examples(text))
        assert "--quiet" in text
        assert "--verbose" in text


def test_every_option_has_a_help(capsys):
    for words, text in commands(capsys):
        options = text.partition("options:")[2].partition("\n\n")[0]
        entries = re.split(r"^  (?=-)", options, flags=re.MULTILINE)[1:]
        assert entries
        for entry in entries:
            described = re.search(r"  +\w|\n +\S", entry)
            assert described, (words, entry)
            if re.match(r"--\w\S* [A-Z[{]|--\w\S*, --no", entry):  # it has a value
                assert "default:" in entry or "required" in entry, (words, entry)


def test_the_examples_work(tmp_path, monkeypatch, capsys):
    texts = dict(commands(capsys))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yml").write_text(find_config("quickstart").read_text(encoding="utf-8"))
    (tmp_path / "photos").mkdir()
    assert cv2.imwrite("photos/1.jpg", np.zeros((64, 128, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    assert cv2.imwrite("labels/1.png", np.zeros((64, 128), np.uint8))
    (tmp_path / "classes.txt").write_text("\n".join("abcdefghi"))
    for words, quick in SEQUENCE.items():
        for line in examples(texts[words]) if quick is not None else ():
            more = ["--set", "iters=2"] if "--resume" in line else quick
            if "model.pdparams" in line:
                shutil.copy("output/my/checkpoints/best/model.pdparams", ".")
            assert cli.main([*shlex.split(line)[1:], *more]) == 0, line
    names = sorted(path.name for path in tmp_path.iterdir())
    written = ["data", "eval.html", "exported", "masks", "output", "packed", "predictions", "zoo"]
    written.append("data.html")
    given = ["classes.txt", "labels", "model.pdparams", "my.yml", "photos"]
    assert names == sorted([*written, *given, "images.csv"])
    manifest = tmp_path / "output/my/checkpoints/last/manifest.json"
    assert '"iteration": 2' in manifest.read_text()


def test_quiet_and_verbose_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--quiet", "--verbose"])
    assert end.value.code == 2
