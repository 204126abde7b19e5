"""A run directory of a network with filled weights and three labeled images, made in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import golden_rule
import numpy as np

from liteseg.config.build import build_model
from liteseg.config.load import load_config
from liteseg.utils.weights.load import save_pdparams

EXPORT_PACKAGES = {
    "paddle": (),
    "onnx": ("onnx", "paddle2onnx", "onnxruntime"),
    "openvino": ("onnx", "paddle2onnx", "openvino"),
}
CONFIG = """
batch_size: 2
iters: 10
model:
  type: PPLiteSeg
  backbone: {{type: STDC1}}
  arm_out_chs: [32, 64, 128]
  seg_head_inter_chs: [32, 64, 64]
train_dataset: &data
  {dataset}
  mode: train
  transforms:
    - type: RandomHorizontalFlip
    - type: Normalize
val_dataset:
  <<: *data
  mode: val
  transforms:
    - type: Normalize
      mean: [0.4, 0.5, 0.6]
      std: [0.2, 0.25, 0.3]
test_config: {{aug_eval: true, scales: 0.75}}
optimizer: {{type: SGD}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.01}}
loss:
  types: [{{type: CrossEntropyLoss}}]
"""
LISTS = (
    "type: Dataset\n  dataset_root: {root}\n  num_classes: 3\n  class_names: [road, car, sky]"
    "\n  train_path: list.txt\n  val_path: list.txt"
)
CITYSCAPES = "type: Cityscapes\n  dataset_root: {root}"
SIZE = (70, 100)  # (h, w)


def draw(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Soft color spots, (h, w, 3) uint8: on pure noise the logits of all classes would be equal."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def write(path: Path, image: np.ndarray) -> None:
    """Write an image, (h, w, 3) RGB or (h, w)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def fill_run(folder: Path, dataset: str) -> Path:
    """A run directory with a config and the weights of `golden_rule`."""
    run = folder / "run"
    (run / "checkpoints" / "best").mkdir(parents=True)
    (run / "config.yml").write_text(CONFIG.format(dataset=dataset))
    model = golden_rule.fill(build_model(load_config(run / "config.yml")))
    save_pdparams(model.state_dict(), run / "checkpoints" / "best" / "model.pdparams")
    return run


def make_run(folder: Path) -> Path:
    """Such a run directory, next to three labeled images in `data`."""
    lines = []
    for i in range(3):
        write(folder / "data" / f"{i}.png", draw(i))
        label = np.random.default_rng(i).choice(np.array([0, 1, 2, 255], np.uint8), SIZE)
        write(folder / "data" / f"{i}_label.png", label)
        lines.append(f"{i}.png {i}_label.png\n")
    (folder / "data" / "list.txt").write_text("".join(lines))
    return fill_run(folder, LISTS.format(root=folder / "data"))
