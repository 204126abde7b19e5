"""`liteseg train`: PP-LiteSeg on a few Streets scenes, from command line to run directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from liteseg.cli import main
from liteseg.config.build import build_model
from liteseg.config.load import load_config
from liteseg.datasets.streets.generate import generate
from liteseg.ops import device
from liteseg.utils.weights.load import load_weights, read_pdparams, read_state

CONFIG = """
batch_size: 2
iters: 4
num_workers: {workers}
log_interval: 1
eval_interval: 2
save_interval: 2
keep_checkpoints: 1
num_pictures: 1
model: {{type: PPLiteSeg, backbone: {{type: STDC1}}}}
train_dataset: &data
  type: Streets
  dataset_root: {root}
  mode: train
  transforms:
    - {{type: ResizeStepScaling, min_scale_factor: 0.75, max_scale_factor: 1.5}}
    - {{type: RandomPaddingCrop, crop_size: [128, 64]}}
    - {{type: RandomHorizontalFlip}}
    - {{type: RandomDistort}}
    - {{type: Normalize}}
val_dataset:
  <<: *data
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.002, warmup_iters: 2}}
loss:
  types: [{{type: CrossEntropyLoss, weight: auto}}]
"""


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "streets"
    return generate(root, train=4, val=2, size=(128, 64), progress=False)


def write_config(path, streets, workers=0):
    path.write_text(CONFIG.format(root=streets, workers=workers))
    return path


@pytest.fixture(scope="module")
def trained(streets, tmp_path_factory):
    """(config, run directory) after four steps; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder / "tiny.yml", streets)
    assert main(["train", "--config", str(config), "--output", str(folder / "run")]) == 0
    return config, folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run, to go on with."""
    return Path(shutil.copytree(trained[1], tmp_path / "run"))


def lines(run, phase):
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["phase"] == phase]


def steps(run, phase):
    return [line["step"] for line in lines(run, phase)]


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def iteration(run, name):
    return json.loads((run / "checkpoints" / name / "manifest.json").read_text())["iteration"]


def test_what_a_run_leaves(trained, golden):
    _, run = trained
    assert checkpoints(run) == ["best", "last", "last.previous", "step_4"]
    assert steps(run, "train") == [1, 2, 3, 4]
    assert steps(run, "eval") == [2, 4]
    published = json.loads((golden / "state_dict_T.json").read_text())
    for name in ("best", "last"):
        weights = read_pdparams(run / "checkpoints" / name / "model.pdparams")
        assert set(weights) == set(published)
    log = (run / "train.log").read_text()
    assert "4 training images; batch 1 devices x 2 x 1 accumulated = 2 images a step" in log
    assert "finished at iteration 4; best mIoU" in log


def test_each_head_and_the_classes_are_told(trained):
    first = lines(trained[1], "train")[0]
    heads = [f"head{i}_CrossEntropyLoss" for i in range(3)]
    assert first["loss"] == pytest.approx(sum(first[head] for head in heads))
    last = lines(trained[1], "eval")[-1]
    assert {"miou", "acc", "kappa", "mdice", "loss", "best_miou"} <= last.keys()
    assert "sidewalk" in last["class_iou"]


def test_the_dashboard_of_a_run(trained):
    visualdl = pytest.importorskip("visualdl")
    (log,) = (trained[1] / "vdl").glob("vdlrecords.*.log")
    reader = visualdl.LogReader(file_path=str(log))
    points = reader.get_data("scalar", "train/loss")
    assert [point.id for point in points] == [1, 2, 3, 4]
    expected = [line["loss"] for line in lines(trained[1], "train")]
    assert [point.value for point in points] == pytest.approx(expected)
    assert [point.id for point in reader.get_data("scalar", "val/miou")] == [2, 4]
    tags = reader.get_tags()
    assert any(tag.startswith("val/") for tag in tags["image"])
    assert "iters: 4" in reader.get_data("text", "config")[0].text.encoded_text_string


def test_the_report_of_a_run(trained):
    page = (trained[1] / "report.html").read_text(encoding="utf-8")
    assert f"<b>{lines(trained[1], 'eval')[-1]['miou']:.4f}</b>" in page
    assert page.count("<img") == 2 * 4  # of two validation images one is the worst, one the best
    assert "iters: 4" in page


def test_the_written_config_trains_the_same_again(trained, tmp_path):
    _, run = trained
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.yml"), "--output", str(again)]) == 0
    assert (again / "config.yml").read_text() == (run / "config.yml").read_text()
    for before, now in zip(lines(run, "train"), lines(again, "train")):
        assert now["loss"] == pytest.approx(before["loss"], rel=1e-4)


def test_deterministic_runs_are_the_same_bits_whatever_the_workers(trained, tmp_path):
    command = ["train", "--config", str(trained[0]), "--deterministic", "--set", "iters=2"]
    states = []
    for workers in (0, 2):
        run = tmp_path / f"run{workers}"
        assert main([*command, "--output", str(run), "--set", f"num_workers={workers}"]) == 0
        assert "deterministic: costs nothing on CPU" in (run / "train.log").read_text()
        assert load_config(run / "config.yml")["deterministic"] is True
        weights = read_pdparams(run / "checkpoints/last/model.pdparams")
        slots = read_state(run / "checkpoints/last/training.pdstate")["optimizer"]["slots"]
        states.append({**weights, **slots})
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_array_equal(states[1][key], value, err_msg=key)


def test_resume_and_go_on_for_longer(run, caplog):
    (run / "metrics.jsonl").open("a").write('{"step": 5, "phase": "train"}\n{"step": 5, "pha')
    assert main(["train", "--resume", str(run), "--set", "iters=6"]) == 0
    assert steps(run, "train") == [1, 2, 3, 4, 5, 6]
    assert steps(run, "eval") == [2, 4, 6]
    assert iteration(run, "last") == 6
    assert checkpoints(run) == ["best", "last", "last.previous", "step_6"]
    log = (run / "train.log").read_text()
    assert "after iteration 4" in log
    assert "changed on resuming: iters: 4 -> 6" in log
    assert len(list((run / "vdl").glob("vdlrecords.*.log"))) <= 1  # VisualDL shows one
    assert load_config(run / "config.yml")["iters"] == 6


def test_resume_of_a_finished_run_changes_no_weights(run):
    before = read_pdparams(run / "checkpoints/last/model.pdparams")
    assert main(["train", "--resume", "--output", str(run), "--config", f"{run}/config.yml"]) == 0
    after = read_pdparams(run / "checkpoints/last/model.pdparams")
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert steps(run, "train") == [1, 2, 3, 4]


def test_resume_after_the_last_checkpoint_was_damaged(run):
    path = run / "checkpoints" / "last" / "model.pdparams"
    path.write_bytes(path.read_bytes()[:1000])
    shutil.rmtree(run / "checkpoints" / "step_4")
    shutil.rmtree(run / "checkpoints" / "best")
    assert main(["train", "--resume", str(run)]) == 0
    assert iteration(run, "last") == 4
    assert steps(run, "train") == [1, 2, 3, 4]
    log = (run / "train.log").read_text()
    assert "is damaged" in log
    assert "after iteration 2" in log


def test_weights_to_start_from(trained, streets, tmp_path):
    config, run = trained
    start = ["train", "--config", str(config), "--weights", str(run), "--output", str(tmp_path)]
    slow = ["--set", "iters=1", "--set", "lr_scheduler={learning_rate: 1.0e-9, warmup_iters: 0}"]
    assert main([*start, *slow, "--set", "optimizer.weight_decay=0.0"]) == 0
    model = build_model(load_config(config))
    load_weights(model, run)
    expected = model.state_dict()
    found = read_pdparams(tmp_path / "checkpoints/last/model.pdparams")
    trained_keys = [key for key, p in model.named_parameters() if not p.stop_gradient]
    assert trained_keys
    for key in trained_keys:
        np.testing.assert_allclose(found[key], expected[key].numpy(), atol=1e-6, err_msg=key)


def test_accumulation_average_early_stop_and_seed(trained, tmp_path):
    options = ("batch_size=1", "total_batch_size=2", "ema={decay: 0.5}", "save_interval=100")
    command = ["train", "--config", str(trained[0]), "--output", str(tmp_path), "--seed", "3"]
    command += [part for option in options for part in ("--set", option)]
    # No gain is ever enough, so the first evaluation is the only better one.
    command += ["--set", "early_stop={patience: 1, min_delta: 1.0}", "--set", "eval_interval=1"]
    assert main(command) == 0
    assert steps(tmp_path, "eval") == [1, 2]
    log = (tmp_path / "train.log").read_text()
    assert "1 devices x 1 x 2 accumulated = 2 images a step" in log
    assert "early stop" in log
    assert iteration(tmp_path, "last") == 2
    assert load_config(tmp_path / "config.yml")["seed"] == 3


def test_a_dashboard_that_fails_stops_nothing(trained, tmp_path, monkeypatch):
    visualdl = pytest.importorskip("visualdl")

    def refuse(*args, **kwargs):
        raise OSError("broken")

    monkeypatch.setattr(visualdl, "LogWriter", refuse)
    command = ["train", "--config", str(trained[0]), "--output", str(tmp_path)]
    assert main([*command, "--set", "iters=3"]) == 0
    assert (tmp_path / "train.log").read_text().count("VisualDL failed") == 1
    assert iteration(tmp_path, "last") == 3


def test_more_processes_than_gpus_are_refused(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device, "gpu_count", lambda: 2)
    command = ["train", "--config", str(trained[0]), "--output", str(tmp_path), "--devices", "3"]
    assert main(command) == 2
    assert "3 processes need as many GPUs, and Paddle sees 2" in capsys.readouterr().err
