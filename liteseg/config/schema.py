"""The schema of a config: every key with its type, default, range and meaning.

`config.check` validates YAML against these fields, and the rest of liteseg reads values from a
`CheckedConfig`, so a default is written here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional, Union

from liteseg.config.keys import FRACTION, NOT_NEGATIVE, POSITIVE, REQUIRED, key, keys_of
from liteseg.config.load import Config
from liteseg.config.test_config import TestConfig
from liteseg.registry import (
    BACKBONES,
    DATASETS,
    LOSSES,
    LR_SCHEDULERS,
    MODELS,
    OPTIMIZERS,
    TRANSFORMS,
    Registry,
)

Component = dict[str, Any]  # `type` and constructor arguments


@dataclass(frozen=True)
class Amp:
    """Mixed precision."""

    level: Literal["O1"] = key("O1", "O1: casts per operator, float32 weights", yaml=str)
    dtype: Literal["float16", "bfloat16"] = key("float16", "the low precision")

    @staticmethod
    def conflicts(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(key, problem) of a level that does not exist."""
        level = values.get("level", "O1")
        if level == "O2":
            yield (
                "level",
                "O2 (low-precision weights) gains nothing on a network of this size; use O1",
            )
        elif level != "O1":
            yield "level", f"expected O1, found {level!r}"


@dataclass(frozen=True)
class Ema:
    """A moving average of the weights."""

    decay: float = key(0.9998, "share of the old average kept each iteration", FRACTION)


@dataclass(frozen=True)
class EarlyStop:
    """End of training when mIoU stalls."""

    patience: int = key(REQUIRED, "evaluations without a better mIoU before stopping", POSITIVE)
    min_delta: float = key(0.0, "increase of mIoU that counts as better", NOT_NEGATIVE)


@dataclass(frozen=True)
class LossConfig:
    """The losses of the training heads."""

    types: list[Component] = key(
        REQUIRED, "one loss for all heads, or one per head", registry=LOSSES, many=True
    )
    coef: Optional[Sequence[float]] = key(
        None, "weight of each head's loss (null: 1)", NOT_NEGATIVE
    )


_SWITCH = Union[bool, None, dict]


@dataclass(frozen=True)
class CheckedConfig:
    """A valid config with every default filled in; components stay mappings until built.

    `load_checked` makes one.
    """

    model: Component = key(REQUIRED, "the network", registry=MODELS)
    train_dataset: Component = key(
        REQUIRED, "images to train on, with augmentation", registry=DATASETS
    )
    batch_size: int = key(REQUIRED, "images per forward pass on each device", POSITIVE)
    iters: int = key(REQUIRED, "optimizer iterations", POSITIVE)
    optimizer: Component = key(REQUIRED, "optimizer with its weight decay", registry=OPTIMIZERS)
    lr_scheduler: Component = key(
        REQUIRED, "learning rate, decay and warm-up", registry=LR_SCHEDULERS
    )
    loss: LossConfig = key(
        REQUIRED, "losses over the training heads", yaml=dict, section=LossConfig
    )
    val_dataset: Optional[Component] = key(None, "images to evaluate on", registry=DATASETS)
    test_dataset: Optional[Component] = key(None, "images for `--split test`", registry=DATASETS)
    total_batch_size: Optional[int] = key(
        None,
        "images per iteration over all devices, by gradient accumulation"
        " (null: devices x batch_size)",
        POSITIVE,
    )
    grad_clip: Optional[float] = key(
        None, "clip gradients to this global norm (null: no clipping)", POSITIVE
    )
    freeze: Optional[Sequence[str]] = key(
        None, "layers or parameters that keep their values, by name or pattern (`backbone`)"
    )
    init_classes: Optional[Literal["by_name", "anew"]] = key(
        None,
        "fine-tuning to other classes: by_name keeps the classifier's rows of equal names, anew"
        " none (null: by_name where the names are known)",
    )
    test_config: TestConfig = key(
        {}, "settings of evaluation and prediction", yaml=Optional[dict], section=TestConfig
    )
    seed: Optional[int] = key(
        0, "random seed for initialization, shuffling and augmentation", NOT_NEGATIVE
    )
    deterministic: bool = key(False, "the same bits from the same seed; the log reports the cost")
    device: Literal["auto", "cpu", "gpu"] = key("auto", "auto: GPU if Paddle can use one")
    cudnn_exhaustive_search: bool = key(
        False, "GPU: time cuDNN's algorithms for each new shape and keep the fastest"
    )
    amp: Optional[Amp] = key(
        False, "mixed precision on devices that have it", yaml=_SWITCH, section=Amp
    )
    ema: Optional[Ema] = key(
        False, "evaluate a moving average of the weights", yaml=_SWITCH, section=Ema
    )
    early_stop: Optional[EarlyStop] = key(
        False,
        "stop when mIoU stalls",
        yaml=Union[Literal[False], None, dict],
        section=EarlyStop,
    )
    num_workers: Union[int, Literal["auto"]] = key(
        "auto", "worker processes per device", NOT_NEGATIVE
    )
    eval_batch_size: int = key(1, "images per forward pass in evaluation", POSITIVE)
    log_interval: int = key(10, "iterations between log lines", POSITIVE)
    eval_interval: int = key(
        None,
        "iterations between evaluations (null: a tenth of iters, at most 1000)",
        POSITIVE,
        yaml=Optional[int],
    )
    save_interval: int = key(
        None,
        "iterations between kept checkpoints (null: as eval_interval)",
        POSITIVE,
        yaml=Optional[int],
    )
    keep_checkpoints: int = key(
        5,
        "kept checkpoints in addition to last and best; of T each has 65 MB with SGD, 98 MB with "
        "AdamW",
        NOT_NEGATIVE,
    )
    num_pictures: int = key(
        4, "validation images shown: this many fixed, worst and best ones", NOT_NEGATIVE
    )
    plugins: Sequence[str] = key(
        (), "Python files that register components, relative to this file or the current folder"
    )
    source: Config = field(default=None, repr=False)  # type: ignore[assignment]

    def __str__(self) -> str:
        return self.dump()

    @property
    def path(self) -> Path:
        """The YAML file."""
        return self.source.path

    def dump(self) -> str:
        """YAML text, without bases, that loads back to the same config."""
        return self.source.dump()


