"""A training of a few seconds, started from the command line in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from conftest import ROOT

from liteseg.datasets.streets.generate import generate

PLUGIN = '''
import os
import threading
import paddle.nn.functional as F
from paddle import nn
from liteseg.errors import UserError
from liteseg.registry import LOSSES, MODELS, TRANSFORMS

@MODELS.register
class PlainNet(nn.Layer):
    """No batch norm, whose statistics would be of each process's own images."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.body = nn.Conv2D(3, 8, 3, padding=1)
        self.heads = nn.LayerList([nn.Conv2D(8, num_classes, 1) for _ in range(2)])

    def forward(self, images):
        features = F.relu(self.body(images))
        return [head(features) for head in (self.heads if self.training else self.heads[:1])]

@LOSSES.register
class PerPixelLoss(nn.Layer):
    """Mean over all pixels, ignored ones too: the mean of parts is the mean of the batch."""

    def forward(self, logits, label):
        return F.cross_entropy(
            logits, label, ignore_index=255, axis=1, reduction="sum"
        ) / label.numel().astype("float32")

@TRANSFORMS.register
class FailInProcess1:
    """Raises at the 15th image that the loader's thread reads in process 1."""

    calls = 0

    def __call__(self, sample, rng=None):
        # The checks before the training run in the main thread.
        FailInProcess1.calls += threading.current_thread() is not threading.main_thread()
        if os.environ.get("PADDLE_TRAINER_ID") == "1" and FailInProcess1.calls == 15:
            raise UserError("image_x.png: the file is truncated")
        return sample
'''
CONFIG = """
plugins: [{plugin}]
model: {{type: PlainNet}}
batch_size: 4
total_batch_size: 4
iters: 6
num_workers: 0
log_interval: 1
eval_interval: 100
save_interval: 2
num_pictures: 0
train_dataset: &data
  type: Streets
  dataset_root: {data}
  mode: train
  transforms:
    - {{type: RandomPaddingCrop, crop_size: [64, 32]}}
    - {{type: RandomHorizontalFlip}}
    - {{type: FailInProcess1}}
    - {{type: Normalize}}
val_dataset: {{<<: *data, mode: val, transforms: [{{type: Normalize}}]}}
optimizer: {{type: SGD, momentum: 0.9, weight_decay: 1.0e-3}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.05}}
loss: {{types: [{{type: PerPixelLoss}}], coef: [1, 0.5]}}
"""
TIMES = {"images_per_second", "seconds_per_step", "reader_share", "seconds", "timings"}


def prepare(folder):
    """Write five training images, three validation images (uneven for 2 and 4) and `plain.yml`."""
    data = generate(folder / "streets", train=5, val=3, size=(128, 64), progress=False)
    (folder / "plugin.py").write_text(PLUGIN)
    (folder / "plain.yml").write_text(CONFIG.format(plugin=folder / "plugin.py", data=data))
    return folder


def command(*arguments, **settings):
    """The command `liteseg train` with arguments and values of the config."""
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "liteseg", "train", *map(str, arguments), *changes]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def train(*arguments, **settings):
    return subprocess.run(
        command(*arguments, **settings),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def start(*arguments, **settings):
    """Start a training and wait for its first checkpoint; the last argument is the run."""
    process = subprocess.Popen(
        command(*arguments, **settings),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (arguments[-1] / "checkpoints/last").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    return process


def lines(run, phase):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    selected = [line for line in found if line.pop("phase") == phase]
    return [{key: line[key] for key in line.keys() - TIMES} for line in selected]


def last_checkpoint(run):
    """The iteration of `checkpoints/last`."""
    return json.loads((run / "checkpoints/last/manifest.json").read_text())["iteration"]
