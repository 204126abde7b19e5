"""Checking a config computes nothing on a device: its process must not open a GPU."""

from __future__ import annotations

import paddle
import pytest
from conftest import ROOT

from liteseg.cli import main

CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yml") if path.parent.name != "_base_")
LOSSES = [
    "{type: CrossEntropyLoss, weight: [1, 2, 3, 4, 5, 6, 7, 8, 9], logit_shift: 0.5}",
    "{type: OhemCrossEntropyLoss, weight: auto}",
    "{type: BootstrappedCrossEntropyLoss, min_K: 9, loss_th: 1.0, weight: enet}",
    "{type: MixedLoss, losses: [{type: DiceLoss, weight: auto}, {type: LovaszSoftmaxLoss}], "
    "coef: [1, 1]}",
]


@pytest.fixture
def no_device(monkeypatch):
    """Every operator and every new tensor fails."""

    def fail(*arguments, **options):
        pytest.fail("computed on a device")

    for name in dir(paddle._C_ops):
        if not name.startswith("_"):
            monkeypatch.setattr(paddle._C_ops, name, fail)
    monkeypatch.setattr(paddle, "to_tensor", fail)
    monkeypatch.setattr(paddle, "set_device", fail)
    monkeypatch.setattr(paddle.nn.Layer, "create_parameter", fail)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs(config, no_device, capsys):
    assert main(["config", "check", str(config)]) == 0, capsys.readouterr()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss, no_device, capsys):
    override = f"loss.types=[{loss}]"
    assert (
        main(["config", "check", "quickstart", "--set", override, "--set", "loss.coef=[1]"]) == 0
    ), capsys.readouterr()
