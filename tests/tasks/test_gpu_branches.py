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
from liteseg.config.check import load_checked
from liteseg.engine.evaluator import evaluate
from liteseg.errors import UserError
from liteseg.ops import device
from liteseg.tasks import train as training
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


def test_out_of_memory_in_an_evaluation_or_a_prediction(filled_run, monkeypatch):
    cfg = liteseg.load_config(filled_run / "config.yml")
    segmenter = Segmenter.from_pretrained(filled_run, cfg, device="cpu")
    model = segmenter.network.model

    def exhaust(images):
        raise MemoryError("Out of memory error on GPU 0. Cannot allocate 2.0GB memory on GPU 0")

    monkeypatch.setattr(model, "coarse_logits", exhaust)
    with pytest.raises(
        UserError, match=r"\(allocating 2.0GB\): predicting 1 x 100x70 at once; give"
    ):
        segmenter.predict(draw(0))
    with pytest.raises(
        UserError, match=r"runs the network on 1 x 100x70; give windows: test_config"
    ):
        evaluate(model, liteseg.build_dataset(cfg, "val"), liteseg.TestConfig())


@pytest.mark.parametrize("requested", [True, False])
def test_the_search_for_algorithms_is_an_option(streets_config, monkeypatch, requested):
    flags = {}
    monkeypatch.setattr(paddle, "set_flags", flags.update)
    monkeypatch.setattr(training, "select_device", lambda name: "gpu")
    override = [f"cudnn_exhaustive_search={str(requested).lower()}"]
    training.set_up_device(load_checked(streets_config, override))
    assert flags == ({"FLAGS_cudnn_exhaustive_search": True} if requested else {})


def test_a_training_is_refused_where_paddle_would_switch_amp_off(streets_config, monkeypatch):
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(paddle.device.cuda, "get_device_name", lambda: "Tesla V100-SXM2-16GB")
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    monkeypatch.setattr(paddle.amp, "is_float16_supported", lambda: True)
    cfg = load_checked(streets_config, ["amp={dtype: bfloat16}"])
    with pytest.raises(UserError, match=r"bfloat16 needs compute capability 8\.0, and Tesla V100"):
        training.training_options(cfg, "gpu")
    cfg = load_checked(streets_config, ["amp=true"])
    assert training.training_options(cfg, "gpu").amp == {"level": "O1", "dtype": "float16"}
