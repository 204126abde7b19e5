"""Calibration of probabilities: the expected calibration error, and a temperature that lowers it.

Guo et al., "On Calibration of Modern Neural Networks" (2017), with pixels as the samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 15
TEMPERATURES = (0.05, 20.0)  # the range of the fit


class Reliability:
    """A histogram of confidences, and the share of correct predictions in each bin.

    Args:
        bins: number of bins of equal width between 0 and 1.

    Attributes:
        sums: float64 (3, bins): pixels, correct pixels, and the sum of confidences.
    """

    def __init__(self, bins: int = BINS):
        self.sums = np.zeros((3, bins), np.float64)

    def update(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Count pixels.

        Args:
            confidence: probability of the predicted class, any shape.
            correct: bool of the same shape: whether the prediction is the label.
        """
        bins = self.sums.shape[1]
        # (k/bins, (k+1)/bins], as in the paper.
        place = np.ceil(confidence.ravel() * bins).astype(np.int64) - 1
        place = place.clip(0, bins - 1)
        for row, weights in zip(self.sums, (None, correct.ravel(), confidence.ravel())):
            row += np.bincount(place, weights, bins)

    def merge(self, other: Reliability) -> None:
        """Add the counts of another histogram with the same bins."""
        self.sums += other.sums

    def compute(self) -> dict[str, Any]:
        """The expected calibration error and the bins.

        Returns:
            `ece`: mean difference of confidence and accuracy over the bins, weighted by their
            pixels (None without pixels); `bins`: of each with a pixel the mean `confidence`, the
            `accuracy` and the number of `pixels`.
        """
        pixels, correct, confidence = self.sums
        used = np.flatnonzero(pixels)
        ece = np.abs(correct - confidence).sum() / pixels.sum() if used.size else None
        bins = [
            {
                "confidence": float(confidence[k] / pixels[k]),
                "accuracy": float(correct[k] / pixels[k]),
                "pixels": int(pixels[k]),
            }
            for k in used
        ]
        return {"ece": None if ece is None else float(ece), "bins": bins}


class PixelSample:
    """Logits and labels of some pixels of every image, the same in every run.

    Memory is bounded: where there are more than `limit` pixels, half of those of each image go.

    Args:
        per_image: pixels kept of an image.
        limit: pixels kept of all images, up to twice as many meanwhile.
        seed: random seed.

    Attributes:
        images: {index of the image: (logits (n, C) float32, labels (n,) uint8)}.
    """

    def __init__(self, per_image: int = 4096, limit: int = 1 << 19, seed: int = 0):
        self.per_image, self.limit, self.seed = per_image, limit, seed
        self.images: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._pixels = 0

    def update(self, index: int, logits: np.ndarray, label: np.ndarray, ignore_index: int) -> None:
        """Draw pixels of one image.

        Args:
            index: number of the image.
            logits: (C, h, w) float32.
            label: (h, w) uint8.
            ignore_index: label of the pixels to leave out.
        """
        counted = np.flatnonzero(label.ravel() != ignore_index)
        order = np.random.default_rng((self.seed, index)).permutation(len(counted))
        drawn = counted[order[: self.per_image]]
        self._keep(index, logits.reshape(len(logits), -1)[:, drawn].T, label.ravel()[drawn])

    def merge(self, other: PixelSample) -> None:
        """Add the images of another sample, such as that of another process."""
        for index, (logits, labels) in other.images.items():
            self._keep(index, logits[: self.per_image], labels[: self.per_image])

    def part(self, remainder: int) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of all images with an even (0) or odd (1) index: (n, C) and (n,)."""
        chosen = [self.images[index] for index in sorted(self.images) if index % 2 == remainder]
        if not chosen:
            return np.zeros((0, 1), np.float32), np.zeros(0, np.uint8)
        logits, labels = zip(*chosen)
        return np.concatenate(logits), np.concatenate(labels)

    def _keep(self, index: int, logits: np.ndarray, labels: np.ndarray) -> None:
        self.images[index] = np.ascontiguousarray(logits, np.float32), labels
        self._pixels += len(labels)
        while self._pixels > 2 * self.limit and self.per_image > 1:
            self.per_image //= 2
            n = self.per_image  # the order is random
            self.images = {i: (x[:n].copy(), y[:n].copy()) for i, (x, y) in self.images.items()}
            self._pixels = sum(len(y) for _, y in self.images.values())


def softmax(logits: np.ndarray, temperature: float = 1.0, axis: int = -1) -> np.ndarray:
    """Probabilities of logits divided by a temperature, float32."""
    scaled = (logits - logits.max(axis=axis, keepdims=True)) / np.float32(temperature)
    exponentials = np.exp(scaled)
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the lowest mean negative log-likelihood, within `TEMPERATURES`.

    The likelihood is concave in the inverse temperature β. Its derivative, the logit of the label
    minus the expected logit, is bisected.

    Args:
        logits: (n, C) float32, n at least 1.
        labels: (n,) classes.
    """
    own = float(logits[np.arange(len(labels)), labels].mean(dtype=np.float64))
    low, high = np.log([1 / TEMPERATURES[1], 1 / TEMPERATURES[0]])
    for _ in range(30):
        middle = (low + high) / 2
        probabilities = softmax(logits, float(np.exp(-middle)))
        expected = float((probabilities * logits).sum(axis=1).mean(dtype=np.float64))
        low, high = (middle, high) if own > expected else (low, middle)
    return float(np.exp(-(low + high) / 2))


def calibrate(sample: PixelSample) -> dict[str, Any]:
    """Fit a temperature on the images of even index, and measure it on those of odd index.

    Returns:
        `temperature`; `fit_images` and `held_out_images`, their numbers; `before` and `after`: the
        result of `Reliability.compute` and the mean negative log-likelihood `nll` of the held-out
        images. With fewer than two images: an empty dict.
    """
    (logits, labels), (held, truth) = sample.part(0), sample.part(1)
    if not len(labels) or not len(truth):
        return {}
    found: dict[str, Any] = {"temperature": fit_temperature(logits, labels)}
    odd = sum(index % 2 for index in sample.images)
    found.update(fit_images=len(sample.images) - odd, held_out_images=odd)
    for name, temperature in (("before", 1.0), ("after", found["temperature"])):
        probabilities = softmax(held, temperature)
        reliability = Reliability()
        reliability.update(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth)
        likelihood = probabilities[np.arange(len(truth)), truth].clip(min=1e-30)
        nll = -np.log(likelihood).mean(dtype=np.float64)
        found[name] = {**reliability.compute(), "nll": float(nll)}
    return found
