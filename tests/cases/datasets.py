"""Small datasets as users have them, generated (see README.md)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 64)  # (h, w)


def scenes(root: Path, count: int = 4, values: tuple[int, ...] = (0, 1, 2, 3), void: int = 255):
    """Images whose label values are vertical stripes, a part of them void; and `list.txt`."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        label = np.zeros(SIZE, np.uint8)
        for place, value in enumerate(values):
            label[:, place * SIZE[1] // len(values) :] = value
        image = (label[..., None] * 40 + rng.integers(0, 40, (*SIZE, 3))).astype(np.uint8)
        label[: 4 + i] = void
        cv2.imwrite(str(root / f"i{i}.png"), image)
        cv2.imwrite(str(root / f"l{i}.png"), label)
        lines.append(f"i{i}.png l{i}.png")
    (root / "list.txt").write_text("\n".join(lines))
    return root


def config(root: Path, classes: int = 4, **dataset: object) -> str:
    """A training of two iterations on `scenes`, with crops that pad."""
    options = "".join(f", {key}: {value}" for key, value in dataset.items())
    own = f"type: Dataset, dataset_root: {root}, num_classes: {classes}{options}"
    lists = "train_path: list.txt, val_path: list.txt"
    padding = "{type: RandomRotation, max_rotation: 15}, "
    padding += "{type: RandomPaddingCrop, crop_size: [80, 64]}"
    return f"""
batch_size: 2
iters: 2
num_workers: 0
log_interval: 1
eval_interval: 1
model: {{type: PPLiteSeg, backbone: {{type: STDC1}}}}
train_dataset: {{{own}, {lists}, mode: train, transforms: [{padding}, {{type: Normalize}}]}}
val_dataset: {{{own}, {lists}, mode: val, transforms: [{{type: Normalize}}]}}
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.001}}
loss: {{types: [{{type: LovaszSoftmaxLoss}}]}}
"""
