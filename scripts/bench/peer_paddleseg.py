"""The peer that runs PaddleSeg as its tools do: liteseg is compared with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import paddleseg
import paddleseg.transforms as T
import protocol
from paddleseg.core import evaluate
from paddleseg.core.train import loss_computation
from paddleseg.datasets import Cityscapes, Dataset
from paddleseg.models import STDC1, OhemCrossEntropyLoss, PPLiteSeg
from paddleseg.utils.metrics import calculate_area

_concat = paddle.concat


def _concat_scalars(parts, *args, **kwargs):
    """PaddleSeg counts areas for Paddle 2.4, whose sums are vectors of one element."""
    return _concat(
        [part.reshape([1]) if part.ndim == 0 else part for part in parts], *args, **kwargs
    )


paddle.concat = _concat_scalars


def _add_as_paddle_2(a, b):
    """Add integers to floats, as PaddleSeg's OHEM does and Paddle 3 refuses."""
    if isinstance(b, paddle.Tensor) and a.is_floating_point() and not b.is_floating_point():
        b = b.astype(a.dtype)
    return paddle.add(a, b) if isinstance(b, paddle.Tensor) else _add(a, b)


_add = paddle.Tensor.__add__
if paddle.__version__.startswith("3."):
    paddle.Tensor.__add__ = _add_as_paddle_2


def _model(classes: int, weights: Path) -> paddle.nn.Layer:
    model = PPLiteSeg(classes, STDC1(), **protocol.MODEL)
    model.set_state_dict(paddle.load(str(weights)))
    return model


def _training_samples(work: Path) -> protocol.Case:
    low, high, step = protocol.SCALES
    transforms = [
        T.ResizeStepScaling(low, high, step),
        T.RandomPaddingCrop(protocol.CROP),
        T.RandomHorizontalFlip(),
        T.RandomDistort(**protocol.JITTER),
        T.Normalize(),
    ]
    dataset = Cityscapes(transforms, str(work / "cityscapes"), "train")
    np.random.seed(0)

    def run():
        samples = [dataset[i % len(dataset)] for i in range(protocol.SAMPLES_PER_RUN)]
        return paddle.to_tensor(np.stack([sample["img"] for sample in samples]))

    def result():
        found = {}
        for number, scale in enumerate(protocol.scales()):
            np.random.seed(number)
            transforms = [T.ResizeStepScaling(scale, scale), T.RandomPaddingCrop(protocol.CROP)]
            dataset = Cityscapes(transforms, str(work / "cityscapes"), "train")
            sample = dataset[number % len(dataset)]
            found[f"image at {scale}"] = sample["img"].transpose(1, 2, 0)
            found[f"label at {scale}"] = sample["label"]
        return found

    return protocol.Case(run, result)


def _counts(work: Path) -> protocol.Case:
    pred, label = protocol.prediction()
    tensors = paddle.to_tensor(pred[None, None], "int32"), paddle.to_tensor(label[None], "int64")

    def run():
        return calculate_area(*tensors, 19, protocol.IGNORE)

    def result():
        names = ("hits", "area of prediction", "area of label")
        return {name: areas.numpy() for name, areas in zip(names, run())}

    return protocol.Case(run, result)


def _ohem(work: Path) -> protocol.Case:
    pixels = protocol.ohem_batch()[1].size
    return protocol.ohem_case(paddle, OhemCrossEntropyLoss(min_kept=int(pixels * protocol.KEPT)))


def _training_iteration(work: Path) -> protocol.Case:
    images, label = protocol.train_batch()
    images = ((images / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).astype("float32")
    images, label = paddle.to_tensor(images), paddle.to_tensor(label)
    kept = int(label.size * protocol.KEPT)
    losses = {"types": [OhemCrossEntropyLoss(min_kept=kept)] * 3, "coef": [1, 1, 1]}

    def training():
        model = _model(protocol.TRAIN_CLASSES, work / "train.pdparams")
        model.train()
        optimizer = paddle.optimizer.Momentum(
            protocol.LEARNING_RATE, 0.9, model.parameters(), weight_decay=5e-4
        )

        def iterate():
            found = loss_computation(model(images), label.astype("int64"), None, losses)
            sum(found).backward()
            optimizer.step()
            model.clear_gradients()
            return [float(loss) for loss in found]

        return model, iterate

    _, iterate = training()

    def result():
        model, iterate = training()
        weights = {key: value.numpy() for key, value in model.state_dict().items()}
        losses = iterate()
        now = {key: value.numpy() for key, value in model.state_dict().items()}
        return {"losses": np.array(losses), **protocol.updates(weights, now)}

    return protocol.Case(iterate, result)


def _evaluation(model, dataset, **options) -> protocol.Case:
    model.eval()
    with paddle.no_grad():
        model(paddle.zeros([1, 3, 64, 64]))  # warm-up
    metrics = []

    def run():
        metrics[:] = evaluate(model, dataset, print_detail=False, **options)

    def result():
        _, acc, class_iou, _, kappa = metrics
        return {"accuracy": np.array(acc), "IoU": np.array(class_iou), "kappa": np.array(kappa)}

    return protocol.Case(run, result)


def _evaluate_cityscapes(work: Path) -> protocol.Case:
    dataset = Cityscapes([T.Normalize()], str(work / "cityscapes"), "val")
    model = _model(19, work / "cityscapes.pdparams")
    scale = protocol.CITYSCAPES_SCALE
    return _evaluation(model, dataset, aug_eval=True, scales=scale, flip_horizontal=False)


def _evaluate_camvid(work: Path) -> protocol.Case:
    root = work / "camvid"
    dataset = Dataset("val", str(root), [T.Normalize()], 11, val_path=str(root / "val.txt"))
    return _evaluation(_model(11, work / "camvid.pdparams"), dataset)


CASES = {
    "samples from PNG": _training_samples,
    "samples from a pack": _training_samples,
    "confusion counts": _counts,
    "OHEM head": _ohem,
    "training iteration": _training_iteration,
    "evaluate Cityscapes": _evaluate_cityscapes,
    "evaluate CamVid": _evaluate_camvid,
}

if __name__ == "__main__":
    protocol.serve(f"PaddleSeg {paddleseg.__version__}, Paddle {paddle.__version__}", CASES)
