"""The peer that runs liteseg as its commands do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Optional

import numpy as np
import protocol

import liteseg  # noqa: F401  before Paddle
from liteseg.config.test_config import TestConfig
from liteseg.datasets import CamVid, Cityscapes
from liteseg.engine.evaluator import evaluate
from liteseg.engine.loader import training_batch
from liteseg.engine.trainer import Trainer, TrainOptions
from liteseg.losses import OhemCrossEntropyLoss
from liteseg.metrics import ConfusionMatrix
from liteseg.models import STDC1, PPLiteSeg
from liteseg.ops.device import select_device
from liteseg.transforms import (
    Compose,
    Normalize,
    RandomDistort,
    RandomHorizontalFlip,
    RandomPaddingCrop,
    ResizeStepScaling,
)
from liteseg.utils.images import stack_planes
from liteseg.utils.weights.load import load_weights

import paddle  # isort: skip


def _model(classes: int, weights: Path) -> paddle.nn.Layer:
    model = PPLiteSeg(classes, STDC1(), **protocol.MODEL)
    load_weights(model, str(weights))
    return model


def _training_samples(work: Path, pack: Optional[str] = None) -> protocol.Case:
    transforms = [
        ResizeStepScaling(*protocol.SCALES),
        RandomPaddingCrop(protocol.CROP),
        RandomHorizontalFlip(),
        RandomDistort(**protocol.JITTER),
        Normalize(),
    ]
    dataset = Cityscapes(transforms, str(work / "cityscapes"), "train", pack=pack)
    counter = itertools.count()

    def run():
        keys = [next(counter) for _ in range(protocol.SAMPLES_PER_RUN)]
        batch = training_batch([dataset[key % len(dataset), key] for key in keys])
        return dataset.transforms.normalize.planes(paddle.to_tensor(batch["img"]))

    def result():
        found = {}
        for number, scale in enumerate(protocol.scales()):
            crop = RandomPaddingCrop(protocol.CROP)
            transforms = Compose([ResizeStepScaling(scale, scale, 0), crop])
            raw = dataset.load(number % len(dataset))
            sample = transforms(raw, protocol.LegacyGenerator(number))
            found[f"image at {scale}"] = sample["img"]
            found[f"label at {scale}"] = sample["label"]
        return found

    return protocol.Case(run, result)


def _packed_samples(work: Path) -> protocol.Case:
    return _training_samples(work, str(work / "cityscapes.pack"))


def _counts(work: Path) -> protocol.Case:
    pred, label = protocol.prediction()

    def run():
        matrix = ConfusionMatrix(19, protocol.IGNORE)
        matrix.update(pred, label)
        return matrix.matrix

    def result():
        matrix = run()
        return {
            "hits": np.diag(matrix),
            "area of prediction": matrix.sum(axis=0),
            "area of label": matrix.sum(axis=1),
        }

    return protocol.Case(run, result)


def _ohem(work: Path) -> protocol.Case:
    pixels = protocol.ohem_batch()[1].size
    return protocol.ohem_case(paddle, OhemCrossEntropyLoss(min_kept=int(pixels * protocol.KEPT)))


class _OneBatch:
    """The attributes of a dataset that the trainer reads; its batches come from elsewhere."""

    seed = 0
    transforms = Compose([Normalize()])


def _training_iteration(work: Path) -> protocol.Case:
    images, label = protocol.train_batch()
    images, label = paddle.to_tensor(stack_planes(images)), paddle.to_tensor(label)
    batch = {"img": images, "label": label, "index": paddle.arange(len(images))}
    kept = int(label.size * protocol.KEPT)
    losses = [(f"head{i}", OhemCrossEntropyLoss(min_kept=kept), 1.0) for i in range(3)]

    def training():
        model = _model(protocol.TRAIN_CLASSES, work / "train.pdparams")
        model.train()
        rate = paddle.optimizer.lr.LambdaDecay(protocol.LEARNING_RATE, lambda iteration: 1.0)
        optimizer = paddle.optimizer.Momentum(rate, 0.9, model.parameters(), weight_decay=5e-4)
        options = TrainOptions(iters=1, batch_size=len(images))
        return Trainer(model, _OneBatch(), losses, optimizer, options)

    trainer = training()

    def iterate(trainer):
        trainer.run_iteration(iter([batch]))
        return list(trainer.take_mean_losses().values())[1:]

    def result():
        trainer = training()
        weights = {key: value.numpy() for key, value in trainer.model.state_dict().items()}
        losses = iterate(trainer)
        now = {key: value.numpy() for key, value in trainer.model.state_dict().items()}
        return {"losses": np.array(losses), **protocol.updates(weights, now)}

    return protocol.Case(lambda: iterate(trainer), result)


def _evaluation(model, dataset, test: TestConfig, batch_size: int = 1) -> protocol.Case:
    model.eval()
    with paddle.no_grad():
        model(paddle.zeros([1, 3, 64, 64]))  # warm-up
    metrics = {}

    def run():
        metrics.update(evaluate(model, dataset, test, batch_size=batch_size, progress=False))

    def result():
        # PaddleSeg 2.8 gives 0 to a class that is in neither labels nor predictions.
        iou = [iou or 0.0 for iou in metrics["class_iou"].values()]
        scalars = {"accuracy": metrics["acc"], "kappa": metrics["kappa"]}
        return {"IoU": np.array(iou), **{key: np.array(value) for key, value in scalars.items()}}

    return protocol.Case(run, result)


def _evaluate_cityscapes(work: Path) -> protocol.Case:
    dataset = Cityscapes([Normalize()], str(work / "cityscapes"), "val")
    test = TestConfig(aug_eval=True, scales=(protocol.CITYSCAPES_SCALE,))
    return _evaluation(_model(19, work / "cityscapes.pdparams"), dataset, test)


def _evaluate_camvid(work: Path) -> protocol.Case:
    dataset = CamVid([Normalize()], str(work / "camvid"), "val")
    model = _model(11, work / "camvid.pdparams")
    return _evaluation(model, dataset, TestConfig(), batch_size=4)  # as in the configs


CASES = {
    "samples from PNG": _training_samples,
    "samples from a pack": _packed_samples,
    "confusion counts": _counts,
    "OHEM head": _ohem,
    "training iteration": _training_iteration,
    "evaluate Cityscapes": _evaluate_cityscapes,
    "evaluate CamVid": _evaluate_camvid,
}

if __name__ == "__main__":
    select_device("cpu")
    protocol.serve(f"liteseg, Paddle {paddle.__version__}", CASES)
