"""`liteseg bench data`, `bench train` and `bench eval` on a few tiny pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from liteseg.cli import main
from liteseg.datasets.streets.generate import generate

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yml"
PHASES = {"data", "normalize", "forward", "losses", "backward", "update"}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> list[str]:
    root = generate(
        tmp_path_factory.mktemp("d") / "streets", train=4, val=1, size=(128, 64), progress=False
    )
    changes = {
        "train_dataset.dataset_root": root,
        "val_dataset.dataset_root": root,
        "train_dataset.transforms.1.crop_size": [64, 64],
        "batch_size": 2,
        "num_workers": 0,
    }
    changed = [part for item in changes.items() for part in ("--set", "{}={}".format(*item))]
    return ["--config", f"{QUICKSTART}", *changed]


@pytest.mark.parametrize("workers", [0, 2])
def test_data(arguments, tmp_path, capsys, workers):
    file = tmp_path / "data.json"
    options = ["--samples", "5", "--num-workers", f"{workers}", "--json", f"{file}"]
    assert main(["bench", "data", *arguments, *options]) == 0
    figures = json.loads(file.read_text())
    stages = figures["milliseconds"]
    assert list(stages) == [
        "read",
        "ResizeStepScaling + RandomPaddingCrop",
        "RandomHorizontalFlip",
        "RandomDistort",
        "collate",
    ]
    assert all(ms > 0 for ms in stages.values())
    total = sum(stages.values())
    assert figures["samples_per_second_and_core"] == pytest.approx(1000 / total)
    assert figures["samples_per_second"] > 0
    said = capsys.readouterr().out
    readers = f"{workers} reader process(es)" if workers else "a reader thread"
    for text in (*stages, f"{total:.2f}", readers):
        assert text in said


def test_train(arguments, tmp_path, capsys):
    file = tmp_path / "train.json"
    options = ["--steps", "2", "--warm-up", "1", "--json", f"{file}"]
    assert main(["bench", "train", *arguments, *options]) == 0
    figures = json.loads(file.read_text())
    assert set(figures["phases"]) == PHASES
    assert figures["fastest"] <= figures["seconds_per_step"] <= figures["slowest"]
    both_steps = figures["fastest"] + figures["slowest"]
    assert 0 < 2 * sum(figures["phases"].values()) <= both_steps
    assert figures["reader_share"] == pytest.approx(2 * figures["phases"]["data"] / both_steps)
    assert figures["images_per_second"] == pytest.approx(2 / figures["seconds_per_step"])
    assert figures["communication_share"] is None
    assert figures["peak_mib"] > 100
    said = capsys.readouterr().out
    for text in (*PHASES, "1 cpu process(es), 2 images a step", "peak memory"):
        assert text in said
    assert "exchange" not in said


def test_train_in_two_processes(arguments, tmp_path, capfd):
    """Rank 0 speaks for both, and says what the exchange of gradients costs."""
    file = tmp_path / "train.json"
    options = ["--steps", "1", "--warm-up", "1", "--devices", "2", "--json", f"{file}"]
    assert main(["bench", "train", *arguments, *options]) == 0
    figures = json.loads(file.read_text())
    assert (figures["processes"], figures["total_batch_size"]) == (2, 4)
    assert 0 <= figures["communication_share"] < 1
    assert "exchange of gradients" in capfd.readouterr().out


@pytest.mark.parametrize("images", [None, 3])
def test_eval(arguments, tmp_path, capsys, images):
    """One image is there; it is evaluated as often as asked for."""
    file = tmp_path / "eval.json"
    options = ["--json", f"{file}", *(["--images", f"{images}"] if images else [])]
    assert main(["bench", "eval", *arguments, *options]) == 0
    figures = json.loads(file.read_text())
    assert figures["images"] == (images or 1)
    assert set(figures["phases"]) == {"data", "network", "counting"}
    assert 0 < sum(figures["phases"].values()) <= figures["seconds"]
    assert figures["images_per_second"] == pytest.approx(figures["images"] / figures["seconds"])
    assert figures["peak_mib"] > 50
    said = capsys.readouterr().out
    assert f"{figures['images']} images in " in said
    assert "a reader thread" in said
