"""The operators of a GPU, on the CPU, against those of the CPU: update, evaluation, prediction.

`tests/ops/test_implementations.py` compares losses and gradients. Here "a GPU" is
`device.is_eager_cpu` answering no everywhere.
"""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from filled_run import draw

import liteseg
from liteseg.config.build import build_losses
from liteseg.engine.evaluator import evaluate
from liteseg.ops import device
from liteseg.tasks.segmenter import Segmenter

RECIPE = [
    "loss.types=[{type: OhemCrossEntropyLoss, min_kept: 1000}]",
    "optimizer={_inherited_: false, type: SGD, weight_decay: 0.0005}",
    "lr_scheduler.learning_rate=0.01",
    "lr_scheduler.warmup_iters=0",
    "grad_clip=5.0",
    "ema=true",
    "iters=2",
]


def on_both(monkeypatch, function):
    """The results of the CPU's and of the GPU's operators."""
    cpu = function()
    with monkeypatch.context() as forced:
        forced.setattr(device, "is_eager_cpu", lambda x: False)
        return cpu, function()


def test_two_updates_of_the_weights(streets_config, monkeypatch):
    def train():
        paddle.seed(0)
        cfg = liteseg.load_config(streets_config, RECIPE)
        trainer = liteseg.build_trainer(cfg, liteseg.build_dataset(cfg, "train"), "cpu")
        before = {key: value.numpy() for key, value in trainer.model.state_dict().items()}
        trainer.run()
        after, _ = trainer.checkpoint()
        return trainer.take_mean_losses(), before, {k: v.numpy() for k, v in after.items()}

    (losses, before, after), (other_losses, other_before, other) = on_both(monkeypatch, train)
    assert other_losses == pytest.approx(losses, rel=1e-4)
    moved = max(np.abs(after[key] - before[key]).max() for key in after)
    for key in after:
        np.testing.assert_array_equal(other_before[key], before[key])
        # Batch norm over two values (SPPM pools to 1x1) amplifies rounding a thousandfold.
        np.testing.assert_allclose(other[key], after[key], atol=1e-2 * moved, err_msg=key)


def test_the_log_announces_the_precision(streets_run):
    (line,) = [x for x in (streets_run / "train.log").read_text().splitlines() if "Paddle" in x]
    assert line.endswith("precision float32")


def test_an_evaluation_with_losses(filled_run, monkeypatch):
    cfg = liteseg.load_config(filled_run / "config.yml")
    dataset, model = liteseg.build_dataset(cfg, "val"), Segmenter.from_pretrained(filled_run)
    options = {"losses": build_losses(cfg, 1), "batch_size": 1}

    def run():
        return evaluate(model.network.model, dataset, liteseg.TestConfig(), **options)

    found, other = on_both(monkeypatch, run)
    assert other["loss"] == pytest.approx(found["loss"], rel=1e-5)
    different = np.abs(np.subtract(other["confusion"], found["confusion"])).sum() / 2
    assert different <= 1e-3 * np.sum(found["confusion"])


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("test_config.scales=[0.75, 1.0]", "test_config.flip_horizontal=true"),
        ("test_config={aug_eval: false, is_slide: true, crop_size: [64, 48], stride: [48, 32]}",),
    ],
    ids=["one pass", "views", "windows"],
)
def test_predictions(filled_run, monkeypatch, changes):
    cfg = liteseg.load_config(filled_run / "config.yml", changes)
    segmenter = Segmenter.from_pretrained(filled_run, cfg, device="cpu")
    for seed in range(3):
        cpu, gpu = on_both(monkeypatch, lambda seed=seed: segmenter.predict(draw(seed)))
        assert (cpu == gpu).mean() > 0.999
