"""The configuration of Paddle Inference, without running it."""

from __future__ import annotations

from pathlib import Path

import paddle.inference
import pytest

from liteseg.deploy import runtimes
from liteseg.deploy.runtimes import PaddleInference


class Predictor:
    def get_input_names(self):
        return ["image"]

    def get_input_handle(self, name):
        return name


@pytest.mark.parametrize(
    ("suffix", "device", "expected"),
    [
        # 2.6.2 computes wrong logits with graph optimizations on a CPU; on a GPU nobody measured.
        (".pdmodel", "gpu", [("switch_ir_optim", False), ("enable_use_gpu", 256, 0)]),
        (".pdmodel", "cpu", [("switch_ir_optim", False), ("disable_gpu",)]),
        (".json", "gpu", [("enable_use_gpu", 256, 0)]),
        (".json", "cpu", [("disable_gpu",), ("enable_mkldnn",)]),
    ],
)
def test_options_of_paddle_inference(monkeypatch, suffix, device, expected):
    calls = []

    class Config:
        def __init__(self, *files):
            assert files == (f"model{suffix}", "model.pdiparams")

        def __getattr__(self, name):
            return lambda *arguments: calls.append((name, *arguments))

    monkeypatch.setattr(paddle.inference, "Config", Config)
    monkeypatch.setattr(paddle.inference, "create_predictor", lambda config: Predictor())
    monkeypatch.setattr(runtimes, "require_known_operators", lambda path: None)
    PaddleInference(Path(f"model{suffix}"), device, 1, "fp32")
    names = {"switch_ir_optim", "enable_use_gpu", "disable_gpu", "enable_mkldnn"}
    assert [call for call in calls if call[0] in names] == expected
