"""Parameters that train at rates of their own, and those that do not train."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, TypedDict

from paddle import nn

from liteseg.errors import UserError, quoted


class _Named(TypedDict):
    name: str


class GroupSpec(_Named, total=False):
    """An entry of PaddleSeg's `custom_cfg`: factors for the parameters that it selects."""

    lr_mult: float
    weight_decay_mult: float


@dataclass(frozen=True)
class Group:
    """Parameters, by name, with one learning rate and weight decay.

    Attributes:
        title: the text that selects them.
        names: state-dict keys.
        lr_mult: factor of the schedule's learning rate.
        weight_decay_mult: factor of the optimizer's weight decay.
    """

    title: str
    names: tuple[str, ...]
    lr_mult: float = 1.0
    weight_decay_mult: float = 1.0


def parameter_groups(
    names: Sequence[str],
    custom_cfg: Optional[Sequence[GroupSpec]] = None,
    backbone_lr_mult: Optional[float] = None,
) -> list[Group]:
    """The groups of an optimizer's parameters; the last one has those that no entry selects.

    A parameter belongs to the first entry whose name its own name contains, as in PaddleSeg, or
    whose name is a pattern (`backbone.*.bn.*`) that its own name matches.

    Raises:
        ValueError: an entry selects no parameter, or a factor is negative.
    """
    entries: list[Any] = list(custom_cfg or ())
    if backbone_lr_mult is not None:
        if entries:
            raise ValueError("backbone_lr_mult and custom_cfg: give one of them")
        entries = [{"name": "backbone.*", "lr_mult": backbone_lr_mult}]
    left, groups = list(names), []
    for place, entry in enumerate(entries):
        text, where = entry["name"], f"custom_cfg.{place}" if custom_cfg else "backbone_lr_mult"
        selected = {n for n in names if text in n or fnmatch.fnmatchcase(n, text)}
        if not selected:
            raise ValueError(f"{where}: {_unmatched(text, names)}")
        factors = {key: float(entry.get(key, 1.0)) for key in ("lr_mult", "weight_decay_mult")}
        for key, factor in factors.items():
            if factor < 0:
                raise ValueError(f"{where}: {key} must be 0 or more, found {factor:g}")
        groups.append(Group(text, tuple(n for n in left if n in selected), **factors))
        left = [n for n in left if n not in selected]
    return [*groups, Group("others" if groups else "all", tuple(left))]


def _unmatched(pattern: str, names: Sequence[str]) -> str:
    """The message of a pattern without a parameter, with the nearest names."""
    parts = [name.split(".") for name in names]
    known = {".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}
    near = difflib.get_close_matches(pattern.strip("*."), sorted(known), n=3, cutoff=0.5)
    found = near or sorted({part[0] for part in parts})
    return (
        f"{quoted(pattern)} selects no parameter; {'similar' if near else 'the network has'}: "
        f"{', '.join(found)}"
    )


def _use_statistics(norm: nn.Layer, inputs: Any) -> None:
    norm.training = False


def freeze(model: nn.Layer, patterns: Sequence[str]) -> frozenset[str]:
    """Exclude parameters from training.

    Batch norm whose scale and shift are both frozen uses its statistics in training too, and keeps
    them.

    Args:
        model: a network.
        patterns: names of layers or parameters, or patterns such as `backbone.features.?.*`.

    Returns:
        The state-dict keys that keep their values.

    Raises:
        UserError: a pattern selects no parameter, or none is left to train.
    """
    trained = {name: p for name, p in model.named_parameters() if not p.stop_gradient}
    for pattern in patterns:
        found = [
            parameter
            for name, parameter in trained.items()
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")
        ]
        if not found:
            raise UserError(f"freeze: {_unmatched(pattern, list(trained))}")
        for parameter in found:
            parameter.stop_gradient = True
    frozen = {name for name, parameter in trained.items() if parameter.stop_gradient}
    if trained and len(frozen) == len(trained):
        raise UserError(f"freeze: {list(patterns)} leaves no parameter to train")
    for name, layer in model.named_sublayers():
        own = {f"{name}.{key}" for key in layer.state_dict()}
        scale_and_shift = own & trained.keys()
        is_norm = isinstance(layer, nn.layer.norm._BatchNormBase)
        if is_norm and scale_and_shift and scale_and_shift <= frozen:
            frozen |= own
            # `model.train()` after each evaluation would switch a mode that is set once.
            layer.register_forward_pre_hook(_use_statistics)
    return frozenset(frozen)
