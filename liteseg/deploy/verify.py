"""Compare an exported model with the trained one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Optional, Protocol

import cv2
import numpy as np

from liteseg.deploy.manifest import COARSE, OUTPUTS
from liteseg.deploy.network import ExportedNetwork
from liteseg.errors import UserError
from liteseg.metrics import ConfusionMatrix
from liteseg.ops.labels import padded

# Limits. float32 logits differ by rounding, by up to 1e-5 of the largest logit as measured, and
# labels only where two classes tie.
_LOGIT_TOLERANCE = 1e-3
_EQUAL_LABELS = 0.998
_CONFIDENCE_TOLERANCE = 0.01  # half a level of uint8 is 0.002
_INT8_MIOU_LOSS = 0.01
_INT8_EQUAL_LABELS = 0.9


class Example(NamedTuple):
    """An (H, W, 3) uint8 RGB image and, if known, its (H, W) uint8 label map."""

    image: np.ndarray
    label: Optional[np.ndarray] = None


class Predictor(Protocol):
    """A trained or exported model with its transforms, such as a `Segmenter`."""

    class_names: Sequence[str]
    transforms: Any  # sample -> sample
    network: Any

    def predict(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 labels."""
        ...

    def predict_with_confidence(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The labels, and their probability, (H, W) float32."""
        ...


def compare(
    trained: Predictor,
    exported: Predictor,
    reference: Callable[[np.ndarray], np.ndarray],
    examples: Iterable[Example],
    ignore_index: int = 255,
) -> dict[str, Any]:
    """Run both models on the same images.

    Args:
        trained: the Paddle model.
        exported: the exported model; its `network` is an `ExportedNetwork`.
        reference: maps a transformed image (H, W, 3) to the trained model's (C, H, W) logits.
        examples: at least one.
        ignore_index: label to leave out of the mIoU.

    Returns:
        `images`: their number; `largest_logit` of the trained model and `logit_difference`, the
        largest one, both at full size; `equal_labels`, the share of pixels with the same prediction
        of both models; `equal_output`, the share of pixels where the first output of the exported
        model agrees with the trained logits; with a temperature, or an output of probabilities,
        `confidence_difference`, the largest one of a pixel; and, if there are labels,
        `miou_trained` and `miou_exported`.

    Raises:
        UserError: there are no examples.
    """
    classes = len(trained.class_names)
    matrices = [ConfusionMatrix(classes, ignore_index) for _ in range(2)]
    found: dict[str, Any] = {"images": 0, "largest_logit": 0.0, "logit_difference": 0.0}
    pixels = {"labels": [0, 0], "output": [0, 0]}
    for image, label in examples:
        labels = [segmenter.predict(image) for segmenter in (trained, exported)]
        _count(pixels["labels"], *labels)
        transformed = exported.transforms({"img": image})["img"]
        logits = reference(transformed)
        output, difference = _compare_outputs(exported.network, transformed, logits)
        if (differences := _compare_confidences(trained, exported, image, logits)) is not None:
            earlier = found.get("confidence_difference", 0.0)
            found["confidence_difference"] = float(np.maximum(earlier, differences))
        _count(pixels["output"], output, logits.argmax(axis=0))
        found["images"] += 1
        found["largest_logit"] = max(found["largest_logit"], float(np.abs(logits).max()))
        found["logit_difference"] = float(np.maximum(found["logit_difference"], difference))  # NaN
        if label is not None:
            for matrix, predicted in zip(matrices, labels):
                matrix.update(predicted, label)
    if not found["images"]:
        raise UserError("there are no images to verify the export with; give --images")
    for name, (equal, total) in pixels.items():
        found[f"equal_{name}"] = equal / total
    if matrices[0].matrix.any():
        for name, matrix in zip(("miou_trained", "miou_exported"), matrices):
            found[name] = matrix.compute()["miou"]
    return found


def disagreements(found: dict[str, Any], precision: str) -> list[str]:
    """One sentence for each value of a comparison beyond its limit; empty: the models agree."""
    problems = []
    minimum = _INT8_EQUAL_LABELS if precision == "int8" else _EQUAL_LABELS
    for key, name in (("equal_labels", "labels"), ("equal_output", "labels of the graph itself")):
        if found[key] < minimum:
            problems.append(
                f"{100 * found[key]:.2f}% of the {name} are equal, not {100 * minimum}%"
            )
    if precision == "int8":
        loss = found.get("miou_trained", 0) - found.get("miou_exported", 0)
        if loss > _INT8_MIOU_LOSS:
            problems.append(f"the mIoU is {100 * loss:.2f} points lower, not under 1")
    elif not found["logit_difference"] <= _LOGIT_TOLERANCE * found["largest_logit"]:  # NaN as well
        problems.append(
            f"logits differ by {found['logit_difference']:.3g} where the largest is "
            f"{found['largest_logit']:.3g}"
        )
    elif not found.get("confidence_difference", 0.0) <= _CONFIDENCE_TOLERANCE:
        problems.append(f"probabilities differ by {found['confidence_difference']:.3g}")
    return problems


def _compare_confidences(
    trained: Predictor, exported: Predictor, image: np.ndarray, logits: np.ndarray
) -> Optional[float]:
    """The largest difference of a confidence; None for an export without temperature or such."""
    network: ExportedNetwork = exported.network
    kind, temperature = network.manifest.output["kind"], network.manifest.temperature
    outputs = kind in ("softmax", "confidence")
    if not outputs and temperature == 1:
        return None
    found = [one.predict_with_confidence(image)[1] for one in (trained, exported)]
    difference = np.abs(found[0] - found[1]).max()
    if outputs:
        transformed = exported.transforms({"img": image})["img"]
        output = network.runtime.run(transformed[None], OUTPUTS[kind])[0]
        confidence = output[1] / 255 if kind == "confidence" else output.max(axis=0)
        expected = 1 / np.exp((logits - logits.max(axis=0)) / temperature).sum(axis=0)
        difference = np.maximum(difference, np.abs(confidence - expected).max())
    return float(difference)


def _compare_outputs(
    network: ExportedNetwork, image: np.ndarray, logits: np.ndarray
) -> tuple[np.ndarray, float]:
    """Labels of the model's first output, and the largest difference of its logits to `logits`."""
    description, run = network.manifest, network.runtime.run
    output = run(image[None], OUTPUTS[description.output["kind"]])[0]
    if description.output["kind"] == "confidence":
        labels = output[0]
    else:
        labels = output if output.ndim == 2 else output.argmax(axis=0)
    difference = 0.0
    height, width = image.shape[:2]
    h, w = int(height * description.scale + 0.5), int(width * description.scale + 0.5)
    outer = padded((h, w), description.pad_multiple)
    for plane, expected in zip(run(image[None], COARSE)[0], logits):
        plane = cv2.resize(plane, outer[::-1], interpolation=cv2.INTER_LINEAR)[:h, :w]
        plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
        difference = float(np.maximum(difference, np.abs(plane - expected).max()))
    return labels, difference


def _count(total: list[int], first: np.ndarray, second: np.ndarray) -> None:
    total[0] += int(np.count_nonzero(first == second))
    total[1] += first.size
