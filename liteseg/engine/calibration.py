"""The calibration of a network's probabilities, from the same pass as the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from liteseg.engine.evaluator import Evaluator
from liteseg.errors import UserError
from liteseg.metrics.calibration import PixelSample, Reliability, calibrate, softmax


class Calibration(Evaluator):
    """Expected calibration error, and the temperature that lowers it; images without labels skip.

    The error of the network as it is counts every pixel; the temperature is fitted on a sample.

    Args:
        dataset: with `samples` and `ignore_index`.
    """

    needs_logits = True
    state: tuple[Reliability, PixelSample]

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.state = Reliability(), PixelSample()

    def update(self, index: int, sample: Mapping[str, np.ndarray], prediction: np.ndarray) -> None:
        """Count one image.

        Raises:
            UserError: its logits are not finite.
        """
        if "label" not in sample:
            return
        label, logits = sample["label"], sample["logits"]
        if not np.isfinite(logits).all():
            raise UserError(
                f"{self.dataset.samples[index].image}: the model's scores are NaN or infinite; "
                "evaluate an earlier checkpoint"
            )
        reliability, pixels = self.state
        counted = label != self.dataset.ignore_index
        confidence = softmax(logits, axis=0).max(axis=0)
        reliability.update(confidence[counted], (prediction == label)[counted])
        pixels.update(index, logits, label, self.dataset.ignore_index)

    def compute(self, states: Sequence[tuple[Reliability, PixelSample]]) -> dict[str, Any]:
        """`calibration`: the results of `Reliability.compute` and `calibrate`."""
        reliability, pixels = Reliability(), PixelSample()
        for counts, sample in states:
            reliability.merge(counts)
            pixels.merge(sample)
        return {"calibration": {**reliability.compute(), **calibrate(pixels)}}
