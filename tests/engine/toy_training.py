"""A network, a dataset and a trainer small enough to train in a moment."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from liteseg.config.test_config import TestConfig
from liteseg.datasets.base import Sample, SegmentationDataset
from liteseg.engine.checkpoint import Checkpointer
from liteseg.engine.hooks import EarlyStop, Evaluate, KeepBest
from liteseg.engine.optim import polynomial_decay
from liteseg.engine.parameter_groups import freeze
from liteseg.engine.trainer import Hook, Trainer, TrainOptions
from liteseg.engine.writers import WriteReport
from liteseg.report.gallery import Gallery
from liteseg.transforms import Compose, Normalize, RandomHorizontalFlip

CLASSES = ("floor", "wall", "door")


class ToyNet(nn.Layer):
    """Two convolutions and two heads."""

    def __init__(self, norm: bool = False):
        super().__init__()
        self.body = nn.Conv2D(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2D(8) if norm else nn.Identity()
        self.heads = nn.LayerList([nn.Conv2D(8, len(CLASSES), 1) for _ in range(2)])

    def forward(self, images):
        features = F.relu(self.norm(self.body(images)))
        return [head(features) for head in (self.heads if self.training else self.heads[:1])]


class ToyImages(SegmentationDataset):
    """Images in memory: each class is a color with noise."""

    def __init__(self, count: int = 8, flip: bool = True):
        names = [f"image_{i}" for i in range(count)]
        samples = [Sample(Path(f"{name}.png"), Path(f"{name}_l.png"), name) for name in names]
        transforms = Compose([RandomHorizontalFlip(0.5 if flip else 0.0), Normalize()])
        super().__init__(transforms, samples, CLASSES, np.eye(3) * 255)

    def load(self, index):
        rng = np.random.default_rng(index)
        label = np.sort(rng.integers(0, 3, (32, 32), dtype=np.uint8), axis=0)
        noise = rng.integers(0, 60, (32, 32, 3))
        return {"img": (self.palette[label] // 2 + noise).astype(np.uint8), "label": label}


def cross_entropy(logits, label):
    return F.cross_entropy(logits, label, axis=1)


def make_trainer(
    iters: int = 4,
    hooks=(),
    *,
    batch_size: int = 2,
    dataset=None,
    losses=None,
    norm: bool = False,
    init_seed: int = 0,
    schedule=None,
    freeze_patterns=(),
    **options,
) -> Trainer:
    """SGD with momentum, warm-up and weight decay over a `ToyNet` initialized by `init_seed`."""
    paddle.seed(init_seed)
    model = ToyNet(norm)
    schedule = schedule or polynomial_decay(10, 0.5, warmup_iters=3)
    frozen = freeze(model, freeze_patterns)
    parameters = [p for name, p in model.named_parameters() if name not in frozen]
    optimizer = paddle.optimizer.Momentum(schedule, 0.9, parameters, weight_decay=5e-4)
    losses = losses or [("main", cross_entropy, 1.0), ("aux", cross_entropy, 0.4)]
    options = TrainOptions(iters, batch_size, frozen=frozen, **options)
    return Trainer(model, dataset or ToyImages(), losses, optimizer, options, list(hooks))


def resume(trainer: Trainer, store: Checkpointer) -> None:
    """Continue from the last checkpoint."""
    last = store.load_last()
    trainer.load_state_dict(last.weights, last.state)


def evaluation_hooks(
    interval: int,
    dataset,
    store: Checkpointer,
    metrics_file=None,
    dashboard=None,
    *,
    count: int = 0,
    num_workers: int = 0,
    write_page=None,
    **early_stop,
) -> list[Hook]:
    """The hooks around the evaluation, as `liteseg train` makes them.

    `count` is the number of images of each kind in the gallery, which `write_page` receives.
    """
    gallery = Gallery(dataset, count)
    page = functools.partial(write_page, gallery) if write_page else None
    return [
        Evaluate(interval, dataset, TestConfig(), [gallery], num_workers=num_workers),
        EarlyStop(**early_stop),
        KeepBest(store),
        WriteReport(metrics_file, dashboard, gallery.panels, page),
    ]


class At(Hook):
    """Calls `action(trainer)` after iteration `iteration`."""

    def __init__(self, iteration: int, action):
        self.iteration, self.action = iteration, action

    def after_iteration(self, trainer):
        if trainer.iteration == self.iteration:
            self.action(trainer)


def arrays(state: dict) -> dict[str, np.ndarray]:
    """Nested tensors as a flat dict of copies in numpy."""
    flat = {}
    for key, value in state.items():
        if isinstance(value, dict):
            flat.update({f"{key}/{k}": v for k, v in arrays(value).items()})
        else:
            flat[key] = np.array(value.numpy() if isinstance(value, paddle.Tensor) else value)
    return flat


def assert_same(found: dict, expected: dict) -> None:
    """Every array of one nested dict is bit for bit that of the other."""
    found, expected = arrays(found), arrays(expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
