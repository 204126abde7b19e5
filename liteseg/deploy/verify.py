"""Does the exported model say what the trained one says?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Optional

import cv2
import numpy as np

from liteseg.deploy.manifest import COARSE, OUTPUTS
from liteseg.deploy.network import ExportedNetwork
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix

# float32 differs by rounding, seen up to 1e-5 of the largest logit; labels only where two tie.
_LOGITS_WITHIN = 1e-3
_EQUAL_LABELS = 0.998
_INT8_MIOU_LOSS = 0.01
_INT8_EQUAL_LABELS = 0.9


class Example(NamedTuple):
    """An (H, W, 3) uint8 RGB image and, where it is known, its (H, W) uint8 label map."""

    image: np.ndarray
    label: Optional[np.ndarray] = None


def compare(
    trained: Any,
    exported: Any,
    reference: Callable[[np.ndarray], np.ndarray],
    examples: Iterable[Example],
    ignore_index: int = 255,
) -> dict[str, Any]:
    """Run both on the same images.

    Args:
        trained: a `Segmenter`, of the Paddle model.
        exported: a `Segmenter`, of the exported one.
        reference: the trained model's (C, H, W) logits of a transformed image (H, W, 3).
        examples: at least one.
        ignore_index: label that is not counted in the mIoU.

    Returns:
        `images`; `largest_logit` of the trained model and `logit_difference`, the largest one, at
        full size; `equal_labels`, the share of pixels on which both Segmenters agree;
        `equal_output`, the share on which the model's own first output agrees with the trained
        logits; and, where there are labels, `miou_trained` and `miou_exported`.
    """
    classes = len(trained.class_names)
    matrices = [ConfusionMatrix(classes, ignore_index) for _ in range(2)]
    found = {"images": 0, "largest_logit": 0.0, "logit_difference": 0.0}
    pixels = {"labels": [0, 0], "output": [0, 0]}
    for image, label in examples:
        labels = [segmenter.predict(image) for segmenter in (trained, exported)]
        _count(pixels["labels"], *labels)
        inner = exported.transforms({"img": image})["img"]
        logits = reference(inner)
        output, difference = _of_the_graph(exported.network, inner, logits)
        _count(pixels["output"], output, logits.argmax(axis=0))
        found["images"] += 1
        found["largest_logit"] = max(found["largest_logit"], float(np.abs(logits).max()))
        found["logit_difference"] = max(found["logit_difference"], difference)
        if label is not None:
            for matrix, predicted in zip(matrices, labels):
                matrix.update(predicted, label)
    if not found["images"]:
        raise UserError("there are no images to verify the export with; give --images")
    for name, (equal, total) in pixels.items():
        found[f"equal_{name}"] = equal / total
    if matrices[0].images:
        for name, matrix in zip(("miou_trained", "miou_exported"), matrices):
            found[name] = matrix.compute()["miou"]
    return found


def disagreements(found: dict[str, Any], precision: str) -> list[str]:
    """What in a comparison is beyond its limit, a sentence each; empty: the models agree."""
    problems = []
    least = _INT8_EQUAL_LABELS if precision == "int8" else _EQUAL_LABELS
    for name, what in (("equal_labels", "labels"), ("equal_output", "labels of the graph itself")):
        if found[name] < least:
            problems.append(f"{100 * found[name]:.2f}% of the {what} are equal, not {100 * least}%")
    if precision == "int8":
        loss = found.get("miou_trained", 0) - found.get("miou_exported", 0)
        if loss > _INT8_MIOU_LOSS:
            problems.append(f"the mIoU is {100 * loss:.2f} points lower, not under 1")
    elif not found["logit_difference"] <= _LOGITS_WITHIN * found["largest_logit"]:  # NaN as well
        problems.append(
            f"logits differ by {found['logit_difference']:.3g} where the largest is "
            f"{found['largest_logit']:.3g}"
        )
    return problems


def _of_the_graph(
    network: ExportedNetwork, image: np.ndarray, logits: np.ndarray
) -> tuple[np.ndarray, float]:
    """Labels by the model's first output, and how far its coarse logits are from `logits`."""
    about, run = network.manifest, network.runtime.run
    output = run(image[None], OUTPUTS[about.output["kind"]])[0]
    labels = output if output.ndim == 2 else output.argmax(axis=0)
    difference = 0.0
    height, width = image.shape[:2]
    inner = int(width * about.scale + 0.5), int(height * about.scale + 0.5)
    for plane, expected in zip(run(image[None], COARSE)[0], logits):
        for size in (inner, (width, height)):
            plane = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
        difference = max(difference, float(np.abs(plane - expected).max()))
    return labels, difference


def _count(total: list[int], first: np.ndarray, second: np.ndarray) -> None:
    total[0] += int(np.count_nonzero(first == second))
    total[1] += first.size
