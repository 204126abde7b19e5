"""Run directories: the search for configs, foreign plugins, and files that a run may replace."""

from __future__ import annotations

import os

import pytest

from liteseg.cli import main
from liteseg.config.build import build_model
from liteseg.config.check import load_checked
from liteseg.config.load import load_config
from liteseg.config.plugins import load_components
from liteseg.errors import UserError
from liteseg.registry import DATASETS
from liteseg.tasks.runs import (
    config_of,
    file_of_run,
    require_own_output,
    resumes,
    run_directory,
)
from liteseg.tasks.train import train
from liteseg.utils.weights.source import resolve

PLUGIN = """\
open('executed', 'w').close()  # {}
from liteseg.datasets import Streets
from liteseg.registry import DATASETS
DATASETS.register(type("StreetsOfAPlugin", (Streets,), {{}}))
"""
CHANGES = ["plugins=[plugin.py]", "val_dataset.type=StreetsOfAPlugin"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A stranger's run, whose config needs a plugin."""
    load_components()
    monkeypatch.setattr(DATASETS, "_components", dict(DATASETS._components))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    best = folder / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "model.pdparams").write_bytes(b"")
    (tmp_path / "plugin.py").write_text(PLUGIN.format(tmp_path))
    (folder / "config.yml").write_text(load_config("quickstart", CHANGES).dump())
    return folder


def test_plugins_of_a_found_config_do_not_run(run, tmp_path):
    for source in (run, run / "checkpoints", run / "checkpoints" / "best" / "model.pdparams"):
        with pytest.raises(UserError, match=r"config\.yml:.*--trust-plugins"):
            config_of(source)
    with pytest.raises(UserError, match="--trust-plugins"):
        train(resume=run)
    assert not (tmp_path / "executed").exists()
    config_of(run, overrides=["plugins=[]", "val_dataset.type=Streets"])
    assert not (tmp_path / "executed").exists()


def test_plugins_of_a_given_config_run_and_are_logged(run, tmp_path, caplog):
    with caplog.at_level("INFO", "liteseg"):
        config_of(run, run / "config.yml")
    assert (tmp_path / "executed").exists()
    assert f"running {tmp_path / 'plugin.py'}" in caplog.text


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        "loss.types.0={type: LossOfAPlugin, any: 1}",
        "loss.types.0={_inherited_: false, type: MixedLoss, coef: [1],"
        " losses: [{type: LossOfAPlugin}]}",
        "optimizer={type: OptimizerOfAPlugin}",
        "lr_scheduler={type: ScheduleOfAPlugin}",
        "train_dataset.transforms.0={type: TransformOfAPlugin}",
        "train_dataset={type: DatasetOfAPlugin}",
    ],
)
def test_inference_needs_no_plugin_of_training(run, tmp_path, change, given):
    source = load_config("quickstart", [CHANGES[0], change])
    (run / "config.yml").write_text(source.dump())
    cfg = config_of(run, run / "config.yml" if given else None)
    assert cfg.plugins == ["plugin.py"]
    assert not (tmp_path / "executed").exists()
    with pytest.raises(UserError, match="--trust-plugins"):
        train(resume=run)
    # Other errors are still found.
    with pytest.raises(UserError, match=r"model\.backbone\.size"):
        config_of(run, overrides=["model.backbone.size=3"])


@pytest.mark.parametrize(
    "change",
    [
        "model.type=ModelOfAPlugin",
        "model.backbone.type=BackboneOfAPlugin",
        "val_dataset.transforms.0.type=TransformOfAPlugin",
        "{val_dataset=null,train_dataset.transforms.0.type=TransformOfAPlugin}",
    ],
)
def test_inference_needs_plugins_of_its_parts(run, tmp_path, change):
    changes = change.strip("{}").split(",")
    (run / "config.yml").write_text(load_config("quickstart", [CHANGES[0], *changes]).dump())
    with pytest.raises(UserError, match="--trust-plugins"):
        config_of(run)
    assert not (tmp_path / "executed").exists()


def test_only_python_files_are_plugins(tmp_path):
    for name in ("plugin.so", "plugin.pyc", "plugin"):
        (tmp_path / name).write_text(PLUGIN.format(tmp_path / name))
        with pytest.raises(UserError, match="not a Python file"):
            load_checked("quickstart", [f"plugins=[{tmp_path / name}]"])


def test_the_search_stays_inside_the_run(tmp_path, run):
    (tmp_path / "config.yml").write_text("iters: 1")  # of someone else
    assert file_of_run(run / "checkpoints" / "best", "config.yml") == run / "config.yml"
    (run / "config.yml").unlink()
    for source in (run, run / "checkpoints", run / "checkpoints" / "best" / "model.pdparams"):
        assert file_of_run(source, "config.yml") is None
    (tmp_path / "run.pdparams").write_bytes(b"")
    assert file_of_run(tmp_path / "run.pdparams", "config.yml") == tmp_path / "config.yml"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_config_of_another_user_is_not_found(run):
    os.chown(run / "config.yml", 12345, 12345)
    assert file_of_run(run, "config.yml") is None


