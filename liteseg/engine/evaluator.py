"""Evaluation: every image of a dataset through the network once, into one confusion matrix."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import numpy as np
import paddle

from liteseg.engine.inference import Prediction, TestConfig, predict
from liteseg.engine.loader import validation_batches
from liteseg.engine.timing import Clock
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix
from liteseg.utils import logging
from liteseg.utils.runtime import is_main, rank, world_size

Losses = Sequence[tuple[str, Callable, float]]


def evaluate(
    model: paddle.nn.Layer,
    dataset: Any,
    test: TestConfig,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    losses: Optional[Losses] = None,
    progress: bool = True,
    on_prediction: Optional[Callable[[int, dict, np.ndarray], None]] = None,
) -> dict[str, Any]:
    """Evaluate `model` on `dataset`; with several processes each takes a share, all get the result.

    Memory is that of one batch, whatever the length of the dataset.

    Args:
        model: put into eval mode for the time, then back into the modes it was in.
        dataset: with `load`, `samples`, `transforms`, `classes` and `ignore_index`.
        test: scales, flips, sliding window.
        batch_size: images of equal size to run together.
        num_workers: processes that read ahead; 0 reads in a thread of this one.
        losses: (name, loss, coefficient) to apply to the logits at the size of the label.
        progress: show a bar (main process only).
        on_prediction: called with the index in the dataset, the sample (`img` (H, W, 3) uint8 after
            the transforms, `label` (h, w) uint8) and the prediction (h, w) uint8. With it, images
            without a label are predicted too, and not counted.

    Returns:
        The figures of `ConfusionMatrix.compute`; `confusion`: pixels, for each class of the labels
        a list with a number for each predicted class; `loss` and `losses` {name: mean}, if asked
        for; `seconds`, `images_per_second`, and `timings`: seconds of this process spent waiting
        for `data`, in the `network` (with the arg-max) and `counting`.

    Raises:
        UserError: a file can't be read, a label holds a value outside the classes, or the model
            and the dataset differ in the number of classes.
    """
    matrix = ConfusionMatrix(dataset.num_classes, dataset.ignore_index, dataset.classes)
    mine = range(rank(), len(dataset), world_size())
    sums: dict[str, float] = {name: 0.0 for name, _, _ in losses or ()}
    clock = Clock()
    begin = time.perf_counter()
    labels_needed = on_prediction is None
    batches = validation_batches(dataset, mine, batch_size, num_workers, labels_needed)
    shown = progress and is_main()
    bar = logging.progress(total=len(mine), desc="eval", unit="image", shown=shown)
    with _eval_mode(model), bar, contextlib.closing(batches):
        while True:
            with clock("data"):
                batch = next(batches, None)
            if batch is None:
                break
            with clock("network"):
                result = predict(model, _to_device(dataset, batch), test, batch["trans_info"])
                _require_classes(result, dataset)
                preds = result.labels()
            with clock("losses"):
                if losses and "label" in batch:
                    _add_losses(sums, losses, result, batch["label"])
            with clock("counting"):
                if "label" in batch:
                    _count(matrix, dataset, preds, batch)
            if on_prediction is not None:
                _show(on_prediction, preds, batch)
            bar.update(len(preds))
    _join_processes(matrix, sums)
    seconds = time.perf_counter() - begin
    figures = {**matrix.compute(), "confusion": matrix.matrix.tolist()}
    if losses:
        figures["losses"] = {name: sums[name] / max(matrix.images, 1) for name in sums}
        figures["loss"] = sum(coef * figures["losses"][name] for name, _, coef in losses)
    speed = matrix.images / max(seconds, 1e-9)
    return {**figures, "seconds": seconds, "images_per_second": speed, "timings": dict(clock.spent)}


@contextlib.contextmanager
def _eval_mode(model: paddle.nn.Layer) -> Iterator[None]:
    """Eval mode inside; afterwards each layer is as it was (frozen ones stay frozen)."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def _to_device(dataset: Any, batch: dict[str, Any]) -> paddle.Tensor:
    return dataset.transforms.normalize.planes(paddle.to_tensor(batch["img"].numpy()))


def _require_classes(result: Prediction, dataset: Any) -> None:
    found = result.scores.shape[1]
    if found != dataset.num_classes:
        raise UserError(
            f"the model predicts {found} classes, the dataset has {dataset.num_classes}; "
            "use the weights and the config that belong together"
        )


def _add_losses(
    sums: dict[str, float], losses: Losses, result: Prediction, label: paddle.Tensor
) -> None:
    with paddle.no_grad():
        logits, label = result.logits(), paddle.to_tensor(label.numpy()).astype("int64")
        for name, loss, _ in losses:
            sums[name] += float(loss(logits, label)) * len(label)


def _count(matrix: ConfusionMatrix, dataset: Any, preds: np.ndarray, batch: dict) -> None:
    for index, label, pred in zip(batch["index"], batch["label"].numpy(), preds):
        try:
            matrix.update(pred, label)
        except ValueError as error:
            raise UserError(f"{dataset.samples[index].label}: {error}") from None


def _show(on_prediction: Callable, preds: np.ndarray, batch: dict) -> None:
    arrays = {key: batch[key].numpy() for key in ("img", "label") if key in batch}
    arrays["img"] = np.ascontiguousarray(arrays["img"].transpose(0, 2, 3, 1))
    for place, index in enumerate(batch["index"]):
        sample = {key: array[place] for key, array in arrays.items()}
        on_prediction(index, sample, preds[place])


def _join_processes(matrix: ConfusionMatrix, sums: dict[str, float]) -> None:
    """Add what the other processes found: one reduction of the counts, at the end."""
    if world_size() == 1:
        return
    counts = paddle.to_tensor(np.append(matrix.matrix, matrix.images))
    paddle.distributed.all_reduce(counts)
    counts = counts.numpy()
    matrix.matrix, matrix.images = counts[:-1].reshape(matrix.matrix.shape), int(counts[-1])
    if sums:
        totals = paddle.to_tensor(np.array(list(sums.values()), np.float64))
        paddle.distributed.all_reduce(totals)
        sums.update(zip(sums, totals.numpy().tolist()))
