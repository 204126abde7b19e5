"""A training of PP-LiteSeg on a few Streets scenes, and what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = """
batch_size: 2
iters: 4
num_workers: {workers}
log_interval: 1
eval_interval: 2
save_interval: 2
keep_checkpoints: 1
num_pictures: 1
model: {{type: PPLiteSeg, backbone: {{type: STDC1}}}}
train_dataset: &data
  type: Streets
  dataset_root: {root}
  mode: train
  transforms:
    - {{type: ResizeStepScaling, min_scale_factor: 0.75, max_scale_factor: 1.5}}
    - {{type: RandomPaddingCrop, crop_size: [128, 64]}}
    - {{type: RandomHorizontalFlip}}
    - {{type: RandomDistort}}
    - {{type: Normalize}}
val_dataset:
  <<: *data
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: AdamW}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.002, warmup_iters: 2}}
loss:
  types: [{{type: CrossEntropyLoss, weight: auto}}]
"""


def write_config(path: Path, streets: Path, workers: int = 0) -> Path:
    """Write the config of a training of four iterations."""
    path.write_text(CONFIG.format(root=streets, workers=workers))
    return path


def lines(run: Path, phase: str) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` of a phase, `train` or `eval`."""
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["phase"] == phase]


def iterations(run: Path, phase: str) -> list[int]:
    """The iterations of these lines."""
    return [line["step"] for line in lines(run, phase)]


def saved_iteration(run: Path, name: str) -> int:
    """The iteration of a checkpoint."""
    return json.loads((run / "checkpoints" / name / "manifest.json").read_text())["iteration"]
