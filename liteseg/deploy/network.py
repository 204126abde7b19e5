"""An exported model as the network of a `Segmenter`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from liteseg.deploy.manifest import COARSE, Manifest
from liteseg.deploy.runtimes import Runtime
from liteseg.errors import UserError
from liteseg.ops.labels import (
    Steps,
    confidence_at_full_size,
    labels_at_full_size,
    padded,
    report_shift,
    scores_at_full_size,
)

TransInfo = Sequence[tuple[str, Sequence[int]]]
Confidences = list[tuple[np.ndarray, np.ndarray]]


class ExportedNetwork:
    """Labels and probabilities from the coarse logits of an exported model.

    The first output of the model has the same labels at a higher cost, because its upsampling and
    arg-max use full-size logits; and labels can't be resized like logits.
    """

    def __init__(self, runtime: Runtime, manifest: Manifest):
        self.runtime = runtime
        self.manifest = manifest
        self.temperature = manifest.temperature

    def labels(self, images: np.ndarray, trans_info: TransInfo = ()) -> list[np.ndarray]:
        """Predict the labels of images of one size.

        Args:
            images: (N, H, W, 3) uint8 RGB, after the validation transforms.
            trans_info: ("resize" | "padding", (h, w)): the size before each of these transforms.

        Returns:
            N arrays (h, w) uint8, at the size before all transforms.

        Raises:
            UserError: the model was exported for another size.
        """
        coarse, steps = self._scores(images, trans_info)
        return [labels_at_full_size(scores, steps) for scores in coarse]

    def probabilities(self, images: np.ndarray, trans_info: TransInfo = ()) -> np.ndarray:
        """(N, classes, h, w) float32; arguments and errors as of `labels`."""
        coarse, steps = self._scores(images, trans_info)
        logits = np.stack([scores_at_full_size(scores, steps) for scores in coarse])
        logits /= np.float32(self.temperature)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def confidences(self, images: np.ndarray, trans_info: TransInfo = ()) -> Confidences:
        """The labels, as `labels` returns them, and their probability (h, w) float32 of each."""
        coarse, steps = self._scores(images, trans_info)
        return [
            (
                labels_at_full_size(scores, steps),
                confidence_at_full_size(scores, steps, self.temperature),
            )
            for scores in coarse
        ]

    def _scores(self, images: np.ndarray, trans_info: TransInfo) -> tuple[np.ndarray, Steps]:
        """Coarse logits, and the operations that bring them to the original size."""
        height, width = images.shape[1:3]
        size = self.manifest.size
        if size is not None and size != (width, height):
            raise UserError(
                f"the image is {width}x{height}, and the model was exported for "
                f"{size[0]}x{size[1]}; export it with `--input-size {width} {height}`, or without "
                "--input-size for images of any size"
            )
        scale = self.manifest.scale
        inner = (int(height * scale + 0.5), int(width * scale + 0.5))
        outer = padded(inner, self.manifest.pad_multiple)
        steps = [("resize", outer), ("crop", inner), ("resize", (height, width))]
        for step, before in reversed(trans_info):
            steps.append(("resize" if step == "resize" else "crop", (before[0], before[1])))
        coarse = self.runtime.run(images, COARSE)
        if not np.isfinite(coarse).all():
            raise UserError(
                "the model's scores are NaN or infinite; export an earlier checkpoint, or in "
                "another precision"
            )
        report_shift(outer, coarse.shape[-2:], "exporting with --set ")
        return coarse, steps
