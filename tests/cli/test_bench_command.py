"""`liteseg bench`: arguments, tables and JSON files; `tests/tasks/benchmark` has the benchmarks."""

from __future__ import annotations

import json

import pytest

from liteseg.cli import main
from liteseg.tasks.benchmark.complexity import Part
from liteseg.tasks.benchmark.data import DataBenchmark
from liteseg.tasks.benchmark.evaluate import EvalBenchmark
from liteseg.tasks.benchmark.infer import InferenceBenchmark, Row
from liteseg.tasks.benchmark.model import ModelBenchmark
from liteseg.tasks.benchmark.train import TrainBenchmark

SPEED = {"median_ms": 20.0, "p90_ms": 22.0, "p99_ms": 23.0, "images_per_second": 50.0}


@pytest.fixture
def bench(monkeypatch, tmp_path, capsys):
    """Runs a benchmark command with a given result: (arguments of the task, text, JSON)."""

    def run(task, result, *command):
        recorded = []

        def fake(*args, **options):
            recorded.append((args, options))
            return result

        monkeypatch.setattr(f"liteseg.tasks.benchmark.{task}", fake)
        file = tmp_path / "sub" / "f.json"
        assert main(["bench", *command, "--json", f"{file}"]) == 0
        (call,) = recorded
        return call, capsys.readouterr().out, json.loads(file.read_text())

    return run


def test_model(bench):
    parts = [Part("body", (8, 16, 32), 1000, 2_000_000, 2**20), Part("others")]
    total = Part("total", (), 1000, 2_000_000, 2**20)
    result = ModelBenchmark("c.yml", (64, 32), parts, total)
    command = ("model", "--config", "c.yml", "--size", "64", "32", "--set", "iters=1")
    call, text, content = bench("model.benchmark_model", result, *command)
    assert call == (("c.yml",), {"overrides": ["iters=1"], "size": (64, 32)})
    assert "c.yml: evaluation of one 64x32 image in float32" in text
    assert " 8x16x32    0.0010 M       0.0020 G      1.0 MiB" in text
    assert content["size"] == [64, 32]
    assert content["parts"][0] == {
        "name": "body",
        "output": [8, 16, 32],
        "parameters": 1000,
        "multiply_adds": 2_000_000,
        "peak_bytes": 2**20,
    }
    assert content["total"]["parameters"] == 1000


@pytest.mark.parametrize(("workers", "shown"), [(0, "a thread"), (2, "2 worker process(es)")])
def test_data(bench, workers, shown):
    result = DataBenchmark("c.yml", {"read": 3.0, "collate": 1.0}, 250.0, workers, 400.0)
    command = ("data", "--config", "c.yml", "--samples", "5", "--num-workers", f"{workers}")
    call, text, content = bench("data.benchmark_data", result, *command)
    assert call[1] == {"overrides": [], "samples": 5, "num_workers": workers}
    assert "read              3.00    75%" in text
    assert f"250.0 samples per second and core; 400.0 per second from {shown}" in text
    assert content["milliseconds"] == {"read": 3.0, "collate": 1.0}
    assert content["samples_per_second_and_core"] == 250.0
    assert (content["num_workers"], content["samples_per_second"]) == (workers, 400.0)


@pytest.mark.parametrize("communication", [None, 0.25])
def test_train(bench, communication):
    result = TrainBenchmark(
        config="c.yml",
        device="cpu",
        processes=1,
        num_workers=1,
        total_batch_size=4,
        seconds_per_step=0.5,
        fastest=0.4,
        slowest=0.6,
        images_per_second=8.0,
        phases={"data": 0.1, "forward": 0.4},
        reader_share=0.2,
        communication_share=communication,
        peak_mib=512.0,
    )
    command = ("train", "--config", "c.yml", "--steps", "2", "--warm-up", "1", "--devices", "3")
    call, text, content = bench("train.benchmark_training", result, *command)
    assert call[1] == {"overrides": [], "iterations": 2, "warm_up": 1, "devices": 3}
    assert "forward               400.0    80%" in text
    assert "0.500 s per iteration (0.400 to 0.600), 8.00 images/s in 1 cpu process(es)" in text
    assert "peak memory 512 MiB" in text
    assert ("exchange of gradients: 25%" in text) == (communication is not None)
    assert content["seconds_per_step"] == 0.5
    assert content["communication_share"] == communication


def test_eval(bench):
    phases = {"data": 0.5, "network": 1.0, "counting": 0.5}
    ratio = {"seconds": 1.25, "cpu_seconds": 1.5}
    result = EvalBenchmark("c.yml", "cpu", 1, 0, 4, 2.0, 2.0, phases, 256.0, ratio)
    command = ("eval", "--config", "c.yml", "--weights", "w", "--images", "4", "--split", "train")
    command += ("--per-image",)
    call, text, content = bench("evaluate.benchmark_evaluation", result, *command)
    options = {"split": "train", "images": 4, "batch_size": None, "num_workers": None}
    assert call == (("c.yml", "w"), {"overrides": [], "per_image": True, **options})
    assert "1.25 times the seconds, 1.50 times the processor time" in text
    assert "network           250.0    50%" in text
    assert "4 images in 2.0 s, 2.00 images/s on cpu, batch size 1, loaded by a thread" in text
    assert content["phases"] == phases


def test_infer(bench):
    slow = {**SPEED, "images_per_second": 25.0}
    first = Row("PaddleSeg path", "paddle", "fp32", 1.0, 2, 1, (64, 48), None, None, slow, SPEED)
    second = Row("run", "openvino", "int8", 1.0, 2, 1, (64, 48), 0.5, 0.99, SPEED, SPEED)
    result = InferenceBenchmark({"cores": 2}, "in turns", [first, second])
    command = ("infer", "exported", "--size", "64", "48", "--size", "96", "64", "--batch", "1", "2")
    call, text, content = bench("infer.benchmark_inference", result, *command)
    assert call[0] == (["exported"],)
    assert call[1]["sizes"] == [[64, 48], [96, 64]]
    assert (call[1]["batches"], call[1]["runtimes"], call[1]["threads"]) == ([1, 2], [None], None)
    assert "2.00x  0.5000  99.000%" in text
    assert [row["model"] for row in content["rows"]] == ["PaddleSeg path", "run"]
    assert list(content["rows"][1]) == [
        *("model", "runtime", "precision", "scale", "threads", "batch", "size"),
        *("miou", "equal_labels", "image_to_labels", "network"),
    ]
    assert content["machine"] == {"cores": 2}


def test_a_plot_requires_accuracy(capsys):
    assert main(["bench", "infer", "exported", "--plot", "f.png"]) == 2
    assert "give --accuracy N" in capsys.readouterr().err


@pytest.mark.parametrize("size", [["0", "32"], ["64", "x"], ["64"]])
def test_bad_size(size, capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "model", "--config", "quickstart", "--size", *size])
    assert end.value.code == 2
    assert "--size" in capsys.readouterr().err
