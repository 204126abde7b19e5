"""A network, a dataset and a config whose iteration takes milliseconds; the plugin of the runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import paddle.nn.functional as F
from paddle import nn

from liteseg.registry import MODELS

CONFIG = """
plugins: [{plugin}]
model: {{type: TinyNet}}
batch_size: 2
iters: 100000
num_workers: 1
log_interval: {log}
eval_interval: {evaluate}
save_interval: {save}
keep_checkpoints: {keep}
num_pictures: 1
ema: {{decay: 0.99}}
train_dataset: &data
  type: Streets
  dataset_root: {data}
  mode: train
  transforms:
    - {{type: RandomPaddingCrop, crop_size: [48, 32]}}
    - {{type: RandomHorizontalFlip}}
    - {{type: Normalize}}
val_dataset:
  <<: *data
  mode: val
  transforms: [{{type: Normalize}}]
optimizer: {{type: SGD, momentum: 0.9, weight_decay: 1.0e-4}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.05, warmup_iters: 100}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1, 0.4]}}
"""


@MODELS.register
class TinyNet(nn.Layer):
    """Three convolutions, batch norm, two heads in training and one otherwise."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2D(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2D(8),
            nn.ReLU(),
            nn.Conv2D(8, 8, 3, padding=1),
            nn.BatchNorm2D(8),
            nn.ReLU(),
        )
        self.heads = nn.LayerList([nn.Conv2D(8, num_classes, 1) for _ in range(2)])

    def forward(self, images):
        """(N, 3, H, W) -> a list of logits (N, classes, H, W)."""
        features = self.body(images)
        return [
            F.interpolate(head(features), images.shape[2:], mode="bilinear", align_corners=False)
            for head in (self.heads if self.training else self.heads[:1])
        ]


def liteseg(*arguments: object) -> list[str]:
    """The command `liteseg` of this Python."""
    return [sys.executable, "-m", "liteseg", *map(str, arguments)]


def prepare(folder: Path, log: int, evaluate: int, save: int, keep: int) -> Path:
    """Make a dataset and a config in `folder`; returns the path of the config."""
    data = folder / "streets"
    streets = ["--train", 16, "--val", 4, "--size", 128, 64]
    subprocess.run(liteseg("data", "streets", "--output", data, *streets), check=True)
    config = folder / "tiny.yml"
    intervals = {"log": log, "evaluate": evaluate, "save": save, "keep": keep}
    config.write_text(CONFIG.format(plugin=Path(__file__).resolve(), data=data, **intervals))
    return config
