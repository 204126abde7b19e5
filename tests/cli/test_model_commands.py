"""`liteseg train`, `eval`, `predict` and `export`: arguments, printed text, exit codes."""

from __future__ import annotations

import json
import re

import pytest
from filled_run import draw, write

from liteseg.cli import main
from liteseg.errors import UserError
from liteseg.tasks.launch import ProcessFailed
from liteseg.tasks.predict import KINDS, PredictResult


@pytest.fixture
def calls(monkeypatch):
    """Replaces a task; returns the list of its keyword arguments."""

    def replace(task, result=None, error=None):
        recorded = []

        def fake(*args, **options):
            recorded.append((args, options))
            if error:
                raise error
            return result

        monkeypatch.setattr(f"liteseg.tasks.{task}", fake)
        return recorded

    return replace


def test_train_arguments(calls):
    recorded = calls("train.train")
    options = ["--output", "out", "--devices", "2", "--weights", "w", "--compare-weights", "5"]
    changes = ["--set", "iters=3", "--set", "ema=true", "--seed", "7", "--deterministic"]
    assert main(["train", "--config", "c.yml", *options, *changes]) == 0
    assert main(["train", "--resume"]) == 0
    assert main(["train", "--resume", "run"]) == 0
    (args, first), (_, second), (_, third) = recorded
    assert args == ("c.yml",)
    assert first == {
        "overrides": ["iters=3", "ema=true", "seed=7", "deterministic=true"],
        "output": "out",
        "resume": False,
        "weights": "w",
        "devices": 2,
        "compare_weights": 5,
    }
    assert (second["resume"], third["resume"]) == (True, "run")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("bad"), 2, "liteseg train: bad\n"),
        (ProcessFailed("process 1 of 2 was killed"), 1, "process 1 of 2 was killed\n"),
    ],
)
def test_exit_codes_of_train(calls, capsys, error, code, message):
    calls("train.train", error=error)
    assert main(["train", "--config", "c.yml"]) == code
    assert capsys.readouterr().err == message


def test_eval_prints_a_table_and_writes_json(filled_run, tmp_path, capsys):
    command = ["eval", "--config", f"{filled_run}/config.yml", "--weights", f"{filled_run}"]
    file, folder = tmp_path / "sub" / "f.json", tmp_path / "pred"
    assert main([*command, "--json", f"{file}", "--save-pred", f"{folder}"]) == 0
    text = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["config"] == f"{filled_run}/config.yml"
    assert found["weights"] == f"{filled_run}"
    assert found["split"] == "val"
    assert f"mIoU {found['miou']:.4f}  accuracy {found['acc']:.4f}" in text
    assert "images 3" in text
    assert f"3 predictions are in {folder}" in text
    for name, iou in found["class_iou"].items():
        (row,) = re.findall(rf"^{name} +(\S+)", text, re.MULTILINE)
        assert row == f"{100 * iou:.2f}"


def test_eval_without_labels(calls, tmp_path, capsys):
    from liteseg.tasks.evaluate import EvalResult

    calls("evaluate.evaluate", EvalResult({"images": 0}, "c.yml", "w", "test", predictions=5))
    command = ["eval", "--config", "c.yml", "--weights", "w", "--split", "test"]
    assert main([*command, "--save-pred", "pred", "--json", f"{tmp_path}/f.json"]) == 0
    text = capsys.readouterr().out
    assert "5 predictions are in pred" in text
    assert "the images of test have no labels: there is nothing to evaluate" in text
    assert json.loads((tmp_path / "f.json").read_text())["images"] == 0


@pytest.mark.parametrize("command", ["eval", "export"])
def test_weights_are_required(command, tmp_path, capsys):
    options = {
        "eval": ["--config", "quickstart"],
        "export": ["--format", "paddle", "--output", f"{tmp_path / 'out'}"],
    }
    assert main([command, *options[command]]) == 2
    assert "--weights is missing" in capsys.readouterr().err


