"""A run directory of a small trained-looking network, to export."""

from __future__ import annotations

from pathlib import Path

import cv2
import golden_rule
import numpy as np

from liteseg.config.build import build_model
from liteseg.config.load import load_config
from liteseg.utils.weights.load import save_pdparams

CONFIG = """
batch_size: 2
iters: 10
model:
  type: PPLiteSeg
  backbone: {{type: STDC1}}
  arm_out_chs: [32, 64, 128]
  seg_head_inter_chs: [32, 64, 64]
train_dataset: &data
  type: Dataset
  dataset_root: {root}
  num_classes: 3
  class_names: [road, car, sky]
  train_path: list.txt
  val_path: list.txt
  mode: train
  transforms:
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


def picture(seed: int, size: tuple[int, int] = (70, 100)) -> np.ndarray:
    """Soft coloured spots, (h, w, 3) uint8: on pure noise every label would be a tie."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def make_run(folder: Path) -> Path:
    """A run directory with filled weights, and three labelled images beside it."""
    data = folder / "data"
    data.mkdir()
    lines = []
    for i in range(3):
        cv2.imwrite(str(data / f"{i}.png"), picture(i)[..., ::-1])
        label = np.random.default_rng(i).choice(np.array([0, 1, 2, 255], np.uint8), (70, 100))
        cv2.imwrite(str(data / f"{i}_label.png"), label)
        lines.append(f"{i}.png {i}_label.png\n")
    (data / "list.txt").write_text("".join(lines))
    run = folder / "run"
    (run / "checkpoints" / "best").mkdir(parents=True)
    (run / "config.yml").write_text(CONFIG.format(root=data))
    model = golden_rule.fill(build_model(load_config(run / "config.yml")))
    save_pdparams(model.state_dict(), run / "checkpoints" / "best" / "model.pdparams")
    return run
