"""Bad numbers and data with nothing to learn from: defined behavior, no damage."""

from __future__ import annotations

import json
import math

import numpy as np
import paddle
import pytest
from toy_training import (
    ToyImages,
    arrays,
    assert_same,
    cross_entropy,
    evaluation_hooks,
    make_trainer,
)

from liteseg.config.test_config import TestConfig
from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.evaluator import evaluate
from liteseg.engine.hooks import Checkpoint
from liteseg.engine.writers import Dashboard, MetricsFile
from liteseg.errors import UserError
from liteseg.losses import (
    BootstrappedCrossEntropyLoss,
    CrossEntropyLoss,
    DiceLoss,
    LovaszSoftmaxLoss,
    OhemCrossEntropyLoss,
)

EVERY_LOSS = {
    "cross-entropy": CrossEntropyLoss(),
    "bootstrapped": BootstrappedCrossEntropyLoss(min_K=10, loss_th=0.3),
    "ohem": OhemCrossEntropyLoss(min_kept=10),
    "dice": DiceLoss(),
    "lovasz": LovaszSoftmaxLoss(),
}


def losses_of(name):
    return [("main", EVERY_LOSS[name], 1.0), ("aux", EVERY_LOSS[name], 0.4)]


def trained_parameters(trainer):
    return {k: p for k, p in trainer.model.named_parameters() if not p.stop_gradient}


def gradient_breaks_in_call(number, value):
    """A loss whose value is always finite, and whose gradient is not in call number `number`."""
    calls = iter(range(1, 100))

    class Breaking(paddle.autograd.PyLayer):
        @staticmethod
        def forward(ctx, logits):
            return logits.sum() * 0

        @staticmethod
        def backward(ctx, gradient):
            return paddle.full([2, 3, 32, 32], value)

    def loss(logits, label):
        healthy = cross_entropy(logits, label)
        return healthy + Breaking.apply(logits) if next(calls) == number else healthy

    return loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("iteration", [4, 6])
def test_a_gradient_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tmp_path, value, iteration
):
    """In iteration 6 the weights break just when a checkpoint is due."""
    store = Checkpointer(tmp_path)
    losses = [("main", gradient_breaks_in_call(iteration, value), 1.0), ("aux", cross_entropy, 1.0)]
    with pytest.raises(UserError) as error:
        make_trainer(9, [Checkpoint(store, 3)], losses=losses).run()
    message = str(error.value)
    assert "not finite" in message
    assert "The checkpoint of iteration 3 is intact" in message
    if iteration == 6:
        assert "weights are not finite after iteration 6" in message
        assert "in iteration 4 or later" in message
    last = store.load_last()
    assert last.iteration == 3
    assert all(np.isfinite(array).all() for array in arrays(last.weights).values())


class Painted(ToyImages):
    """The toy images with a constant label or image."""

    def __init__(self, label=None, image=None):
        super().__init__(8)
        self.painted = {"label": label, "img": image}

    def load(self, index):
        sample = super().load(index)
        for key, value in self.painted.items():
            if value is not None:
                sample[key] = np.full_like(sample[key], value)
        return sample


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_batches_without_a_labelled_pixel_teach_nothing(name, tmp_path):
    trainer = make_trainer(3, dataset=Painted(label=255), losses=losses_of(name), norm=True)
    before = arrays(trained_parameters(trainer))
    trainer.run()
    assert trainer.take_mean_losses()["loss"] == pytest.approx(0, abs=1e-6)
    for key, value in arrays(trained_parameters(trainer)).items():
        # Only weight decay moves them: at most lr 0.5 x 5e-4 per iteration, and its momentum.
        np.testing.assert_allclose(value, before[key], rtol=2e-3, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", EVERY_LOSS)
@pytest.mark.parametrize("image", [None, 0, 255])
def test_absent_classes_and_constant_images_train(name, image):
    """One class only; with constant images, batch norm has nothing to divide by."""
    dataset = Painted(label=1, image=image)
    trainer = make_trainer(4, dataset=dataset, losses=losses_of(name), norm=True, ema_decay=0.9)
    trainer.run()
    assert math.isfinite(trainer.take_mean_losses()["loss"])
    metrics = evaluate(trainer.model, dataset, TestConfig(), progress=False)
    assert math.isfinite(metrics["miou"])
    assert metrics["class_iou"]["floor"] in (None, 0)


def test_an_evaluation_without_labeled_pixels_has_no_metrics_and_training_continues(tmp_path):
    store, metrics = Checkpointer(tmp_path / "c"), MetricsFile(tmp_path / "metrics.jsonl", -1)
    dashboard = Dashboard(tmp_path / "vdl", -1)
    losses = losses_of("cross-entropy")
    evaluating = evaluation_hooks(1, Painted(label=255), store, metrics, dashboard)
    trainer = make_trainer(2, [*evaluating, Checkpoint(store, 1)], losses=losses)
    trainer.run()
    dashboard.close()
    assert trainer.iteration == 2
    found = [json.loads(line) for line in metrics.path.read_text().splitlines()]
    assert [(line["miou"], line["loss"]) for line in found] == [(None, 0)] * 2
    assert set(found[0]["class_iou"].values()) == {None}


def test_learning_rate_zero_moves_no_weight():
    trainer = make_trainer(3, norm=True)
    trainer.optimizer.set_lr_scheduler(paddle.optimizer.lr.LambdaDecay(0.0, lambda iteration: 1.0))
    before = arrays(trained_parameters(trainer))
    trainer.run()
    assert_same(trained_parameters(trainer), before)
    assert math.isfinite(trainer.take_mean_losses()["loss"])
