"""The keys of a config: types, defaults, ranges and meanings, in one table.

`builder.check` holds configs against it and `setting` reads values through it, so a default is
written here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Literal, Optional, Union

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


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


@dataclass(frozen=True)
class Rule:
    """A range: `holds(number)`, and the `words` for it in "must be ..."."""

    holds: Callable[[float], bool]
    words: str


POSITIVE = Rule(lambda number: number > 0, "greater than 0")
NOT_NEGATIVE = Rule(lambda number: number >= 0, "0 or more")
FRACTION = Rule(lambda number: 0 < number < 1, "between 0 and 1")


@dataclass(frozen=True)
class Key:
    """One key of a config.

    Attributes:
        type: the annotation its value must fit.
        default: the value where the key is not given; REQUIRED if it must be.
        meaning: one line for people.
        rule: a range for the number (or for each number of a list).
        section: the keys below, for a mapping with fixed keys.
        registry: where its component (a mapping with `type`) is found.
        many: whether it is a list of components.
    """

    type: Any
    default: Any
    meaning: str
    rule: Optional[Rule] = None
    section: Optional[Mapping[str, Key]] = None
    registry: Optional[Registry] = None
    many: bool = False


def _component(registry: Registry, default: Any, meaning: str, many: bool = False) -> Key:
    return Key(list if many else dict, default, meaning, registry=registry, many=many)


_SIZE = Optional[tuple[int, int]]

TEST_CONFIG = {
    "aug_eval": Key(
        bool, False, "evaluate with `scales` and flips (otherwise at scale 1, no flip)"
    ),
    "scales": Key(
        Union[float, Sequence[float]], 1.0, "image scale, or several whose results add", POSITIVE
    ),
    "flip_horizontal": Key(bool, False, "add the mirrored image"),
    "flip_vertical": Key(bool, False, "add the image upside down"),
    "is_slide": Key(bool, False, "evaluate in windows of `crop_size`"),
    "crop_size": Key(_SIZE, None, "sliding window [w, h]", POSITIVE),
    "stride": Key(_SIZE, None, "step of the sliding window [w, h]", POSITIVE),
}
AMP = {
    "level": Key(Literal["O1", "O2"], "O1", "O1: casts by operator; O2: low-precision weights"),
    "dtype": Key(Literal["float16", "bfloat16"], "float16", "the low precision"),
}
EMA = {"decay": Key(float, 0.9998, "share of the old average kept each iteration", FRACTION)}
EARLY_STOP = {
    "patience": Key(int, REQUIRED, "evaluations without a better mIoU before stopping", POSITIVE),
    "min_delta": Key(float, 0.0, "gain of mIoU that counts as better", NOT_NEGATIVE),
}
LOSS = {
    "types": _component(LOSSES, REQUIRED, "one loss for all heads, or one each", many=True),
    "coef": Key(
        Optional[Sequence[float]], None, "weight of each head's loss (null: 1)", NOT_NEGATIVE
    ),
}

SCHEMA: dict[str, Key] = {
    "model": _component(MODELS, REQUIRED, "the network"),
    "train_dataset": _component(DATASETS, REQUIRED, "images to train on, with augmentation"),
    "val_dataset": _component(DATASETS, None, "images to evaluate on"),
    "test_dataset": _component(DATASETS, None, "images for `--split test`"),
    "batch_size": Key(int, REQUIRED, "images a forward pass on each device", POSITIVE),
    "total_batch_size": Key(
        Optional[int],
        None,
        "images an optimizer step over all devices, by gradient accumulation"
        " (null: devices x batch_size)",
        POSITIVE,
    ),
    "iters": Key(int, REQUIRED, "optimizer steps", POSITIVE),
    "optimizer": _component(OPTIMIZERS, REQUIRED, "optimizer with its weight decay"),
    "lr_scheduler": _component(LR_SCHEDULERS, REQUIRED, "learning rate, decay and warm-up"),
    "grad_clip": Key(Optional[float], None, "largest global gradient norm (null: any)", POSITIVE),
    "loss": Key(dict, REQUIRED, "losses over the training heads", section=LOSS),
    "test_config": Key(dict, {}, "how evaluation and prediction run", section=TEST_CONFIG),
    "seed": Key(Optional[int], 0, "of weights, order and augmentation", NOT_NEGATIVE),
    "deterministic": Key(bool, False, "the same bits from the same seed; the log tells the cost"),
    "device": Key(Literal["auto", "cpu", "gpu"], "auto", "auto: GPU if Paddle sees one"),
    "amp": Key(
        Union[bool, None, dict], False, "mixed precision on devices that have it", section=AMP
    ),
    "ema": Key(
        Union[bool, None, dict], False, "evaluate a moving average of the weights", section=EMA
    ),
    "early_stop": Key(
        Union[Literal[False], None, dict], False, "stop when mIoU stalls", section=EARLY_STOP
    ),
    "num_workers": Key(
        Union[int, Literal["auto"]], "auto", "reader processes a device", NOT_NEGATIVE
    ),
    "eval_batch_size": Key(int, 1, "images a forward pass in evaluation", POSITIVE),
    "log_interval": Key(int, 10, "iterations between log lines", POSITIVE),
    "eval_interval": Key(int, 1000, "iterations between evaluations", POSITIVE),
    "save_interval": Key(int, 1000, "iterations between kept checkpoints", POSITIVE),
    "keep_checkpoints": Key(int, 5, "kept checkpoints besides last and best", NOT_NEGATIVE),
    "num_pictures": Key(
        int, 4, "fixed, worst and best validation images shown, of each", NOT_NEGATIVE
    ),
    "plugins": Key(
        Sequence[str], (), "Python files that register components, relative to the current folder"
    ),
}

# Argument names that hold components: the registry they come from, and whether it is a list.
NESTED: dict[str, tuple[Registry, bool]] = {
    "backbone": (BACKBONES, False),
    "losses": (LOSSES, True),
    "transforms": (TRANSFORMS, True),
}

# Arguments that liteseg fills in itself, by registry name, and what sets them instead.
SUPPLIED: dict[str, dict[str, str]] = {
    "OPTIMIZERS": {
        "parameters": "liteseg passes the model's parameters",
        "learning_rate": "set lr_scheduler.learning_rate",
        "grad_clip": "set the top-level grad_clip",
    },
    "LR_SCHEDULERS": {"iters": "set the top-level iters"},
}

# Arguments that a config may give and that otherwise follow from the training set.
DERIVED: dict[str, tuple[str, ...]] = {"MODELS": ("num_classes",), "LOSSES": ("ignore_index",)}

# Keys of PaddleSeg that mean nothing here; ignoring them silently would change a recipe unseen.
FOREIGN: dict[str, str] = {
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


def setting(cfg: Mapping[str, Any], key: str) -> Any:
    """The value of a top-level key, or its default.

    For keys with a section (`amp`, `ema`, `early_stop`, `test_config`, `loss`): a dict with every
    key of the section filled in, or None where the whole is switched off.
    """
    entry = SCHEMA[key]
    value = cfg.get(key, entry.default)
    if entry.section is None:
        return value
    if value is None or value is False:
        return None
    given = {} if value is True else value
    return {name: given.get(name, sub.default) for name, sub in entry.section.items()}
