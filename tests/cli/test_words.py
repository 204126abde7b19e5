"""What every command has: help with an example that works, --quiet and --verbose."""

from __future__ import annotations

import re
import shlex

import pytest

from liteseg import cli


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def commands(capsys):
    """(name,) or (name, action) of every command, with its help."""
    for name in cli.COMMANDS:
        said = help_of(capsys, name)
        actions = re.findall(
            r"^    (\w+) ", said.partition("positional arguments")[2], re.MULTILINE
        )
        if "show|check" in said or "ACTION" in said:
            assert actions
            yield from (((name, action), help_of(capsys, name, action)) for action in actions)
        else:
            yield (name,), said


def examples(said):
    return re.findall(r"^  (liteseg .+)$", said.partition("for example:")[2], re.MULTILINE)


SMALL = ["--set", "num_workers=0", "--set", "eval_batch_size=1", "--set", "num_pictures=0"]
ONE_STEP = [
    *SMALL,
    "--set",
    "batch_size=1",
    "--set",
    "train_dataset.transforms.1.crop_size=[64, 64]",
]
# In the order in which a user comes to them, with what makes each quick.
SEQUENCE = {
    ("data", "streets"): ["--train", "4", "--val", "1", "--size", "128", "64"],
    ("data", "check"): [],
    ("data", "pack"): [],
    ("config", "show"): [],
    ("config", "check"): [],
    ("bench", "model"): [],
    ("bench", "data"): ["--samples", "2", *ONE_STEP],
    ("bench", "train"): ["--steps", "1", "--warm-up", "1", *ONE_STEP],
    ("train",): [*ONE_STEP, "--set", "iters=1"],
    ("eval",): SMALL,
    ("export",): ["--num-images", "1"],
    ("bench", "eval"): ["--images", "1"],
    ("bench", "infer"): ["--calls", "1", "--warm-up", "1"],
    ("predict",): [],
    ("dash",): None,  # each has a test of its own
    ("doctor",): None,
}


def test_every_command_has_an_example_and_says_less_or_more(capsys):
    found = dict(commands(capsys))
    assert set(found) == set(SEQUENCE)
    for words, said in found.items():
        assert examples(said), words
        assert all(shlex.split(line)[1:][: len(words)] == [*words] for line in examples(said))
        assert "--quiet" in said
        assert "--verbose" in said


def test_the_examples_work(tmp_path, monkeypatch, capsys):
    said = dict(commands(capsys))
    monkeypatch.chdir(tmp_path)
    for words, quick in SEQUENCE.items():
        for number, line in enumerate(examples(said[words]) if quick is not None else ()):
            more = quick if number == 0 or words != ("train",) else ["--set", "iters=2"]
            assert cli.main([*shlex.split(line)[1:], *more]) == 0, line
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "exported",
        "masks",
        "output",
    ]
    assert (
        '"iteration": 2'
        in (tmp_path / "output/quickstart/checkpoints/last/manifest.json").read_text()
    )


def test_quiet_and_verbose_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--quiet", "--verbose"])
    assert end.value.code == 2
