"""`liteseg.train`: PP-LiteSeg on a few Streets scenes, from config to run directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from streets_run import iterations, lines, saved_iteration

import liteseg
from liteseg.config.build import build_model
from liteseg.config.load import load_config
from liteseg.errors import UserError
from liteseg.utils.weights.load import load_weights, read_pdparams, read_state


@pytest.fixture
def run(streets_run, tmp_path):
    """A copy of a finished run, to resume."""
    return Path(shutil.copytree(streets_run, tmp_path / "run"))


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_run_directory(streets_run, golden):
    assert checkpoints(streets_run) == ["best", "last", "last.previous", "step_4"]
    assert iterations(streets_run, "train") == [1, 2, 3, 4]
    assert iterations(streets_run, "eval") == [2, 4]
    published = json.loads((golden / "state_dict_T.json").read_text())
    for name in ("best", "last"):
        weights = read_pdparams(streets_run / "checkpoints" / name / "model.pdparams")
        assert set(weights) == set(published)
    log = (streets_run / "train.log").read_text()
    assert "4 training images; batch 1 devices x 2 x 1 accumulated = 2 images per iteration" in log
    assert "finished at iteration 4; best mIoU" in log


def test_metrics_of_heads_and_classes(streets_run):
    first = lines(streets_run, "train")[0]
    heads = [f"head{i}_CrossEntropyLoss" for i in range(3)]
    assert first["loss"] == pytest.approx(sum(first[head] for head in heads))
    last = lines(streets_run, "eval")[-1]
    assert {"miou", "acc", "kappa", "mdice", "loss", "best_miou"} <= last.keys()
    assert "sidewalk" in last["class_iou"]


def test_dashboard_of_a_run(streets_run):
    visualdl = pytest.importorskip("visualdl")
    (log,) = (streets_run / "vdl").glob("vdlrecords.*.log")
    reader = visualdl.LogReader(file_path=str(log))
    points = reader.get_data("scalar", "train/loss")
    assert [point.id for point in points] == [1, 2, 3, 4]
    expected = [line["loss"] for line in lines(streets_run, "train")]
    assert [point.value for point in points] == pytest.approx(expected)
    assert [point.id for point in reader.get_data("scalar", "val/miou")] == [2, 4]
    tags = reader.get_tags()
    assert any(tag.startswith("val/") for tag in tags["image"])
    assert "iters: 4" in reader.get_data("text", "config")[0].text.encoded_text_string


def test_report_of_a_run(streets_run):
    page = (streets_run / "report.html").read_text(encoding="utf-8")
    assert f"<b>{lines(streets_run, 'eval')[-1]['miou']:.4f}</b>" in page
    assert page.count("<img") == 2 * 4  # of two validation images one is the worst, one the best
    assert "iters: 4" in page


def test_written_config_trains_the_same_again(streets_run, tmp_path):
    again = tmp_path / "again"
    liteseg.train(streets_run / "config.yml", output=again)
    assert (again / "config.yml").read_text() == (streets_run / "config.yml").read_text()
    for before, now in zip(lines(streets_run, "train"), lines(again, "train")):
        assert now["loss"] == pytest.approx(before["loss"], rel=1e-4)


def test_deterministic_runs_are_bit_identical_for_any_number_of_workers(streets_config, tmp_path):
    states = []
    for workers in (0, 2):
        run = tmp_path / f"run{workers}"
        changes = ["deterministic=true", "iters=2", f"num_workers={workers}"]
        liteseg.train(streets_config, overrides=changes, output=run)
        assert "deterministic: costs nothing on CPU" in (run / "train.log").read_text()
        assert load_config(run / "config.yml")["deterministic"] is True
        weights = read_pdparams(run / "checkpoints/last/model.pdparams")
        slots = read_state(run / "checkpoints/last/training.pdstate")["optimizer"]["slots"]
        states.append({**weights, **slots})
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_array_equal(states[1][key], value, err_msg=key)


def test_resume_for_more_iterations(run):
    (run / "metrics.jsonl").open("a").write('{"step": 5, "phase": "train"}\n{"step": 5, "pha')
    result = liteseg.train(resume=run, overrides=["iters=6"])
    assert (result.output, result.iteration, result.stop_reason) == (run, 6, None)
    assert result.best_miou == max(line["miou"] for line in lines(run, "eval"))
    assert iterations(run, "train") == [1, 2, 3, 4, 5, 6]
    assert iterations(run, "eval") == [2, 4, 6]
    assert saved_iteration(run, "last") == 6
    assert checkpoints(run) == ["best", "last", "last.previous", "step_6"]
    log = (run / "train.log").read_text()
    assert "after iteration 4" in log
    assert "changed on resuming: iters: 4 -> 6" in log
    assert len(list((run / "vdl").glob("vdlrecords.*.log"))) <= 1  # VisualDL shows one
    assert load_config(run / "config.yml")["iters"] == 6


def test_resume_of_a_finished_run_changes_no_weights(run):
    before = read_pdparams(run / "checkpoints/last/model.pdparams")
    liteseg.train(run / "config.yml", output=run, resume=True)
    after = read_pdparams(run / "checkpoints/last/model.pdparams")
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value)
    assert iterations(run, "train") == [1, 2, 3, 4]


def test_resume_after_the_last_checkpoint_was_damaged(run):
    path = run / "checkpoints" / "last" / "model.pdparams"
    path.write_bytes(path.read_bytes()[:1000])
    shutil.rmtree(run / "checkpoints" / "step_4")
    shutil.rmtree(run / "checkpoints" / "best")
    liteseg.train(resume=run)
    assert saved_iteration(run, "last") == 4
    assert iterations(run, "train") == [1, 2, 3, 4]
    log = (run / "train.log").read_text()
    assert "is damaged" in log
    assert "resumed from" in log
    assert "last.previous after iteration 4" in log  # saved before its evaluation
    assert iterations(run, "eval") == [2, 4]


def test_fine_tuning_starts_from_the_weights(streets_config, streets_run, tmp_path):
    slow = ["iters=1", "lr_scheduler={learning_rate: 1.0e-9, warmup_iters: 0}"]
    slow.append("optimizer.weight_decay=0.0")
    liteseg.train(streets_config, overrides=slow, weights=streets_run, output=tmp_path)
    model = build_model(load_config(streets_config))
    load_weights(model, streets_run)
    expected = model.state_dict()
    found = read_pdparams(tmp_path / "checkpoints/last/model.pdparams")
    trained_keys = [key for key, p in model.named_parameters() if not p.stop_gradient]
    assert trained_keys
    for key in trained_keys:
        np.testing.assert_allclose(found[key], expected[key].numpy(), atol=1e-6, err_msg=key)


def test_accumulation_average_and_early_stop(streets_config, tmp_path):
    changes = ["batch_size=1", "total_batch_size=2", "ema={decay: 0.5}", "save_interval=100"]
    # No increase is ever enough, so the first evaluation is the only better one.
    changes += ["early_stop={patience: 1, min_delta: 1.0}", "eval_interval=1"]
    result = liteseg.train(streets_config, overrides=changes, output=tmp_path)
    assert iterations(tmp_path, "eval") == [1, 2]
    log = (tmp_path / "train.log").read_text()
    assert "1 devices x 1 x 2 accumulated = 2 images per iteration" in log
    assert "early stop" in log
    assert "early stop" in result.stop_reason
    assert saved_iteration(tmp_path, "last") == result.iteration == 2


def test_a_failing_dashboard_does_not_stop_training(streets_config, tmp_path, monkeypatch):
    visualdl = pytest.importorskip("visualdl")

    def refuse(*args, **kwargs):
        raise OSError("broken")

    monkeypatch.setattr(visualdl, "LogWriter", refuse)
    liteseg.train(streets_config, overrides=["iters=3"], output=tmp_path)
    assert (tmp_path / "train.log").read_text().count("VisualDL failed") == 1
    assert saved_iteration(tmp_path, "last") == 3


class Count(liteseg.Hook):
    """Counts iterations, over resumes."""

    def __init__(self):
        self.iterations, self.evaluations = 0, []

    def after_iteration(self, trainer):
        self.iterations += 1

    def after_evaluation(self, trainer, metrics):
        self.evaluations.append(metrics["miou"])

    def state_dict(self):
        return {"iterations": self.iterations}

    def load_state_dict(self, state):
        self.iterations = state["iterations"]


def test_hooks_of_the_caller_see_everything_and_are_resumed(streets_config, tmp_path):
    """Also: a loaded config in place of a file, and a log file that ends with the training."""
    cfg = load_config(streets_config, ["iters=2", "eval_interval=2"])
    first, second = Count(), Count()
    result = liteseg.train(cfg, output=tmp_path, hooks=[first])
    assert (first.iterations, first.evaluations) == (2, [result.best_miou])
    liteseg.train(cfg, overrides=["iters=3"], output=tmp_path, resume=True, hooks=[second])
    assert second.iterations == 3
    size = (tmp_path / "train.log").stat().st_size
    liteseg.utils.logging.get_logger().warning("after training")
    assert (tmp_path / "train.log").stat().st_size == size


def test_without_validation_there_is_a_report_but_no_best_checkpoint(streets_config, tmp_path):
    changes = ["iters=1", "val_dataset=null"]
    result = liteseg.train(streets_config, overrides=changes, output=tmp_path)
    assert (result.best_miou, result.best_iteration) == (None, 0)
    assert checkpoints(tmp_path) == ["last"]
    assert "never evaluated" in (tmp_path / "train.log").read_text()
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "--config is missing"),
        ({"output": "out"}, "--config is missing"),
        ({"resume": True}, "--config is missing"),
        ({"resume": "nowhere"}, "nowhere contains no run"),
        ({"resume": "a", "output": "b"}, "differ"),
        ({"cfg": "quickstart", "devices": 0}, "0 is not a number of processes"),
        ({"cfg": "quickstart", "devices": 2, "hooks": [Count()]}, "cannot be sent"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        liteseg.train(**arguments)


def test_default_output_is_named_after_the_config(streets_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = liteseg.train(load_config(streets_config, ["iters=1", "val_dataset=null"]))
    assert result.output == Path("output/tiny")
    with pytest.raises(UserError, match="already contains a run: give --resume"):
        liteseg.train(streets_config)


def test_more_processes_than_gpus_are_refused(streets_config, tmp_path, monkeypatch):
    monkeypatch.setattr("liteseg.ops.device.gpu_count", lambda: 2)
    with pytest.raises(UserError, match="3 processes need as many GPUs, and Paddle finds 2"):
        liteseg.train(streets_config, output=tmp_path, devices=3)


@pytest.mark.parametrize("place", ["checkpoints/last", "checkpoints"])
def test_resume_from_a_place_in_a_run(run, place):
    result = liteseg.train(resume=run / place, overrides=["iters=5"])
    assert (result.output, result.iteration) == (run, 5)


def test_resume_from_an_older_checkpoint(run):
    save = run / "checkpoints" / "last"
    shutil.copytree(save, run / "checkpoints" / "step_3")
    for file in (save, run / "checkpoints" / "step_3"):
        assert file.is_dir()
    with pytest.raises(UserError, match=r"step_99 does not exist; .* contains best, last"):
        liteseg.train(resume=run / "checkpoints" / "step_99")
    older = saved_iteration(run, "best")
    result = liteseg.train(resume=run / "checkpoints" / "best")
    assert result.iteration == 4
    assert iterations(run, "train") == [1, 2, 3, 4]
    assert iterations(run, "eval") == [2, 4]
    assert (run / "replaced_1").exists() == (older < 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["val_dataset.transforms=[{type: RandomHorizontalFlip}, {type: Normalize}]"], "is random"),
        (["val_dataset.transforms=[{type: Padding, target_size: [1, 1]}, {type: Normalize}]"],
         "target_size is 1 x 1"),
        (["early_stop={patience: 1}", "val_dataset=null"], "early_stop: needs a val_dataset"),
    ],
)  # fmt: skip
def test_validation_that_would_fail_is_refused_before_training(
    streets_config, tmp_path, change, message
):
    with pytest.raises(UserError, match=message):
        liteseg.train(streets_config, overrides=change, output=tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/*"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or not iterations(
        tmp_path / "run", "train"
    )