def test_an_unwritable_json_file_is_reported_before_the_work(tmp_path, capsys, calls):
    recorded = calls("evaluate.evaluate")
    (tmp_path / "file").write_text("")
    command = ["eval", "--config", "quickstart", "--weights", "w"]
    assert main([*command, "--json", f"{tmp_path}/file/f.json"]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert recorded == []


def test_the_config_is_not_replaced_by_results(tmp_path, capsys, calls):
    recorded = calls("evaluate.evaluate")
    config, link = tmp_path / "c.json", tmp_path / "l.json"
    config.write_text("iters: 1")
    link.symlink_to(config)
    for given in (config, link):
        command = ["eval", "--config", f"{config}", "--weights", "w", "--json", f"{given}"]
        assert main(command) == 2
        assert "is the config" in capsys.readouterr().err
    assert recorded == []


def test_predict_reports_skipped_inputs(filled_run, tmp_path, capsys):
    write(tmp_path / "in" / "a.png", draw(0))
    (tmp_path / "in" / "b.png").write_bytes(b"not an image")
    command = ["predict", f"{tmp_path / 'in'}", "--weights", f"{filled_run}", "--what", "mask"]
    for predicted, existing in ((1, ""), (0, "1 were left out, because their results exist\n")):
        options = ["--skip-existing"] * bool(existing)
        assert main([*command, "--output", f"{tmp_path / 'out'}", *options]) == 1
        captured = capsys.readouterr()
        assert re.search(r"^skipped: .*b\.png", captured.err, re.MULTILINE)
        assert captured.out.endswith(
            f"{predicted} of 2 inputs predicted, results are in {tmp_path / 'out'}\n{existing}"
            f"1 failed; their errors are in {tmp_path / 'out' / 'failures.jsonl'}\n"
        )
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == ["a_label.png", "failures.jsonl"]


def test_predict_arguments(calls, tmp_path):
    recorded = calls("predict.predict", PredictResult(tmp_path, 1, {}))
    options = ["--runtime", "openvino", "--threads", "2", "--precision", "bf16", "--device", "cpu"]
    bulk = ["--shard", "1/3", "--skip-existing", "--engine", "ray", "--actors", "2"]
    assert main(["predict", "a.png", "b", "--model", "m", "--output", "out", *options, *bulk]) == 0
    ((args, found),) = recorded
    assert args == (["a.png", "b"], "out")
    assert found.pop("on_skip")
    assert found == {
        "weights": None,
        "model": "m",
        "cfg": None,
        "overrides": [],
        "what": "all",
        "overwrite": False,
        "device": "cpu",
        "runtime": "openvino",
        "threads": 2,
        "precision": "bf16",
        "unknown_below": None,
        "inputs_from": None,
        "shard": (1, 3),
        "skip_existing": True,
        "engine": "ray",
        "ray_address": None,
        "actors": 2,
    }


def test_predict_accepts_every_kind_of_result(calls, tmp_path):
    recorded = calls("predict.predict", PredictResult(tmp_path, 1, {}))
    for kind in ("all", *KINDS):
        assert main(["predict", "a.png", "--weights", "w", "--output", "out", "--what", kind]) == 0
    assert [options["what"] for _, options in recorded] == ["all", *KINDS]


def test_export_prints_the_verification(filled_run, tmp_path, capsys):
    command = ["export", "--weights", f"{filled_run}", "--format", "paddle"]
    command += ["--output", f"{tmp_path / 'out'}", "--num-images", "1"]
    assert main([*command, "--input-size", "100", "70"]) == 0
    text = capsys.readouterr().out
    assert "verified on 1 images: largest logit difference" in text
    assert "% of labels equal, mIoU 0." in text
    assert f"{tmp_path / 'out'}: paddle model model.json, for images of 100x70" in text


def test_export_arguments(calls, tmp_path, capsys):
    from liteseg.tasks.export import ExportResult

    result = ExportResult(tmp_path, "openvino", "model.xml", None, calibration_images=5)
    recorded = calls("export.export", result)
    command = ["export", "--weights", "w", "--format", "openvino", "--output", "out", "--int8"]
    assert main([*command, "--calib", "5", "--no-verify", "--images", "a", "b"]) == 0
    assert main([*command, "--calib", "folder"]) == 0
    (args, first), (_, second) = recorded
    assert args == ("w", "openvino", "out")
    assert first == {
        "cfg": None,
        "temperature": "1",
        "thresholds": {},
        "overrides": [],
        "input_size": None,
        "output_kind": "label",
        "int8": True,
        "calibration": 5,
        "verify": False,
        "images": ["a", "b"],
        "num_images": None,
    }
    assert (second["calibration"], second["verify"]) == ("folder", True)
    text = capsys.readouterr().out
    assert "int8: calibrated on 5 images" in text
    assert "for images of any size" in text
