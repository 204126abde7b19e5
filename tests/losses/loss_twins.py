"""The losses in float64 numpy, pixel by pixel, from their definitions.

Logits are (N, C, H, W), labels (N, H, W).
"""

from __future__ import annotations

import numpy as np


def pixels(logits, label, ignore_index=255):
    """Cross-entropy, label's probability and class of each pixel; 0, None, None if ignored."""
    rows = []
    for n, i, j in np.ndindex(label.shape):
        z, c = logits[n, :, i, j], int(label[n, i, j])
        if c == ignore_index:
            rows.append((0.0, None, None))
        else:
            entropy = np.logaddexp.reduce(z - z[c])
            rows.append((entropy, np.exp(-entropy), c))
    return rows


def cross_entropy(
    logits,
    label,
    weight=None,
    ignore_index=255,
    top_k_percent_pixels=1.0,
    avg_non_ignore=True,
    logit_shift=0.0,
):
    if logit_shift:
        logits = logits + logit_shift * np.log(weight)[:, None, None]
    terms = []
    for entropy, _, c in pixels(logits, label, ignore_index):
        factor = 1 if weight is None or c is None else weight[c]
        terms.append((entropy * factor, 0 if c is None and avg_non_ignore else factor))
    terms.sort(reverse=True)
    terms = terms[: max(1, int(top_k_percent_pixels * len(terms)))]
    return sum(loss for loss, _ in terms) / sum(share for _, share in terms)


def ohem(logits, label, thresh=0.7, min_kept=10000, weight=None, min_kept_ratio=None):
    """The published mean has 1e-5 of all pixels added to the kept ones."""
    rows = pixels(logits, label)
    if min_kept_ratio is not None:
        min_kept = int(min_kept_ratio * len(rows))
    kept = [row for row in rows if row[2] is not None]
    if min_kept < len(kept):
        ranked = sorted(p for _, p, _ in kept)
        limit = max(thresh, ranked[min_kept - 1]) if min_kept else thresh
        kept = [row for row in kept if row[1] < limit]
    total = sum(entropy * (1 if weight is None else weight[c]) for entropy, _, c in kept)
    return total / (len(kept) + 1e-5 * len(rows))


def bootstrapped(logits, label, min_K, loss_th, weight=None):
    means = []
    for one_logits, one_label in zip(logits, label):
        rows = pixels(one_logits[None], one_label[None])
        ranked = sorted((e * (1 if weight is None or c is None else weight[c]) for e, _, c in rows))
        count = max(min(min_K, len(ranked)), sum(loss > loss_th for loss in ranked))
        means.append(np.mean(ranked[-count:]))
    return np.mean(means)


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def dice(logits, label, weight=None, smooth=1.0):
    terms = []
    for probability, target in zip(softmax(logits), label):
        valid = target != 255
        for c, p in enumerate(probability):
            overlap = p[valid & (target == c)].sum()
            area = p[valid].sum() + (target == c).sum()
            term = 1 - (2 * overlap + smooth) / (area + smooth)
            terms.append(term * (1 if weight is None else weight[c]))
    return np.mean(terms)


def lovasz(logits, label, classes="present"):
    """The Lovász extension as a Choquet integral: over levels t, the Jaccard loss of the set of
    pixels whose error is at least t.
    """
    valid = label != 255
    chosen = range(logits.shape[1]) if isinstance(classes, str) else classes
    terms = []
    for c in chosen:
        truth = label[valid] == c
        if classes == "present" and not truth.any():
            continue
        errors = np.abs(truth - softmax(logits)[:, c][valid])
        below, total = 0.0, 0.0
        for level in np.unique(errors):
            wrong = errors >= level
            total += (level - below) * wrong.sum() / (truth | wrong).sum()
            below = level
        terms.append(total)
    return np.mean(terms)
