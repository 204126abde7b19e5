"""Class weights of a loss from the class frequencies."""

from __future__ import annotations

import numpy as np

# Schemes a config may name as a loss's `weight`, and the exponent each applies to ENet's weights.
WEIGHT_SCHEMES = {"auto": 0.5, "enet": 1.0}


def class_weights(counts: np.ndarray, scheme: str = "auto") -> np.ndarray:
    """Loss weights against class imbalance: ENet's 1 / ln(1.02 + p), or their square root.

    p is the class's share of the labeled pixels (ENet: arXiv 1606.02147, section 5.2). ENet's own
    weights ("enet"), up to 36 times the smallest one, trade precision for recall: on CamVid, thin
    and rare classes were predicted much too often. Their root ("auto") is milder; an alternative is
    `logit_shift` of `CrossEntropyLoss`. The weights are scaled so that the mean weight of a labeled
    pixel is 1 (sum of p·w is 1), which keeps the size of the loss and the meaning of the learning
    rate. An absent class has the weight of a vanishingly rare one.

    Args:
        counts: (num_classes,) pixels, as from `liteseg.datasets.count_label_pixels`.
        scheme: one of `WEIGHT_SCHEMES`.

    Returns:
        (num_classes,) float32, finite and positive; all ones if nothing is labeled.
    """
    total = counts.sum()
    if total == 0:
        return np.ones(len(counts), np.float32)
    share = counts / total
    weights = np.log(1.02 + share) ** -WEIGHT_SCHEMES[scheme]
    return (weights / (share * weights).sum()).astype(np.float32)
