"""From a config to its model, datasets, losses and optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np

from liteseg.config.check import checked, num_classes_by_key
from liteseg.config.component import build, dataset_attribute, schemes_of, with_measured
from liteseg.config.load import Config
from liteseg.config.schema import CheckedConfig
from liteseg.errors import UserError
from liteseg.registry import DATASETS, LOSSES, LR_SCHEDULERS, MODELS, OPTIMIZERS
from liteseg.utils.class_weights import class_weights
from liteseg.utils.logging import get_logger
from liteseg.utils.text import redacted

if TYPE_CHECKING:
    import paddle

AnyConfig = Union[Config, CheckedConfig]
Counts = Union[Sequence[int], np.ndarray]
Losses = list[tuple[str, Any, float]]


def build_model(cfg: AnyConfig, pretrained: bool = True) -> paddle.nn.Layer:
    """The network; its `num_classes` is given or that of the datasets.

    Args:
        cfg: a config.
        pretrained: load the weights named `pretrained` in it; they may have to be downloaded.

    Raises:
        UserError: the config has errors, or the constructor refuses.
    """
    cfg = checked(cfg)
    numbers = num_classes_by_key(vars(cfg))
    derived = {"num_classes": next(iter(numbers.values()))} if numbers else {}
    spec = _to_build(cfg.model, pretrained)
    model = build(spec, MODELS, "model", **derived)
    encoder = spec.get("backbone", {}).get("pretrained")
    if encoder and not spec.get("pretrained"):
        others = ", ".join(name for name, _ in model.named_children() if name != "backbone")
        get_logger().info(f"weights: backbone from {redacted(encoder)}; initialized: {others}")
    return model


def _to_build(spec: Mapping[str, Any], pretrained: bool) -> Mapping[str, Any]:
    """The model without those `pretrained` that need not be loaded."""
    own = (
        MODELS[spec["type"]].__module__.startswith("liteseg.") if spec["type"] in MODELS else False
    )
    if pretrained and not (own and spec.get("pretrained")):
        return spec
    bare = _without_pretrained(spec)
    # Weights of the whole network replace those of the encoder.
    return {**bare, "pretrained": spec["pretrained"]} if pretrained else bare


def _without_pretrained(spec: Any) -> Any:
    if not isinstance(spec, Mapping):
        return spec
    return {key: _without_pretrained(v) for key, v in spec.items() if key != "pretrained"}


def build_dataset(cfg: AnyConfig, split: str) -> Any:
    """The dataset of `train`, `val` or `test`, with its transforms.

    Raises:
        UserError: the config has none for that split, or the files are not as expected.
    """
    cfg = checked(cfg)
    key = f"{split}_dataset"
    spec = getattr(cfg, key)
    if spec is None:
        given = [name for name, value in vars(cfg).items() if name.endswith("_dataset") and value]
        raise UserError(f"the config has no {key} (it has {', '.join(given)})")
    return build(spec, DATASETS, key)


def build_losses(
    cfg: AnyConfig,
    heads: int,
    pixel_counts: Union[Counts, Callable[[], Counts], None] = None,
    ignore_index: Optional[int] = None,
) -> Losses:
    """One `(name, loss, coef)` for each of the model's `heads` outputs in training.

    Args:
        cfg: with one loss or coefficient for all heads, or one per head.
        heads: number of outputs.
        pixel_counts: labeled pixels per class, for `weight: auto` and `weight: enet`, or a
            function that counts them (called at most once, and only if a loss needs it).
        ignore_index: label of ignored pixels (default: that of the train_dataset).

    Raises:
        UserError: numbers differ, or weights to measure without a training set.
    """
    cfg = checked(cfg)
    specs, coefs = cfg.loss.types, cfg.loss.coef or [1.0]
    for name, given in (("types", specs), ("coef", coefs)):
        if len(given) not in (1, heads):
            raise UserError(
                f"loss.{name}: {len(given)} entries for {heads} heads; give 1 or {heads}"
            )
    if schemes := schemes_of(specs):
        if pixel_counts is None:
            raise UserError(f"loss: `weight: {min(schemes)}` needs a training set to measure")
        counts = np.asarray(pixel_counts() if callable(pixel_counts) else pixel_counts)
        specs = with_measured(specs, {name: class_weights(counts, name) for name in schemes})
    ignore = ignore_index
    if ignore is None:
        ignore = dataset_attribute(cfg.train_dataset, "ignore_index")
    defaults = {} if ignore is None else {"ignore_index": ignore}
    losses = []
    for head in range(heads):
        index = head if len(specs) > 1 else 0
        loss = build(specs[index], LOSSES, f"loss.types.{index}", **defaults)
        coef = coefs[head] if len(coefs) > 1 else coefs[0]
        losses.append((f"head{head}_{specs[index]['type']}", loss, float(coef)))
    return losses


def build_optimizer(
    cfg: AnyConfig, parameters: Sequence, names: Sequence[str] = ()
) -> tuple[Any, Any]:
    """The optimizer of `parameters` and the learning-rate schedule inside it.

    Args:
        cfg: a config.
        parameters: those to train.
        names: of the parameters, which groups with rates of their own select.
    """
    cfg = checked(cfg)
    schedule = build(cfg.lr_scheduler, LR_SCHEDULERS, "lr_scheduler", iters=cfg.iters)
    supplied = {"parameters": parameters, "learning_rate": schedule, "names": names}
    if cfg.grad_clip is not None:
        supplied["grad_clip"] = cfg.grad_clip
    return build(cfg.optimizer, OPTIMIZERS, "optimizer", **supplied), schedule