SCHEMA = keys_of(CheckedConfig)

# Argument names that contain components: their registry, and whether it is a list.
NESTED: dict[str, tuple[Registry, bool]] = {
    "backbone": (BACKBONES, False),
    "datasets": (DATASETS, True),
    "losses": (LOSSES, True),
    "transforms": (TRANSFORMS, True),
}

# Arguments of datasets inside `datasets`, whose samples the outer dataset transforms.
INNER_DATASET: dict[str, Any] = {"transforms": ()}

# Arguments that liteseg supplies, by registry name, and the key that sets them instead.
SUPPLIED: dict[str, dict[str, str]] = {
    "OPTIMIZERS": {
        "parameters": "liteseg passes the model's parameters",
        "learning_rate": "set lr_scheduler.learning_rate",
        "grad_clip": "set the top-level grad_clip",
        "names": "liteseg passes the names of the parameters",
    },
    "LR_SCHEDULERS": {"iters": "set the top-level iters"},
}

# Arguments that a config may give; by default they follow from the training set.
DERIVED: dict[str, tuple[str, ...]] = {"MODELS": ("num_classes",), "LOSSES": ("ignore_index",)}

_EPOCHS = (
    "liteseg counts iterations; write iters: <epochs x training images / images per iteration>"
)
_RATES = "rates of their own are optimizer.custom_cfg: [{name: backbone, lr_mult: 0.1}]"
_FREEZE = "write the top-level freeze: [backbone]"

# Names from other toolkits, at the top level or as an argument, and what to write instead.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("epochs", "epoch", "num_epochs", "max_epochs", "train_epochs"), _EPOCHS),
    **dict.fromkeys(("max_iters", "num_iters", "iterations"), "it is the top-level iters here"),
    "num_classes": "write train_dataset.num_classes (and val_dataset.num_classes)",
    **dict.fromkeys(("lr", "lr0", "base_lr"), "write lr_scheduler.learning_rate: <value>"),
    **dict.fromkeys(("backbone_lr_mult", "lr_mult", "custom_cfg", "paramwise_cfg"), _RATES),
    **dict.fromkeys(("freeze", "freeze_at", "freeze_backbone", "frozen_stages"), _FREEZE),
}

# PaddleSeg keys without a meaning here; ignoring them silently would change a recipe.
FOREIGN: dict[str, str] = {
    **ELSEWHERE,
    "learning_rate": (
        "this is PaddleSeg's old form; write lr_scheduler: {type: PolynomialDecay,"
        " learning_rate: <value>, power: <decay.power>, end_lr: <decay.end_lr>}"
    ),
    "test": "PaddleSeg's development name of test_config; rename it",
    "train": "PaddleSeg's development section; use seed, amp, log_interval, save_interval here",
    "global": "PaddleSeg's development section; use device and num_workers here",
    "export": "export settings are arguments of `liteseg export`; remove it",
    "to_static_training": "liteseg trains in dynamic mode (static is no faster); remove it",
    "profiler_options": "use `liteseg bench train` to profile; remove it",
    "precision": "use amp: {level: O1, dtype: float16}",
    "amp_level": "use amp: {level: O1}",
    "slim": "pruning and distillation are not part of liteseg; remove it",
    "distill_loss": "pruning and distillation are not part of liteseg; remove it",
    "save_dir": "give `liteseg train --output DIR`; remove it",
    "resume_model": "give `liteseg train --resume DIR`; remove it",
    "save_interval_iters": "it is called save_interval here",
    "log_iters": "it is called log_interval here",
    "keep_checkpoint_max": "it is called keep_checkpoints here",
}
