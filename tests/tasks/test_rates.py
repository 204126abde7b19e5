"""The table of `liteseg config show`, and trainings with frozen layers and groups."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

import liteseg
from liteseg.cli import main
from liteseg.config.check import check
from liteseg.config.load import load_config
from liteseg.errors import UserError
from liteseg.utils.weights.load import read_pdparams, read_state

ENCODER, OTHERS = "5,318,304", "2,821,696"  # of PP-LiteSeg-T with the quickstart's nine classes
GROUPS = "optimizer.custom_cfg=[{name: norm, weight_decay_mult: 0}, {name: backbone, lr_mult: 0.1}]"


def shown(capsys, *overrides, config="quickstart"):
    """The rows of the table, and the YAML above it."""
    changes = [part for override in overrides for part in ("--set", override)]
    assert main(["config", "show", config, *changes]) == 0
    text, _, table = capsys.readouterr().out.partition("\n\n# ")
    return [line.lstrip("# ").split("  ") for line in table.splitlines()], yaml.safe_load(text)


def cells(row):
    return [cell.strip() for cell in row if cell.strip()]


def test_the_table_of_rates(capsys):
    rows, config = shown(capsys)
    assert config["freeze"] is None
    header = ["parameters", "arrays", "weights", "lr_mult", "learning rate", "weight decay"]
    assert cells(rows[0]) == header
    assert [cells(row) for row in rows[1:]] == [["all", "151", "8,140,000", "1", "0.002", "0.01"]]
    rows, _ = shown(capsys, GROUPS)
    assert [cells(row) for row in rows[1:]] == [
        ["norm", "38", "2,450", "1", "0.002", "0"],
        ["backbone", "87", ENCODER, "0.1", "0.0002", "0.01"],
        ["others", "26", "2,819,246", "1", "0.002", "0.01"],
    ]
    rows, _ = shown(capsys, "freeze=[backbone]", "lr_scheduler.learning_rate=0.5")
    assert [cells(row) for row in rows[1:]] == [
        ["all", "64", OTHERS, "1", "0.5", "0.01"],
        ["backbone", "87", ENCODER, "frozen", "-", "-"],
    ]
    rows, _ = shown(capsys, "optimizer={_inherited_: false, type: SGD, backbone_lr_mult: 0}")
    assert cells(rows[1]) == ["backbone.*", "87", ENCODER, "0", "0", "0"]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("freeze=[bakbone]", "freeze: 'bakbone' selects no parameter; similar: backbone"),
        (
            "optimizer.custom_cfg=[{name: hed}]",
            "optimizer.custom_cfg.0: 'hed' selects no parameter",
        ),
    ],
)
def test_names_that_the_network_does_not_have(capsys, override, problem):
    for action in ("show", "check"):
        assert main(["config", action, "quickstart", "--set", override]) == 2
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    "value",
    [
        "{name: backbone}",
        "[{lr_mult: 0.1}]",
        "[{name: backbone, lr_mul: 0.1}]",
        "[{name: backbone, lr_mult: slow}]",
        "[backbone]",
    ],
)
def test_entries_of_another_form(value):
    (problem,) = check(load_config("quickstart", [f"optimizer.custom_cfg={value}"]))
    assert problem.startswith(
        "optimizer.custom_cfg: expected a list of {name: text, lr_mult: a number, "
        "weight_decay_mult: a number} or null, found "
    )


def test_names_are_supplied():
    (problem,) = check(load_config("quickstart", ["optimizer.names=[a]"]))
    assert "must not be given here: liteseg passes the names" in problem


def test_an_encoder_stays_as_it_was_and_a_head_does_not(streets_config, streets_run, tmp_path):
    overrides = ["freeze=[backbone]", "optimizer.custom_cfg=[{name: arm_list, lr_mult: 0}]"]
    liteseg.train(streets_config, overrides=overrides, output=tmp_path, weights=streets_run)
    before = read_pdparams(streets_run / "checkpoints/best/model.pdparams")
    after = read_pdparams(tmp_path / "checkpoints/last/model.pdparams")
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    statistics = {key for key in before if key.endswith(("_mean", "_variance"))}
    rated = {key for key in before if "arm_list" in key} - statistics
    assert not any(key.startswith("backbone.") for key in changed)
    assert not changed & {k for k in rated if k.endswith("_batch_norm.weight")}  # no weight decay
    assert {"seg_heads.0.conv_out.weight", "ppseg_head.cm.conv_out._batch_norm._mean"} <= changed
    slots = read_state(tmp_path / "checkpoints/last/training.pdstate")["optimizer"]["slots"]
    assert slots
    assert not any(slot.startswith("backbone.") for slot in slots)
    assert "freeze:" in (tmp_path / "config.yml").read_text()
    log = [line.split() for line in (tmp_path / "train.log").read_text().splitlines()]
    assert ["backbone", "87", ENCODER, "frozen", "-", "-"] in [line[-6:] for line in log]


def test_a_pattern_without_a_parameter_ends_before_training(streets_config, tmp_path):
    with pytest.raises(UserError, match="freeze: 'encoder' selects no parameter; the network has"):
        liteseg.train(streets_config, overrides=["freeze=[encoder]"], output=tmp_path)
    assert not (tmp_path / "checkpoints").exists()
