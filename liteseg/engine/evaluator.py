"""Evaluation: every image of a dataset through the network once, and what is collected from it."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Protocol, Union

import numpy as np
import paddle

from liteseg.engine.inference import Prediction, predict
from liteseg.engine.loader import validation_batches
from liteseg.engine.timing import Clock
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix
from liteseg.ops.device import explained_out_of_memory
from liteseg.ops.exclusive import exclusive, give_way
from liteseg.utils import logging
from liteseg.utils.runtime import gathered_objects, is_main, rank, world_size

if TYPE_CHECKING:
    from liteseg.engine.inference import TestOptions

Losses = Sequence[tuple[str, Callable, float]]


class LabelNetwork(Protocol):
    """A network outside of Paddle, such as an exported model, that normalizes images itself."""

    def labels(
        self, images: np.ndarray, trans_info: Sequence[tuple[str, Sequence[int]]]
    ) -> Sequence[np.ndarray]:
        """The labels (h, w) uint8 of images (N, H, W, 3) uint8 RGB, at their original sizes."""

    def probabilities(
        self, images: np.ndarray, trans_info: Sequence[tuple[str, Sequence[int]]]
    ) -> np.ndarray:
        """(N, C, h, w) float32 probabilities, arguments as of `labels`."""


class Evaluator(Protocol):
    """Collects something from every image of an evaluation; `evaluate` runs several at once.

    With several processes each evaluates a share of the images. `evaluate` gathers the states of
    all processes once, at the end, and passes them to `compute` in every process.

    Attributes:
        state: the data that `update` has collected in this process; must be picklable.
        needs_images: whether samples are to contain `img`.
        needs_logits: whether samples are to contain `logits`, (C, h, w) float32 at the original
            size; they cost time and memory.
    """

    state: Any = None
    needs_images: bool = True
    needs_logits: bool = False

    def reset(self) -> None:
        """Start a new evaluation."""
        return

    def update(self, index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray) -> None:
        """Add one image.

        Args:
            index: number of the sample in the dataset.
            sample: `img` (H, W, 3) uint8 RGB after the validation transforms, `label` (h, w)
                uint8 at the original size, absent if the image has none.
            prediction: class indices at the original size, (h, w) uint8.
        """
        return

    def compute(self, states: Sequence[Any]) -> dict[str, Any]:
        """Results to add to those of `evaluate`.

        Args:
            states: `state` of every process, in the order of their ranks.
        """
        return {}


class SegmentationMetrics(Evaluator):
    """The metrics of `ConfusionMatrix.compute`, and the matrix itself as `confusion`.

    Images without a label don't count.
    """

    state: ConfusionMatrix

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.reset()

    def _matrix(self) -> ConfusionMatrix:
        dataset = self.dataset
        return ConfusionMatrix(dataset.num_classes, dataset.ignore_index, dataset.classes)

    def reset(self) -> None:
        """Set all counts to zero."""
        self.state = self._matrix()

    def update(self, index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray) -> None:
        """Count the pixels of one image.

        Raises:
            UserError: the label holds a value outside the classes.
        """
        if "label" not in sample:
            return
        try:
            self.state.update(prediction, sample["label"])
        except ValueError as error:
            raise UserError(f"{self.dataset.samples[index].label}: {error}") from None

    def compute(self, states: Sequence[ConfusionMatrix]) -> dict[str, Any]:
        """The metrics over the images of all processes."""
        total = self._matrix()
        for matrix in states:
            total.merge(matrix)
        return {**total.compute(), "confusion": total.matrix.tolist()}


@exclusive
def evaluate(
    model: Union[paddle.nn.Layer, LabelNetwork],
    dataset: Any,
    test_config: TestOptions,
    evaluators: Sequence[Evaluator] = (),
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    losses: Optional[Losses] = None,
    progress: bool = True,
    require_labels: bool = True,
    limit: Optional[int] = None,
    require_finite: bool = False,
) -> dict[str, Any]:
    """Evaluate `model` on `dataset`; several processes share the images, and all get the result.

    Memory is that of one batch, for a dataset of any length. Other threads may compute between
    batches; see `liteseg.ops.exclusive`.

    Args:
        model: put into eval mode meanwhile; its modes are restored at the end. Or an exported
            model, which needs no normalization, and whose options are fixed.
        dataset: with `load`, `samples`, `transforms`, `classes` and `ignore_index`.
        test_config: scales, flips, sliding window.
        evaluators: receive every image, besides the metrics.
        batch_size: images of equal size per forward pass.
        num_workers: worker processes that load the images; 0 loads them in a thread.
        losses: (name, loss, coefficient), applied to the logits at the size of the label.
        progress: show a progress bar (main process only).
        require_labels: an image without a label is an error. Otherwise it is predicted for the
            evaluators and does not count in the metrics.
        limit: images of each process (default: all), to try an evaluation.
        require_finite: NaN or infinite scores are an error.

    Returns:
        The metrics of `ConfusionMatrix.compute`; `confusion`: for each class of the labels a list
        of pixel counts by predicted class; `loss` and `losses` {name: mean} if `losses` are given;
        the results of the evaluators; `seconds`, `images_per_second`, and `timings`: seconds of
        this process spent waiting for `data`, in the `network` (with the arg-max), in the
        `losses` and in `counting`.

    Raises:
        UserError: a file can't be read, a label holds a value outside the classes, or the model
            and the dataset differ in the number of classes.
    """
    run: Callable[..., Any] = functools.partial(_run_exported, model)
    if isinstance(model, paddle.nn.Layer):
        if dataset.transforms.normalize is None:
            raise UserError("the transforms of the dataset to evaluate must end in Normalize")
        run = functools.partial(_run_layer, model, test_config, require_finite)
    metrics = SegmentationMetrics(dataset)
    for evaluator in evaluators:
        evaluator.reset()
    indices = range(rank(), len(dataset), world_size())[:limit]
    sums: dict[str, float] = {name: 0.0 for name, _, _ in losses or ()}
    clock = Clock()
    begin = time.perf_counter()
    batches = validation_batches(dataset, indices, batch_size, num_workers, require_labels)
    shown = progress and is_main()
    bar = logging.progress(total=len(indices), desc="eval", unit="image", shown=shown)
    with _eval_mode(model), bar, contextlib.closing(batches):
        while True:
            with clock("data"):
                batch = next(batches, None)
            if batch is None:
                break
            with explained_out_of_memory(functools.partial(_memory_advice, batch)):
                with clock("network"):
                    result = run(dataset, batch)
                    predictions = result.labels()
                with clock("losses"):
                    if losses and "label" in batch:
                        _add_losses(sums, losses, result, batch["label"])
            updates = list(
                zip(
                    batch["index"],
                    _samples(batch, any(getattr(one, "needs_images", True) for one in evaluators)),
                    predictions,
                )
            )
            if any(getattr(one, "needs_logits", False) for one in evaluators):
                for (_, sample, _), logits in zip(updates, result.logits().numpy()):
                    sample["logits"] = logits
            with clock("counting"):
                for update in updates:
                    metrics.update(*update)
            for update in updates:
                for evaluator in evaluators:
                    evaluator.update(*update)
            bar.update(len(predictions))
            give_way()
    results = _gather([metrics, *evaluators], sums)
    seconds = time.perf_counter() - begin
    if losses:
        results["loss"] = sum(coef * results["losses"][name] for name, _, coef in losses)
    speed = results["images"] / max(seconds, 1e-9)
    return {**results, "seconds": seconds, "images_per_second": speed, "timings": dict(clock.spent)}


@contextlib.contextmanager
def _eval_mode(model: Union[paddle.nn.Layer, LabelNetwork]) -> Iterator[None]:
    """Eval mode inside; afterwards each layer has its mode back (frozen ones stay frozen)."""
    if not isinstance(model, paddle.nn.Layer):
        yield
        return
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def _memory_advice(batch: dict[str, Any]) -> str:
    count, _, height, width = batch["img"].shape
    smaller = "a smaller eval_batch_size, or " if count > 1 else ""
    return (
        f"the evaluation runs the network on {count} x {width}x{height}; give {smaller}windows: "
        "test_config.is_slide=true with crop_size and stride"
    )


def _run_layer(
    model: paddle.nn.Layer,
    test_config: TestOptions,
    require_finite: bool,
    dataset: Any,
    batch: dict[str, Any],
) -> Prediction:
    images = dataset.transforms.normalize.planes(paddle.to_tensor(batch["img"].numpy()))
    result = predict(model, images, test_config, batch["trans_info"])
    _require_classes(result, dataset)
    if require_finite and not bool(paddle.isfinite(result.scores).all()):
        raise UserError(
            f"{_files(dataset, batch)}: the model's scores are NaN or infinite; its weights are "
            "damaged or diverged: evaluate an earlier checkpoint"
        )
    return result


class _Exported(NamedTuple):
    """The part of `Prediction` that an evaluation uses, of a network outside of Paddle."""

    labels: Callable[[], Sequence[np.ndarray]]
    logits: Callable[[], paddle.Tensor]


def _run_exported(model: LabelNetwork, dataset: Any, batch: dict[str, Any]) -> _Exported:
    images = _channels_last(batch)
    try:
        found = model.labels(images, batch["trans_info"])
    except UserError as error:
        raise UserError(f"{_files(dataset, batch)}: {error}") from None

    def logits() -> paddle.Tensor:
        probabilities = model.probabilities(images, batch["trans_info"])
        return paddle.to_tensor(np.log(np.maximum(probabilities, 1e-12)))

    return _Exported(lambda: found, logits)


def _files(dataset: Any, batch: dict[str, Any]) -> str:
    return ", ".join(str(dataset.samples[index].image) for index in batch["index"])


def _channels_last(batch: dict[str, Any]) -> np.ndarray:
    """The images of a batch, (N, 3, H, W) -> (N, H, W, 3)."""
    return np.ascontiguousarray(batch["img"].numpy().transpose(0, 2, 3, 1))


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


def _samples(batch: dict[str, Any], with_images: bool) -> list[dict[str, np.ndarray]]:
    """The samples of a batch as arrays: `label` if there are labels, `img` if requested."""
    arrays = {"label": batch["label"].numpy()} if "label" in batch else {}
    if with_images:
        arrays["img"] = _channels_last(batch)
    return [{key: array[i] for key, array in arrays.items()} for i in range(len(batch["index"]))]


def _gather(evaluators: Sequence[Evaluator], sums: dict[str, float]) -> dict[str, Any]:
    """The results of all evaluators and the mean losses, from all processes."""
    shares = gathered_objects(([evaluator.state for evaluator in evaluators], sums))
    results: dict[str, Any] = {}
    for place, evaluator in enumerate(evaluators):
        results.update(evaluator.compute([states[place] for states, _ in shares]))
    if sums:
        images = max(results["images"], 1)
        results["losses"] = {name: sum(s[name] for _, s in shares) / images for name in sums}
    return results