def test_links_in_a_run_of_others_are_refused(run, tmp_path):
    (tmp_path / "secret.yml").write_text("iters: 1")
    (run / "config.yml").unlink()
    (run / "config.yml").symlink_to(tmp_path / "secret.yml")
    with pytest.raises(UserError, match="is a link to another folder"):
        config_of(run)
    with pytest.raises(UserError, match="outside of"):
        train("quickstart", resume=run)


def test_pipes_are_not_waited_for(tmp_path):
    for name, read in (("c.yml", load_config), ("w.tar", resolve), ("w.pdparams", resolve)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="is not a regular file"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["train.log", "checkpoints", "checkpoints/best", "vdl"])
def test_weights_of_a_run_with_links_that_leave_it_are_refused(run, tmp_path, name):
    if (run / name).exists():
        (run / name).rename(tmp_path / "outside")
    (run / name).symlink_to(tmp_path / "outside")
    best = run / "checkpoints" / "best"
    for source in (run, best, best / "model.pdparams"):
        if source.exists() and (source != run / name):
            with pytest.raises(UserError, match=f"{name}: is a link to .*, outside of"):
                resolve(source)


@pytest.mark.parametrize("name", ["train.log", ".lock", "metrics.jsonl", "checkpoints"])
def test_resuming_follows_no_links(run, tmp_path, name):
    outside = tmp_path / "outside"
    if name == "checkpoints":
        (run / name).rename(outside)
    else:
        outside.write_text("precious")
    (run / name).symlink_to(outside)
    with pytest.raises(UserError, match="outside of"):
        train("quickstart", resume=run)
    assert outside.is_dir() or outside.read_text() == "precious"


@pytest.mark.parametrize(
    "name", ["config.yml", "metrics.jsonl", "report.html", "train.log", "a.png"]
)
def test_a_new_run_keeps_the_files_of_others(tmp_path, name):
    output = tmp_path / "exp1"
    output.mkdir()
    (output / name).write_text("by hand")
    with pytest.raises(UserError, match="which no run has written"):
        train("quickstart", output=output)
    assert [(p.name, p.read_text()) for p in output.iterdir()] == [(name, "by hand")]


def test_a_config_is_not_replaced_by_its_run(tmp_path):
    config = tmp_path / "config.yml"
    config.write_text(load_checked("quickstart").dump())
    (tmp_path / ".lock").touch()  # an earlier run that ended before its first checkpoint
    before = config.read_text()
    with pytest.raises(UserError, match=r"'config\.yml'"):
        train(config, output=tmp_path)
    assert config.read_text() == before


def test_files_that_do_not_prevent_a_run(tmp_path):
    cfg = load_checked("quickstart")
    for name in ("slurm-1.out", "job.log", "launch"):
        (tmp_path / name).touch()
    require_own_output(tmp_path, cfg, resume=False)
    for name in (".lock", "config.yml", "train.log", "metrics.jsonl"):
        (tmp_path / name).touch()
    require_own_output(tmp_path, cfg, resume=False)
    assert run_directory("quickstart", tmp_path, False) == (tmp_path, None)


def test_the_flag_that_trusts_plugins(run, tmp_path, capfd):
    command = ["predict", "a.png", "--weights", str(run), "--output", str(tmp_path / "out")]
    (tmp_path / "a.png").write_bytes(b"")
    assert main(command) == 2
    assert "--trust-plugins" in capfd.readouterr().err
    assert not (tmp_path / "executed").exists()
    assert main([*command, "--trust-plugins"]) == 2  # the weights are empty
    assert "model.pdparams" in capfd.readouterr().err
    assert (tmp_path / "executed").exists()


def test_secrets_of_a_run_are_not_needed(run):
    """A run stores addresses without passwords; its own weights replace those."""
    changes = ["plugins=[]", "model.backbone.pretrained=https://***@h/a.pdparams?***"]
    (run / "config.yml").write_text(load_config("quickstart", changes).dump())
    assert config_of(run).model["backbone"]["pretrained"] is None
    with pytest.raises(UserError, match="was left out of config"):
        resolve("https://h/a.pdparams?***")
    message = r"^model: PPLiteSeg: https://\*\*\*@h/a.pdparams\?\*\*\*: .*give the whole address"
    with pytest.raises(UserError, match=message):
        build_model(load_checked("quickstart", ["model.pretrained=https://***@h/a.pdparams?***"]))


def test_auto_starts_a_run_or_resumes_it(run, tmp_path):
    assert run_directory("quickstart", tmp_path, "auto") == (tmp_path, None)
    assert run_directory("quickstart", None, "auto")[0].name == "quickstart"
    assert resumes(tmp_path, "auto") is False
    (tmp_path / "checkpoints" / ".last.tmp").mkdir(parents=True)  # killed in its first checkpoint
    assert resumes(tmp_path, "auto") is False
    (tmp_path / "checkpoints" / "last").mkdir()
    assert resumes(tmp_path, "auto") is True


@pytest.mark.parametrize("resume", [True, "auto"])
def test_a_run_of_another_machine_needs_a_config(resume, tmp_path):
    if resume is True:
        (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    with pytest.raises(UserError, match=r"config.yml is not on this machine, so give --config"):
        train(output=tmp_path, resume=resume)


def test_an_export_is_not_trained_weights(tmp_path):
    (tmp_path / "liteseg.json").write_text("{}")
    with pytest.raises(UserError, match="an exported model, not trained weights"):
        config_of(tmp_path)
