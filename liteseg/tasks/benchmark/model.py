"""Benchmark of a network: parameters, multiply-adds and activation memory of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from liteseg.config.build import build_model
from liteseg.config.check import AnyConfig, load_checked
from liteseg.config.component import dataset_bands
from liteseg.config.schema import CheckedConfig
from liteseg.errors import UserError
from liteseg.tasks.benchmark.complexity import Part, measure

CITYSCAPES_SIZE = (2048, 1024)  # (w, h)


@dataclass(frozen=True)
class ModelBenchmark:
    """The cost of evaluating one image in float32.

    Attributes:
        config: file of the config.
        size: (w, h) of the image.
        parts: the parts of the network in the order in which they ran.
        total: their sums, and the largest memory.
    """

    config: str
    size: tuple[int, int]
    parts: Sequence[Part]
    total: Part

    def as_json(self) -> dict[str, Any]:
        """The content of `liteseg bench model --json`."""
        return {**asdict(self), "size": list(self.size)}


def benchmark_model(
    cfg: AnyConfig, *, overrides: Sequence[str] = (), size: Optional[tuple[int, int]] = None
) -> ModelBenchmark:
    """Count parameters, multiply-adds and peak activation memory of a config's network, by part.

    Args:
        cfg: a YAML file, the name of a shipped config, or a loaded config.
        overrides: `key=value` changes of the config.
        size: (w, h) of the image; by default the size in evaluation, see `default_size`.

    Raises:
        UserError: the config has errors, or the size is unknown.
    """
    cfg = load_checked(cfg, overrides)
    size = size or default_size(cfg)
    model = build_model(cfg, pretrained=False)  # the cost does not depend on the weights
    cost = measure(model, size, len(dataset_bands(cfg.train_dataset) or "RGB"))
    return ModelBenchmark(str(cfg.path), size, cost.parts, cost.total)


def default_size(cfg: CheckedConfig) -> tuple[int, int]:
    """(w, h) of the network's input in evaluation, as far as the config defines it.

    The sliding window; for Cityscapes 2048x1024 times the largest scale; else the training crop.

    Raises:
        UserError: the config does not define it.
    """
    test = cfg.test_config
    if test.is_slide and test.crop_size:
        return test.crop_size
    data = cfg.val_dataset or cfg.train_dataset
    if data["type"] == "Cityscapes":
        scale = max(scale for scale, _ in test.views())
        width, height = CITYSCAPES_SIZE
        return int(width * scale + 0.5), int(height * scale + 0.5)
    for transform in cfg.train_dataset.get("transforms") or ():
        if transform["type"] == "RandomPaddingCrop" and "crop_size" in transform:
            return tuple(transform["crop_size"])
    raise UserError("the config does not define the size of its images; give --size W H")
